"""The lifter's network on a GPU in one launch; `lifter_kernels_gpu` has the kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.core.skeleton import LANDMARKS
from pipeline.fitting import lifter_kernels_gpu as kernels
from pipeline.fitting.lifter import CONTEXT, HEAD, LandmarkHistory, Lifter

_ROW = 256
"""The numbers of a frame in the kernel: the features, or the network's width, to a power of 2."""
_ANSWERS = 5
"""Numbers of a landmark that the network computes: its change, and its spread across and along."""


class LifterKernel:
    """Computes the lifter's network. Made once; nothing is copied from the host later.

    Args:
        lifter: The network, on a GPU.
    """

    def __init__(self, lifter: Lifter) -> None:
        weights = lifter.weights
        self.layers = lifter.layers
        self._position = weights["pos"].contiguous()
        self._order = lifter.order.to(torch.int32)
        self._width, self._features = weights["a.weight"].shape
        matrices, numbers = [_columns(weights["a.weight"], _ROW)], [weights["a.bias"]]
        for layer in range(self.layers):
            for name, norm in _LAYER:
                pair = (weights[f"t.layers.{layer}.{name}{kind}"] for kind in ("weight", "bias"))
                weight, bias = pair
                if norm:
                    numbers += [weight, bias]
                    continue
                numbers.append(bias)
                # A wider layer is computed in pieces of the network's width.
                matrices += [_columns(part, len(part.mT)) for part in weight.split(self._width)]
        last = pad(weights["o.weight"], (0, 0, 0, self._width - len(weights["o.weight"])))
        matrices.append(_columns(last, self._width))
        numbers += [weights["n.weight"], weights["n.bias"]]
        numbers.append(pad(weights["o.bias"], (0, self._width - len(weights["o.bias"]))))
        self._weights = torch.cat([part.flatten() for part in matrices])
        self._numbers = torch.cat([part.flatten() for part in numbers])

    def __call__(
        self,
        history: LandmarkHistory,
        row: int,
        interval_30hz: Tensor,
        interval_row: int,
        frames: int,
    ) -> Tensor:
        """Return what the network says of the last frames, (P, 2, frames, 33, 5).

        It is the output of `Lifter`'s last layer: for each person, then for the mirrored one, what
        changes each landmark (3), and the logarithms of the spread across and along the view.

        Args:
            history: P people in `CONTEXT` frames.
            row: Numbers from one person's history to the next one's, in each of its arrays.
            interval_30hz: (P,) the time between frames, in thirtieths of a second.
            interval_row: Numbers from one person's to the next one's.
            frames: How many of the last frames to return.
        """
        people, device = len(history.known), history.known.device
        scratch = torch.empty(people, 2, CONTEXT, _ROW + 3 * self._width, device=device)
        answers = torch.empty(people, 2, frames, LANDMARKS, _ANSWERS, device=device)
        kernels.network[(people, 2)](
            history.rays, history.visible, history.world_m, history.known, row,
            interval_30hz, interval_row, self._order, self._position,
            self._weights, self._numbers, scratch, answers,
            LAYERS=self.layers, FRAMES=CONTEXT, WINDOW=frames, LANDMARKS=LANDMARKS,
            FEATURES=self._features, WIDTH=self._width, HEAD=HEAD, ROW=_ROW, num_warps=8,
        )  # fmt: skip
        return answers


_LAYER = (
    ("norm1.", True),
    ("self_attn.in_proj_", False),
    ("self_attn.out_proj.", False),
    ("norm2.", True),
    ("linear1.", False),
    ("linear2.", False),
)
"""The parts of a layer in order, and which are norms."""


def _columns(weight: Tensor, length: int) -> Tensor:
    """A layer's weight (outputs, inputs) as (length, outputs) in half precision.

    The archive holds half precision, so this rounds nothing.
    """
    return pad(weight, (0, length - weight.shape[1])).T.half().contiguous()
