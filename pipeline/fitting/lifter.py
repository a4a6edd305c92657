"""Depth from motion: a network that corrects the world landmarks of a window from sixteen frames.

BlazePose estimates depth frame by frame from a crop. How a limb moves across frames tells much
more. A small transformer, trained on motion capture with BlazePose's own errors, corrects the world
landmarks of the last four frames from those of sixteen and predicts how far off each may still be.
So it also restores left and right where the perceiver swaps them for a few frames. The idea is that
of lifting 2D tracks (Pavllo et al., 3D human pose estimation in video with temporal convolutions,
CVPR 2019). `tools/train_lifter` trained it; `lifter.md` says on what, and how good it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from pipeline.core.skeleton import BLAZEPOSE_33, LANDMARKS
from pipeline.fitting.solver import LEFT_HIP, RIGHT_HIP, Observations

LIFTER = Path(__file__).with_name("lifter.npz")
CONTEXT = 16
"""Frames that the network reads, the window's included."""
PERCEIVED_SHARE = 0.3
"""Share of the perceiver's own world landmarks in the result. The errors of the two differ, so
their mean errs least."""
BARELY_VISIBLE = 0.08
"""Visibility below which a corrected landmark loses weight."""
STILL_M = 0.002
"""Perceived landmarks that move by less than about this from frame to frame stand still."""
HEAD = 32
"""Width of an attention head."""


MIRRORED = BLAZEPOSE_33.mirror.tolist()
"""For each landmark, the one that takes its place when a person is mirrored."""


@dataclass(frozen=True, eq=False)
class LandmarkHistory:
    """The landmarks of P people in K frames, as the network reads them.

    Attributes:
        rays: (P, K, 33, 2) image landmarks in normalised coordinates of the ray frame.
        visible: (P, K, 33) visibility in [0, 1].
        world_m: (P, K, 33, 3) world landmarks in metres, axes of the ray frame.
        known: (P, K) 1 where the person was present, else 0.
    """

    rays: Tensor
    visible: Tensor
    world_m: Tensor
    known: Tensor

    @classmethod
    def none(cls, people: int, device: torch.device, frames: int = CONTEXT) -> LandmarkHistory:
        """Return a history without any known frame."""
        shapes = ((LANDMARKS, 2), (LANDMARKS,), (LANDMARKS, 3), ())
        return cls(*(torch.zeros(people, frames, *shape, device=device) for shape in shapes))

    @classmethod
    def of(cls, observed: Observations) -> LandmarkHistory:
        """Return the history of a window's own frames."""
        ahead = torch.ones_like(observed.image[..., :1])
        # A row vector times the view is the transposed view times the vector: camera to ray frame.
        turned = torch.cat((observed.image, ahead), -1) @ observed.view
        rays = turned[..., :2] / turned[..., 2:].clamp_min(1e-3)
        return cls(rays, observed.visible, observed.world_m, observed.present)

    @classmethod
    def stacked(cls, people: list[LandmarkHistory]) -> LandmarkHistory:
        """Return the history of several people, each as `person` returns one."""
        names = cls.__dataclass_fields__
        return cls(*(torch.stack([getattr(p, n) for p in people]) for n in names))

    def person(self, index: int) -> LandmarkHistory:
        """Return one person's arrays, without the leading dimension."""
        return LandmarkHistory(*(getattr(self, n)[index] for n in self.__dataclass_fields__))

    def with_mirrored(self, order: Tensor) -> LandmarkHistory:
        """Return the history of 2 P people: all people, then all of them mirrored.

        ``order`` is `MIRRORED` on the device.
        """
        flipped = LandmarkHistory(
            mirrored(self.rays, order),
            self.visible.index_select(2, order),
            mirrored(self.world_m, order),
            self.known,
        )
        pairs = ((getattr(self, n), getattr(flipped, n)) for n in self.__dataclass_fields__)
        return LandmarkHistory(*(torch.cat(pair) for pair in pairs))

    def then(self, later: LandmarkHistory) -> LandmarkHistory:
        """Return the last frames of this and the ``later`` history, as many as this has."""
        keep = self.known.shape[1]
        pairs = ((getattr(self, n), getattr(later, n)) for n in self.__dataclass_fields__)
        return LandmarkHistory(*(torch.cat(pair, 1)[:, -keep:] for pair in pairs))


def mirrored(landmarks: Tensor, order: Tensor) -> Tensor:
    """Return landmarks (P, K, 33, axes) mirrored: sides exchanged and x negated."""
    swapped = landmarks.index_select(2, order)
    return torch.cat((-swapped[..., :1], swapped[..., 1:]), -1)


def features(history: LandmarkHistory, interval_30hz: Tensor) -> Tensor:
    """Return what the network reads of each frame, (P, K, 201).

    Image landmarks about the hips in units of their spread, visibility and world landmarks; whether
    the frame is known; the logarithms of interval and spread. A person's size in the image enters
    as the spread alone, so that near and far people look alike otherwise.
    """
    hips = 0.5 * (history.rays[..., LEFT_HIP, :] + history.rays[..., RIGHT_HIP, :])
    known = history.known[:, :, None]
    relative = (history.rays - hips[..., None, :]) * known[..., None]
    count = (LANDMARKS * known.sum((1, 2))).clamp_min(LANDMARKS)
    # One spread for the whole context: a person who comes nearer still grows in the features.
    size = (relative.square().sum((1, 2, 3)) / count).sqrt().clamp_min(1e-4)
    # The factors and offsets belong to the trained weights; they cannot change without training.
    landmarks = torch.cat(
        (
            relative / size[:, None, None, None],
            history.visible[..., None] - 0.5,
            2 * history.world_m,
        ),
        -1,
    )
    scale = torch.stack((interval_30hz.log(), size.log() + 2), -1)[:, None]
    scale = scale.expand(-1, known.shape[1], -1)
    return torch.cat((landmarks.flatten(2) * known, known, scale), -1)


class Lifter:
    """The trained network, float32 on one device; holds no state.

    Args:
        weights: The arrays of ``lifter.npz``, on the device.

    Attributes:
        weights: As given.
        order: `MIRRORED` as a tensor on the device.
        layers: Transformer layers.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights
        # Made once: nothing may be copied from the host while a CUDA graph is captured.
        self.order = torch.tensor(MIRRORED, device=weights["pos"].device)
        # The archive says how deep the network is, so a deeper one needs no change here.
        self.layers = 1 + max(int(k.split(".")[2]) for k in weights if k.startswith("t.layers."))

    @classmethod
    def load(cls, device: torch.device | str = "cpu", path: Path = LIFTER) -> Lifter:
        """Return a lifter with the weights that come with this package.

        Args:
            device: Where to compute.
            path: An npz file of the network's weights.
        """
        with np.load(path) as file:
            return cls({k: torch.from_numpy(file[k].astype(np.float32)).to(device) for k in file})

    def __call__(
        self, history: LandmarkHistory, interval_30hz: Tensor, frames: int
    ) -> tuple[Tensor, Tensor]:
        """Return corrected world landmarks of the last frames, and how far off they may be.

        Args:
            history: P people in `CONTEXT` frames.
            interval_30hz: (P,) the time between frames, in thirtieths of a second.
            frames: How many of the last frames to return, four at most.

        Returns:
            World landmarks (P, frames, 33, 3) in metres from the mid-hip, axes of each frame's ray
            frame; and their standard deviations in metres across and along the view, (P, frames,
            33, 2).
        """
        # One pass of twice the people launches half as many kernels as two passes.
        both = history.with_mirrored(self.order)
        lifted, spread = self._network(both, interval_30hz.repeat(2), frames)
        # A mirrored person is as likely as the person, so both answers count alike and their
        # mean errs less than either.
        direct, other = lifted.chunk(2)
        first, second = spread.chunk(2)
        lifted = 0.5 * (direct + mirrored(other, self.order))
        return lifted, 0.5 * (first + second.index_select(2, self.order))

    def _network(
        self, history: LandmarkHistory, interval_30hz: Tensor, frames: int
    ) -> tuple[Tensor, Tensor]:
        """World landmarks and standard deviations as `__call__` returns them, not yet averaged."""
        x = linear(features(history, interval_30hz), *self._pair("a")) + self.weights["pos"]
        mask = history.known[:, None, None] > 0.5
        # Unknown frames are masked out of the attention; a new person attends to one frame alone.
        for layer in range(self.layers):
            x = self._layer(x, f"t.layers.{layer}", mask)
        # All sixteen frames pass the layers, but only the window's own are corrected.
        x = layer_norm(x[:, -frames:], x.shape[-1:], *self._pair("n"))
        change, spread = linear(x, *self._pair("o")).unflatten(-1, (LANDMARKS, 5)).split((3, 2), -1)
        lifted = history.world_m[:, -frames:] + 0.2 * change
        hips = 0.5 * (lifted[..., LEFT_HIP, :] + lifted[..., RIGHT_HIP, :])
        # The network predicts the scale of a Laplace distribution, whose standard deviation is
        # sqrt(2) times that.
        return lifted - hips[..., None, :], 2**0.5 * (spread - 2.5).exp()

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        """Weight and bias of a layer."""
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def _layer(self, x: Tensor, name: str, mask: Tensor) -> Tensor:
        """A pre-norm transformer layer (Xiong et al., ICML 2020)."""
        size = x.shape[-1:]
        heads = size[0] // HEAD
        inner = layer_norm(x, size, *self._pair(f"{name}.norm1"))
        attend = self.weights[f"{name}.self_attn.in_proj_weight"]
        triple = linear(inner, attend, self.weights[f"{name}.self_attn.in_proj_bias"])
        q, k, v = triple.unflatten(-1, (3, heads, HEAD)).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + linear(
            attended.transpose(1, 2).flatten(2), *self._pair(f"{name}.self_attn.out_proj")
        )
        inner = layer_norm(x, size, *self._pair(f"{name}.norm2"))
        inner = gelu(linear(inner, *self._pair(f"{name}.linear1")))
        return x + linear(inner, *self._pair(f"{name}.linear2"))


def _evened(change: Tensor, perceived_m: Tensor) -> Tensor:
    """The corrections (P, T, 33, 3) of a window, all alike where the person stands still.

    The network's error depends a little on where in its context a frame stands. Of a still picture
    that would be the only motion.
    """
    step_m = (perceived_m[:, 1:] - perceived_m[:, :-1]).square().mean((1, 2, 3)).sqrt()
    still = torch.exp(-((step_m / STILL_M) ** 2))[:, None, None, None]
    return change + still * (change.mean(1, keepdim=True) - change)


def _trust(visible: Tensor) -> Tensor:
    """The weights of corrected landmarks by their visibility: 1 unless next to nothing is seen."""
    return (visible / BARELY_VISIBLE).clamp(0.0, 1.0)


def lift(
    lifter: Lifter, observed: Observations, history: LandmarkHistory, interval_30hz: Tensor
) -> Observations:
    """Return a window's observations with world landmarks corrected by the lifter.

    A share of the perceiver's own stays in them. Their standard deviations are the lifter's. The
    weight of a landmark is 1, because the network accounts for visibility itself, and falls to 0
    where nothing of it is seen: there it would invent a limb, which the pose prior does better. A
    person whose world landmarks were only made from 2D ones keeps them, with the weight 0; one
    whose perceiver states their error keeps them with that error.

    Args:
        lifter: The network.
        observed: The window's observations.
        history: The landmarks of `CONTEXT` frames, which end with the window's own.
        interval_30hz: (P,) the time between frames, in thirtieths of a second.
    """
    frames = observed.present.shape[1]
    lifted, spread = lifter(history, interval_30hz, frames)
    perceived = from_hips(observed.world_m)
    lifted = lifted + PERCEIVED_SHARE * (perceived - lifted)
    if frames > 1:
        lifted = perceived + _evened(lifted - perceived, perceived)
    return corrected_by(observed, lifted, spread)


def from_hips(world_m: Tensor) -> Tensor:
    """Return world landmarks (..., 33, 3) about the middle of the hips."""
    hips = 0.5 * (world_m[..., LEFT_HIP, :] + world_m[..., RIGHT_HIP, :])
    return world_m - hips[..., None, :]


def corrected_by(observed: Observations, lifted: Tensor, spread: Tensor) -> Observations:
    """Return the observations with lifted landmarks, where those perceived are of BlazePose's kind.

    Args:
        observed: The observations (P, T, ...).
        lifted: (P, T, 33, 3) landmarks in metres.
        spread: (P, T, 33, 2) their standard deviations across and along the view, in metres.
    """
    across, along = spread.unbind(-1)
    # The network was trained on BlazePose's world landmarks; flat ones are unlike any of them.
    known = observed.world_known[..., None]
    # Nor was it trained on metric ones.
    stated = observed.world_sigma_m[..., None] > 0
    corrected = (known > 0) & ~stated
    spread = torch.stack((across, across, along), -1)
    weight = observed.present[..., None] * known * _trust(observed.visible)
    return replace(
        observed,
        world_m=torch.where(corrected[..., None], lifted, observed.world_m),
        world_spread_m=torch.where(stated[..., None], observed.world_spread_m, spread),
        world_weight=torch.where(stated, observed.world_weight, weight),
    )
