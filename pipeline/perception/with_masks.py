"""A perceiver whose masks another network makes: SAM's, prompted with people's boxes, or FastSAM's.

The heavy half runs on the key frame with the perceiver's own (`embed`); the light half, a mask for
each box, on every frame. With ``reuse`` the key frame's embedding also serves its neighbours, as
the plan this project began with has it: SAM's decoder is then asked for the neighbour's box in the
key frame's picture, and FastSAM's mask goes along with the box. That costs accuracy where people
move (docs/results/reuse.md), so it is off unless asked for, and refused to whoever moves much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Mask, Person
from pipeline.gpu.transfer import AsyncCopy
from pipeline.perception.base import People, Perceiver
from pipeline.perception.ultralytics_models.segment import Segmenter, image_of, looks, mask_of

MOST_MOTION = 0.02
"""Of any landmark between key frame and neighbour, in parts of the person's height. The key frame's
true mask, moved with the box, then overlaps the neighbour's by about 0.8 or more on every limb
(docs/results/reuse.md)."""
_VISIBLE = 0.5


@dataclass(frozen=True, eq=False)
class _Embedding:
    """The base's, and what the segmenter found in the key frame."""

    base: Any
    found: Any


def _mask(values: np.ndarray, person: Person) -> Mask | None:
    """The person's mask of these values; of none that is sure of anything, the one they had."""
    return mask_of(values.copy(), person) if (values > 0.5).any() else person.mask


class MaskedPerceiver(Perceiver):
    """``base`` finds the people, ``segmenter`` (on ``device``) says which pixels are theirs.

    With ``reuse``, ``reused`` and ``refused`` count people of neighbouring frames who got a mask
    from the key frame's embedding and who had moved more than ``most_motion``.

    Belongs to one thread at a time. What the segmenter found in a key frame is valid until the
    next key frame is embedded, so each `embed` is followed by its own `decode`.
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
        self.reports: tuple[Any, ...] = tuple(base.reports)

    def prepare(self, window: Window) -> Window:
        return self._base.prepare(window)

    def embed(self, window: Window, memory: Any) -> _Embedding:
        return _Embedding(self._base.embed(window, memory), self._found([window.key_frame]))

    def decode(self, embedding: _Embedding, window: Window) -> tuple[People, Any]:
        people, memory = self._base.decode(embedding.base, window)
        return self._masked(window, people, embedding.found), memory

    def perceive_many(
        self, windows: Sequence[Window], memories: Sequence[Any]
    ) -> list[tuple[People, Any]]:
        """As `Perceiver.perceive_many`; the base answers all windows together if it can."""
        out = []
        for window, (people, memory) in zip(windows, self._base.perceive_many(windows, memories)):
            found = self._found([window.key_frame]) if any(people) else None
            out.append((self._masked(window, people, found), memory))
        return out

    def close(self) -> None:
        self._base.close()

    @torch.inference_mode()
    def _found(self, frames: Sequence[Frame]) -> Any:
        images = [image_of(frame, self._device) for frame in frames]
        return self._segmenter.embed(torch.stack(images))

    @torch.inference_mode()
    def _masked(self, window: Window, people: People, found: Any) -> People:
        """Everybody with the mask that the segmenter makes of them; the key frame's embedding is
        used up first, since making others may overwrite it."""
        if not any(people):
            return people
        key = window.key
        every = [(t, k) for t, here in enumerate(people) for k in range(len(here))]
        still = self._still(people, key) if self._reuse else set()
        values = self._masks(window, people, [w for w in every if w[0] == key], found)
        if self._segmenter.once:
            regions = {person.roi: values[key, k] for k, person in enumerate(people[key])}
            values |= {(t, k): regions[people[t][k].roi] for t, k in still}
        else:
            values |= self._masks(window, people, sorted(still), found)
        missing = sorted({t for t, k in every if (t, k) not in values})
        if missing:
            # In one batch; its rows are in the order of the frames.
            again = self._found([window.frames[t] for t in missing])
            rest = [w for w in every if w not in values]
            values |= self._masks(window, people, rest, again, missing)
        order = sorted(values)
        host = AsyncCopy(torch.stack([values[place] for place in order])).result()
        masks = dict(zip(order, host))
        return [
            tuple(replace(person, mask=_mask(masks[t, k], person)) for k, person in enumerate(here))
            for t, here in enumerate(people)
        ]

    def _still(self, people: People, key: int) -> set[tuple[int, int]]:
        """Who of the neighbouring frames is in the key frame too and has hardly moved."""
        there = {person.roi: person for person in people[key]}
        still = set()
        for t, here in enumerate(people):
            for k, person in enumerate(here):
                if t == key:
                    continue
                before = there.get(person.roi)
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
        who: Sequence[tuple[int, int]],
        found: Any,
        frames: Sequence[int] | None = None,
    ) -> dict[tuple[int, int], Tensor]:
        """Masks (128, 128) of those at (frame, place), by that: each from their frame's row of what
        was ``found`` in ``frames``, or (None) all from its only row."""
        if not who:
            return {}
        box = self._segmenter.letterbox(*window.key_frame.size)
        rows = torch.from_numpy(looks([people[t][k] for t, k in who], box, box))
        pictures = torch.tensor([0 if frames is None else frames.index(t) for t, _ in who])
        made = self._segmenter.masks(found, rows.to(self._device), pictures.to(self._device))
        # What the segmenter returned may be written again by its next call.
        return dict(zip(who, made.clone()))


def motion(before: Person, after: Person) -> float:
    """The farthest that a landmark seen in both moved, in parts of the person's height."""
    seen = (before.visibility > _VISIBLE) & (after.visibility > _VISIBLE)
    if not seen.any():
        return float("inf")
    far = np.linalg.norm((after.landmarks_px - before.landmarks_px)[seen], axis=1).max()
    return float(far / max(after.box_px[3] - after.box_px[1], 1.0))
