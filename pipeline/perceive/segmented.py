"""A perceiver whose masks another network makes: SAM's, prompted with people's boxes, or FastSAM's.

The heavy half runs on the key frame with the perceiver's own (`embed`); the light half, a mask for
each box, on every frame. With ``reuse`` the key frame's embedding also serves its neighbours, as
the plan this project began with has it: SAM's decoder is then asked for the neighbour's box in the
key frame's picture, and FastSAM's mask goes along with the box. That costs accuracy where people
move, so it is off unless asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.frame import Frame, Window
from pipeline.people import Mask, Person
from pipeline.perceive.base import Perceiver
from pipeline.perceive.ultra.segment import Segmenter, looks, mask_of
from pipeline.upload import Coming

People = list[tuple[Person, ...]]


@dataclass(frozen=True, eq=False)
class _Embedding:
    """The base's, and what the segmenter found in the key frame."""

    base: Any
    found: Any


def _mask(values: np.ndarray, person: Person) -> Mask | None:
    """The person's mask of these values; of none that is sure of anything, the one they had."""
    return mask_of(values.copy(), person) if (values > 0.5).any() else person.mask


class Segmented:
    """``base`` finds the people, ``segmenter`` (on ``device``) says which pixels are theirs.

    Belongs to one thread at a time. What the segmenter found in a key frame is valid until the
    next key frame is embedded, so each `embed` is followed by its own `decode`.
    """

    def __init__(
        self, base: Perceiver, segmenter: Segmenter, device: torch.device, *, reuse: bool = False
    ) -> None:
        self._base, self._segmenter, self._device, self._reuse = base, segmenter, device, reuse
        self.name = f"{base.name}, masks by {type(segmenter).__name__}"
        self.reports: tuple[Any, ...] = tuple(getattr(base, "reports", ()))

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
        """``decode(embed(...))`` for each window; the base answers all of them together if it
        can."""
        together = getattr(self._base, "perceive_many", None)
        if together is None:
            each = zip(windows, memories)
            return [self.decode(self.embed(w, memory), w) for w, memory in each]
        out = []
        for window, (people, memory) in zip(windows, together(windows, memories)):
            found = self._found([window.key_frame]) if any(people) else None
            out.append((self._masked(window, people, found), memory))
        return out

    def close(self) -> None:
        self._base.close()

    @torch.inference_mode()
    def _found(self, frames: Sequence[Frame]) -> Any:
        return self._segmenter.embed(torch.stack([self._picture(frame) for frame in frames]))

    def _picture(self, frame: Frame) -> Tensor:
        there = frame.on_device
        return torch.from_numpy(frame.image).to(self._device) if there is None else there

    @torch.inference_mode()
    def _masked(self, window: Window, people: People, found: Any) -> People:
        """Everybody with the mask that the segmenter makes of them; the key frame's embedding is
        used up first, since making others may overwrite it."""
        if not any(people):
            return people
        key, count = window.key, len(people)
        own = [key, *(t for t in range(count) if t != key)] if self._reuse else [key]
        values: dict[tuple[int, int], Tensor] = {}
        if self._reuse and self._segmenter.once:
            values |= self._masks(window, people, [key], found)
            values |= self._carried(people, key, values)
            own = [key]
        else:
            values |= self._masks(window, people, own, found)
        others = [t for t in range(count) if t not in own and people[t]]
        missing = [t for t in others if any((t, k) not in values for k in range(len(people[t])))]
        if missing:
            # In one batch; their own pictures' rows are in the order they are asked in.
            again = self._found([window.frames[t] for t in missing])
            new = self._masks(window, people, missing, again, own_rows=True)
            values = new | values
        order = sorted(values)
        host = Coming(torch.stack([values[place] for place in order])).arrived()
        masks = dict(zip(order, host))
        return [
            tuple(replace(person, mask=_mask(masks[t, k], person)) for k, person in enumerate(here))
            for t, here in enumerate(people)
        ]

    def _masks(
        self,
        window: Window,
        people: People,
        frames: Sequence[int],
        found: Any,
        own_rows: bool = False,
    ) -> dict[tuple[int, int], Tensor]:
        """Masks (128, 128) by frame and place in it, of the people in some frames: each from its
        frame's row of what was found, or all from the only row there is."""
        who = [(t, k) for t in frames for k in range(len(people[t]))]
        if not who:
            return {}
        height, width = window.key_frame.size
        box = self._segmenter.letterbox(height, width)
        rows = torch.from_numpy(looks([people[t][k] for t, k in who], box, box))
        pictures = [list(frames).index(t) if own_rows else 0 for t, _ in who]
        made = self._segmenter.masks(
            found, rows.to(self._device), torch.tensor(pictures, device=self._device)
        )
        # What the segmenter returned may be written again by its next call.
        return dict(zip(who, made.clone()))

    @staticmethod
    def _carried(
        people: People, key: int, values: dict[tuple[int, int], Tensor]
    ) -> dict[tuple[int, int], Tensor]:
        """The key frame's masks for the same people in the other frames."""
        known = {person.region: values[key, k] for k, person in enumerate(people[key])}
        return {
            (t, k): known[person.region]
            for t, here in enumerate(people)
            for k, person in enumerate(here)
            if t != key and person.region in known
        }
