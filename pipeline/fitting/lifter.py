"""A learned second opinion on depth: landmarks of sixteen frames -> where the last four are.

BlazePose judges depth frame by frame from a crop. How a limb moves across frames tells much more:
a small transformer, trained on motion capture seen through BlazePose's own errors, corrects the
world landmarks of a window from those of the frames before it, says how far off each may still be,
and so also rights left and right where the perceiver swaps them for a few frames (the idea of
lifting 2D tracks: Pavllo et al., 3D human pose estimation in video with temporal convolutions,
CVPR 2019). How it was made: ``pipeline/lifter_recipe``.
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
"""Frames that are looked at, the window's included."""
PERCEIVED_SHARE = 0.3
"""How much of the perceiver's own word is kept: the two err differently, their mean errs least."""
_HEAD = 32


MIRRORED = BLAZEPOSE_33.mirror.tolist()
"""Where each landmark is found in a mirror's picture of the same person."""


@dataclass(frozen=True, eq=False)
class LandmarkHistory:
    """What was seen of P people in K frames: ``rays`` (P, K, 33, 2) landmarks in the frame of the
    ray through the person, ``visible`` (P, K, 33), ``world_m`` (P, K, 33, 3), ``known`` (P, K)."""

    rays: Tensor
    visible: Tensor
    world_m: Tensor
    known: Tensor

    @classmethod
    def none(cls, people: int, device: torch.device, frames: int = CONTEXT) -> LandmarkHistory:
        shapes = ((LANDMARKS, 2), (LANDMARKS,), (LANDMARKS, 3), ())
        return cls(*(torch.zeros(people, frames, *shape, device=device) for shape in shapes))

    @classmethod
    def of(cls, seen: Observations) -> LandmarkHistory:
        """A window's own."""
        ahead = torch.ones_like(seen.image[..., :1])
        turned = torch.cat((seen.image, ahead), -1) @ seen.view
        rays = turned[..., :2] / turned[..., 2:].clamp_min(1e-3)
        return cls(rays, seen.visible, seen.world_m, seen.present)

    @classmethod
    def together(cls, people: list[LandmarkHistory]) -> LandmarkHistory:
        """One person each, as `person` gives them."""
        names = cls.__dataclass_fields__
        return cls(*(torch.stack([getattr(p, n) for p in people]) for n in names))

    def person(self, index: int) -> LandmarkHistory:
        """One person's, without the leading dimension."""
        return LandmarkHistory(*(getattr(self, n)[index] for n in self.__dataclass_fields__))

    def with_mirrored(self, order: Tensor) -> LandmarkHistory:
        """Everybody, and behind them everybody as a mirror shows them; ``order`` is `MIRRORED` on
        the device."""
        flipped = LandmarkHistory(
            mirrored(self.rays, order),
            self.visible.index_select(2, order),
            mirrored(self.world_m, order),
            self.known,
        )
        pairs = ((getattr(self, n), getattr(flipped, n)) for n in self.__dataclass_fields__)
        return LandmarkHistory(*(torch.cat(pair) for pair in pairs))

    def then(self, later: LandmarkHistory) -> LandmarkHistory:
        """The last frames of both, as many as this has."""
        keep = self.known.shape[1]
        pairs = ((getattr(self, n), getattr(later, n)) for n in self.__dataclass_fields__)
        return LandmarkHistory(*(torch.cat(pair, 1)[:, -keep:] for pair in pairs))


def mirrored(landmarks: Tensor, order: Tensor) -> Tensor:
    """Landmarks (P, K, 33, axes) as a mirror shows them: sides change places and x its sign."""
    swapped = landmarks.index_select(2, order)
    return torch.cat((-swapped[..., :1], swapped[..., 1:]), -1)


def features(seen: LandmarkHistory, interval_30hz: Tensor) -> Tensor:
    """What the network is told of each frame, (P, K, 201): landmarks about the hips in units of
    their spread, visibility, world landmarks; whether it is known; pace and spread."""
    hips = 0.5 * (seen.rays[..., LEFT_HIP, :] + seen.rays[..., RIGHT_HIP, :])
    known = seen.known[:, :, None]
    apart = (seen.rays - hips[..., None, :]) * known[..., None]
    count = (LANDMARKS * known.sum((1, 2))).clamp_min(LANDMARKS)
    size = (apart.square().sum((1, 2, 3)) / count).sqrt().clamp_min(1e-4)
    landmarks = torch.cat(
        (apart / size[:, None, None, None], seen.visible[..., None] - 0.5, 2 * seen.world_m), -1
    )
    about = torch.stack((interval_30hz.log(), size.log() + 2), -1)[:, None]
    about = about.expand(-1, known.shape[1], -1)
    return torch.cat((landmarks.flatten(2) * known, known, about), -1)


class Lifter:
    """The trained network; float32 on one device, holds no state."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights
        # Made once: nothing may come from the host while a CUDA graph is captured.
        self.order = torch.tensor(MIRRORED, device=weights["pos"].device)
        self.layers = 1 + max(int(k.split(".")[2]) for k in weights if k.startswith("t.layers."))

    @classmethod
    def load(cls, device: torch.device | str = "cpu", path: Path = LIFTER) -> Lifter:
        """Read the weights that come with this package."""
        with np.load(path) as file:
            return cls({k: torch.from_numpy(file[k].astype(np.float32)).to(device) for k in file})

    def __call__(
        self, sightings: LandmarkHistory, interval_30hz: Tensor, frames: int
    ) -> tuple[Tensor, Tensor]:
        """Where the landmarks of the last ``frames`` (at most four) frames are.

        ``sightings`` of `CONTEXT` frames, ``interval_30hz`` (P,) the time between them in
        thirtieths of a second. Returns (P, frames, 33, 3) metres from the mid-hip in the axes of
        each frame's ray frame, and their standard deviations across and along the view, (P, frames,
        33, 2).
        """
        both = sightings.with_mirrored(self.order)
        where, spread = self._look(both, interval_30hz.repeat(2), frames)
        # People are as likely to be seen in a mirror: the mean of both answers errs less.
        seen, other = where.chunk(2)
        first, second = spread.chunk(2)
        where = 0.5 * (seen + mirrored(other, self.order))
        return where, 0.5 * (first + second.index_select(2, self.order))

    def _look(
        self, sightings: LandmarkHistory, interval_30hz: Tensor, frames: int
    ) -> tuple[Tensor, Tensor]:
        x = linear(features(sightings, interval_30hz), *self._pair("a")) + self.weights["pos"]
        mask = sightings.known[:, None, None] > 0.5
        # A person seen for the first time has one frame to look at: itself.
        for layer in range(self.layers):
            x = self._layer(x, f"t.layers.{layer}", mask)
        x = layer_norm(x[:, -frames:], x.shape[-1:], *self._pair("n"))
        change, spread = linear(x, *self._pair("o")).unflatten(-1, (LANDMARKS, 5)).split((3, 2), -1)
        where = sightings.world_m[:, -frames:] + 0.2 * change
        hips = 0.5 * (where[..., LEFT_HIP, :] + where[..., RIGHT_HIP, :])
        # Laplace's scale to a standard deviation.
        return where - hips[..., None, :], 2**0.5 * (spread - 2.5).exp()

    def _pair(self, name: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]

    def _layer(self, x: Tensor, name: str, mask: Tensor) -> Tensor:
        """A pre-norm transformer layer (Xiong et al., ICML 2020)."""
        size = x.shape[-1:]
        heads = size[0] // _HEAD
        inner = layer_norm(x, size, *self._pair(f"{name}.norm1"))
        attend = self.weights[f"{name}.self_attn.in_proj_weight"]
        triple = linear(inner, attend, self.weights[f"{name}.self_attn.in_proj_bias"])
        q, k, v = triple.unflatten(-1, (3, heads, _HEAD)).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + linear(seen.transpose(1, 2).flatten(2), *self._pair(f"{name}.self_attn.out_proj"))
        inner = layer_norm(x, size, *self._pair(f"{name}.norm2"))
        inner = gelu(linear(inner, *self._pair(f"{name}.linear1")))
        return x + linear(inner, *self._pair(f"{name}.linear2"))


def lift(
    lifter: Lifter, seen: Observations, sightings: LandmarkHistory, interval_30hz: Tensor
) -> Observations:
    """A window's observations with the lifter's world landmarks, a share of the perceiver's own in
    them, and the lifter's spreads. ``sightings`` end with the window's own."""
    frames = seen.present.shape[1]
    where, spread = lifter(sightings, interval_30hz, frames)
    hips = 0.5 * (seen.world_m[..., LEFT_HIP, :] + seen.world_m[..., RIGHT_HIP, :])
    perceived = seen.world_m - hips[..., None, :]
    where = where + PERCEIVED_SHARE * (perceived - where)
    across, along = spread.unbind(-1)
    # The network has learned to correct BlazePose's world landmarks; flat ones it would only bend.
    known = seen.world_known[..., None]
    return replace(
        seen,
        world_m=torch.where(known[..., None] > 0, where, seen.world_m),
        world_spread_m=torch.stack((across, across, along), -1),
        world_weight=(seen.present[..., None] * known).expand_as(seen.visible),
    )
