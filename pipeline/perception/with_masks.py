"""A perceiver whose masks another network makes: SAM, prompted with people's boxes, or FastSAM.

The heavy half runs on the key frame together with the base's (`embed`); the light half makes a mask
for each box on every frame. With ``reuse`` the key frame's embedding also serves its neighbours, as
in the plan with which this project began: SAM's decoder gets the neighbour's box in the key frame's
picture, and FastSAM's mask moves along with the box. That costs accuracy where people move
(docs/results/reuse.md), so it is off by default, and a person who moves much gets a mask of their
own anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Mask, Person, as_blazepose
from pipeline.gpu.transfer import AsyncCopy
from pipeline.perception.base import People, Perceiver
from pipeline.perception.ultralytics_models.segment import Segmenter, image_of, looks, mask_of

MOST_MOTION = 0.02
"""Most motion with which the key frame's mask is reused: that of any landmark between key frame and
neighbour, in parts of the person's height. The key frame's true mask, moved with the box, then
overlaps the neighbour's by about 0.8 or more on every limb (docs/results/reuse.md)."""
_VISIBLE = 0.5
"""Landmarks above this visibility count for the motion."""


@dataclass(frozen=True, eq=False)
class _Embedding:
    """The base's embedding, and the segmenter's of the key frame."""

    base: Any
    segmented: Any


def _mask(values: np.ndarray, person: Person) -> Mask | None:
    """The person's mask of these values; where none of them is sure, the one the person had."""
    return mask_of(values.copy(), person) if (values > 0.5).any() else person.mask


class MaskedPerceiver(Perceiver):
    """A perceiver that replaces the masks of another perceiver's people.

    It belongs to one thread at a time. The segmenter's embedding of a key frame is valid until the
    next one is made, so each `embed` must be followed by its own `decode`.

    Args:
        base: Finds the people.
        segmenter: Makes the masks.
        device: Where ``segmenter`` computes.
        reuse: Whether the key frame's embedding serves its neighbours too.
        most_motion: As `MOST_MOTION`.

    Attributes:
        reused: How many people of neighbouring frames got a mask from the key frame's embedding.
        refused: How many did not, since they had moved too far or were not in the key frame.
    """

    def __init__(
        self,
        base: Perceiver,
        segmenter: Segmenter,
        device: torch.device,
        *,
        reuse: bool = False,
        most_motion: float = MOST_MOTION,
    ) -> None:
        self._base, self._segmenter, self._device, self._reuse = base, segmenter, device, reuse
        self._most_motion = most_motion
        self.reused = self.refused = 0
        self.name = f"{base.name}, masks by {type(segmenter).__name__}"
        self.has_mhr, self.has_skin = base.has_mhr, base.has_skin
        self.reports: tuple[Any, ...] = tuple(base.reports)

    def prepare(self, window: Window) -> Window:
        """Return what the base's `prepare` returns."""
        return self._base.prepare(window)

    def embed(self, window: Window, memory: Any) -> _Embedding:
        """Return the key frame's embeddings, the base's and the segmenter's."""
        return _Embedding(self._base.embed(window, memory), self._segment([window.key_frame]))

    def decode(self, embedding: _Embedding, window: Window) -> tuple[People, Any]:
        """Return what the base's `decode` returns, the people with the segmenter's masks."""
        people, memory = self._base.decode(embedding.base, window)
        return self._masked(window, people, embedding.segmented), memory

    def perceive_many(
        self, windows: Sequence[Window], memories: Sequence[Any]
    ) -> list[tuple[People, Any]]:
        """As `Perceiver.perceive_many`; the base answers all windows together if it can."""
        out = []
        for window, (people, memory) in zip(windows, self._base.perceive_many(windows, memories)):
            # One window at a time, since the next embedding may overwrite this one.
            segmented = self._segment([window.key_frame]) if any(people) else None
            out.append((self._masked(window, people, segmented), memory))
        return out

    def unfollowed(self, memory: Any) -> int:
        """Return what the perceiver below says."""
        return self._base.unfollowed(memory)

    def close(self) -> None:
        """Close the base."""
        self._base.close()

    @torch.inference_mode()
    def _segment(self, frames: Sequence[Frame]) -> Any:
        """The segmenter's embedding of frames."""
        images = [image_of(frame, self._device) for frame in frames]
        return self._segmenter.embed(torch.stack(images))

    @torch.inference_mode()
    def _masked(self, window: Window, people: People, segmented: Any) -> People:
        """The people with the segmenter's masks.

        The key frame's embedding is used up first, since making another one may overwrite it.
        """
        if not any(people):
            return people
        key = window.key
        people_at = [(t, k) for t, here in enumerate(people) for k in range(len(here))]
        still = self._still(people, key) if self._reuse else set()
        values = self._masks(window, people, [w for w in people_at if w[0] == key], segmented)
        # These segmenters have made all masks already: the key frame's is taken as it is.
        if self._segmenter.once:
            by_roi = {person.roi: values[key, k] for k, person in enumerate(people[key])}
            values |= {(t, k): by_roi[people[t][k].roi] for t, k in still}
        else:
            values |= self._masks(window, people, sorted(still), segmented)
        missing = sorted({t for t, k in people_at if (t, k) not in values})
        if missing:
            # All in one batch, whose rows are in the order of the frames.
            others = self._segment([window.frames[t] for t in missing])
            rest = [w for w in people_at if w not in values]
            values |= self._masks(window, people, rest, others, missing)
        order = sorted(values)
        # One copy, and so one wait, for all masks of the window.
        host = AsyncCopy(torch.stack([values[place] for place in order])).result()
        masks = dict(zip(order, host))
        return [
            tuple(replace(person, mask=_mask(masks[t, k], person)) for k, person in enumerate(here))
            for t, here in enumerate(people)
        ]

    def _still(self, people: People, key: int) -> set[tuple[int, int]]:
        """(frame, index) of neighbouring frames' people who hardly moved since the key frame."""
        in_key = {person.roi: person for person in people[key]}
        still = set()
        for t, here in enumerate(people):
            for k, person in enumerate(here):
                if t == key:
                    continue
                before = in_key.get(person.roi)
                if before is not None and motion(before, person) <= self._most_motion:
                    still.add((t, k))
                    self.reused += 1
                else:
                    self.refused += 1
        return still

    def _masks(
        self,
        window: Window,
        people: People,
        wanted: Sequence[tuple[int, int]],
        segmented: Any,
        frames: Sequence[int] | None = None,
    ) -> dict[tuple[int, int], Tensor]:
        """Masks (128, 128) of the people at (frame, index), by that key.

        ``segmented`` holds an embedding of each of ``frames``; None means that it holds only one,
        for all.
        """
        if not wanted:
            return {}
        box = self._segmenter.letterbox(*window.key_frame.size)
        rows = torch.from_numpy(looks([people[t][k] for t, k in wanted], box, box))
        pictures = torch.tensor([0 if frames is None else frames.index(t) for t, _ in wanted])
        made = self._segmenter.masks(segmented, rows.to(self._device), pictures.to(self._device))
        # The segmenter may overwrite what it returned in its next call.
        return dict(zip(wanted, made.clone()))


def motion(before: Person, after: Person) -> float:
    """Return the farthest that a landmark visible in both moved, in parts of the person's height.

    Infinite where no landmark is visible in both.
    """
    # They may be of two networks, each with keypoints of its own.
    before, after = as_blazepose(before), as_blazepose(after)
    visible = (before.visibility > _VISIBLE) & (after.visibility > _VISIBLE)
    if not visible.any():
        return float("inf")
    far = np.linalg.norm((after.landmarks_px - before.landmarks_px)[visible], axis=1).max()
    return float(far / max(after.box_px[3] - after.box_px[1], 1.0))
