"""A perceiver whose people carry the depth that a depth network reads at their hips.

The depth is in the map's own units. `tracking.depth_scale` finds once for each source how many
metres a unit is.
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
    """Reads depths out of images, as `ultralytics_models.segment.DepthMeter` does."""

    def letterbox(self, height: int, width: int) -> Letterbox:
        """Return how frames of this size lie in the network's input."""
        ...

    def __call__(self, images: Tensor, rows: Tensor, picture: Tensor) -> Tensor:
        """Return depths (N,), valid until the next call.

        Args:
            images: (B, H, W, 3) uint8 frames on the device.
            rows: (N, 10) people, as rows of `ultralytics_models.segment.looks`.
            picture: (N,) for each person, the index of its frame.
        """
        ...


class DepthPerceiver(Perceiver):
    """A perceiver that adds depths to the people of another perceiver.

    It belongs to one thread at a time.

    Args:
        base: Finds the people.
        meter: Reads their depths.
        device: Where ``meter`` computes.
        reuse: Whether only the key frame is measured. Then only its people have a depth, and the
            fit's smoothness carries it to the neighbouring frames.
    """

    def __init__(
        self, base: Perceiver, meter: DepthReader, device: torch.device, *, reuse: bool = False
    ) -> None:
        self._base, self._meter, self._device, self._reuse = base, meter, device, reuse
        self.name = f"{base.name}, depth by {type(meter).__name__}"
        self.has_mhr, self.has_skin = base.has_mhr, base.has_skin
        self.reports: tuple[Any, ...] = tuple(base.reports)

    def prepare(self, window: Window) -> Window:
        """Return what the base's `prepare` returns."""
        return self._base.prepare(window)

    def embed(self, window: Window, memory: Any) -> Any:
        """Return what the base's `embed` returns."""
        return self._base.embed(window, memory)

    def decode(self, embedding: Any, window: Window) -> tuple[People, Any]:
        """Return what the base's `decode` returns, the people with their ``map_depth``."""
        people, memory = self._base.decode(embedding, window)
        return self._measured(window, people), memory

    def perceive_many(
        self, windows: Sequence[Window], memories: Sequence[Any]
    ) -> list[tuple[People, Any]]:
        """As `Perceiver.perceive_many`; the base answers all windows together if it can."""
        results = self._base.perceive_many(windows, memories)
        return [
            (self._measured(w, people), memory) for w, (people, memory) in zip(windows, results)
        ]

    def unfollowed(self, memory: Any) -> int:
        """Return what the perceiver below says."""
        return self._base.unfollowed(memory)

    def close(self) -> None:
        """Close the base."""
        self._base.close()

    @torch.inference_mode()
    def _measured(self, window: Window, people: People) -> People:
        """The people with the depths of their own frames."""
        frames = [window.key] if self._reuse else range(len(window.frames))
        frames = [t for t in frames if people[t]]
        if not frames:
            return people
        images = torch.stack([image_of(window.frames[t], self._device) for t in frames])
        box = self._meter.letterbox(*window.key_frame.size)
        rows = torch.from_numpy(looks([p for t in frames for p in people[t]], box, box))
        picture = torch.tensor([k for k, t in enumerate(frames) for _ in people[t]])
        values = self._meter(images, rows.to(self._device), picture.to(self._device))
        # One copy, and so one wait, for all people of the window.
        depths = iter(AsyncCopy(values).result().tolist())
        out = list(people)
        for t in frames:
            out[t] = tuple(replace(p, map_depth=_valid(next(depths))) for p in people[t])
        return out


def _valid(depth: float) -> float | None:
    """The depth, or None where the network returned nothing usable."""
    return depth if math.isfinite(depth) and depth > 0 else None
