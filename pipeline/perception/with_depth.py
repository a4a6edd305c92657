"""A perceiver whose people carry what a depth network reads at their hips.

In the map's own units: how many metres that is, is found once a source (`tracking.depth_scale`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.core.frame import Window
from pipeline.gpu.transfer import AsyncCopy
from pipeline.perception.base import People, Perceiver
from pipeline.perception.ultralytics_models.picture import Letterbox
from pipeline.perception.ultralytics_models.segment import image_of, looks


class DepthReader(Protocol):
    """What reads depths, as `ultra.segment.DepthMeter` does."""

    def letterbox(self, height: int, width: int) -> Letterbox: ...

    def __call__(self, images: Tensor, rows: Tensor, picture: Tensor) -> Tensor:
        """Depths (N,) of `looks` (N, 10), each in row ``picture`` (N,) of frames (B, H, W, 3);
        valid until the next call."""
        ...


class DepthPerceiver(Perceiver):
    """``base`` finds the people, ``meter`` (on ``device``) says how far they are: in every frame,
    or with ``reuse`` in the key frame only, and the fit carries it to its neighbours.

    Belongs to one thread at a time.
    """

    def __init__(
        self, base: Perceiver, meter: DepthReader, device: torch.device, *, reuse: bool = False
    ) -> None:
        self._base, self._meter, self._device, self._reuse = base, meter, device, reuse
        self.name = f"{base.name}, depth by {type(meter).__name__}"
        self.reports: tuple[Any, ...] = tuple(base.reports)

    def prepare(self, window: Window) -> Window:
        return self._base.prepare(window)

    def embed(self, window: Window, memory: Any) -> Any:
        return self._base.embed(window, memory)

    def decode(self, embedding: Any, window: Window) -> tuple[People, Any]:
        people, memory = self._base.decode(embedding, window)
        return self._measured(window, people), memory

    def perceive_many(
        self, windows: Sequence[Window], memories: Sequence[Any]
    ) -> list[tuple[People, Any]]:
        """As `Perceiver.perceive_many`; the base answers all windows together if it can."""
        found = self._base.perceive_many(windows, memories)
        return [(self._measured(w, people), memory) for w, (people, memory) in zip(windows, found)]

    def close(self) -> None:
        self._base.close()

    @torch.inference_mode()
    def _measured(self, window: Window, people: People) -> People:
        frames = [window.key] if self._reuse else range(len(window.frames))
        frames = [t for t in frames if people[t]]
        if not frames:
            return people
        images = torch.stack([image_of(window.frames[t], self._device) for t in frames])
        box = self._meter.letterbox(*window.key_frame.size)
        rows = torch.from_numpy(looks([p for t in frames for p in people[t]], box, box))
        picture = torch.tensor([k for k, t in enumerate(frames) for _ in people[t]])
        made = self._meter(images, rows.to(self._device), picture.to(self._device))
        depths = iter(AsyncCopy(made).result().tolist())
        out = list(people)
        for t in frames:
            out[t] = tuple(replace(p, map_depth=_sane(next(depths))) for p in people[t])
        return out


def _sane(depth: float) -> float | None:
    """None where a network says nothing of use."""
    return depth if math.isfinite(depth) and depth > 0 else None
