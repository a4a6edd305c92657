"""SAM 3D Body on key frames only, with BlazePose's landmarks for the frames between.

BlazePose finds and follows the people. On a window's key frame SAM 3D Body measures them. What
their neighbouring frames get is a choice:

- "prompts": the decoder once more, on the key frame's features, prompted with the places of the
  four landmarks that moved farthest. Where a joint is, is news; what the features show around it is
  the key frame's. A person who moved more than `MOST_MOTION` is measured in that frame instead.
- "landmarks": BlazePose's landmarks as they are. The fit ties both: one shape for the track, and
  poses that follow each other smoothly. One window in several may be enough.

Neither is a default: what they cost with the released weights has not been measured. What they can
give at best is in docs/results/reuse.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from pipeline.core.frame import WINDOW_FRAMES, Window
from pipeline.core.people import Person
from pipeline.core.skeleton import MHR_70, blazepose_order
from pipeline.perception.base import People, Perceiver
from pipeline.perception.crops import CropQuery
from pipeline.perception.sam3d_people import Sam3dPeople
from pipeline.perception.with_masks import motion
from pipeline.sam3d.prompt_encoder import NO_PROMPT

Reuse = Literal["off", "prompts", "landmarks"]

MOST_MOTION = 0.05
"""Most motion with which the key frame's features serve a neighbour, as of `with_masks.motion`."""
PROMPTS = 4
"""Prompts a person and frame: as many as the network's own second pass has, for wrists and
elbows."""
NEIGHBOURS = WINDOW_FRAMES - 1
_VISIBLE = 0.5
_LABELS, _KNOWN = blazepose_order(MHR_70)


@dataclass(frozen=True)
class Memory:
    """What is remembered of a source between windows.

    Attributes:
        base: The base's memory; None for a new source.
        since: Windows since the key frame was measured last.
    """

    base: Any = None
    since: int = 0


class KeyFramePeople(Perceiver):
    """A perceiver that measures the people of another one with SAM 3D Body, on key frames.

    It belongs to one thread at a time.

    Args:
        base: Finds and follows people, in BlazePose's landmarks.
        network: Measures them.
        reuse: What the neighbours get: "prompts" or "landmarks".
        every: The key frame of one in this many windows is measured; with "prompts" of each.

    Attributes:
        reused: How many people of neighbouring frames were decoded from a key frame's features.
        refused: How many were not, since they had moved too far or were not in the key frame.
    """

    has_mhr = True

    def __init__(self, base: Perceiver, network: Sam3dPeople, reuse: Reuse, every: int = 1) -> None:
        self._base, self._network = base, network
        self._prompted, self._every = reuse == "prompts", 1 if reuse == "prompts" else every
        self.reused = self.refused = 0
        self.name = f"{network.name} on key frames, {base.name} between"
        self.has_skin = network.has_skin
        self.reports: tuple[Any, ...] = (*network.reports, *base.reports)

    def prepare(self, window: Window) -> Window:
        """Return what the base's `prepare` returns."""
        return self._base.prepare(window)

    def embed(self, window: Window, memory: Memory | None) -> Any:
        """Return the base's embedding of the key frame, and the memory."""
        before = _before(window, memory)
        return before, self._base.embed(window, before.base)

    def decode(self, embedding: Any, window: Window) -> tuple[People, Memory]:
        """Return the people of every frame, and the memory for the next window."""
        before, embedded = embedding
        return self._measured([(window, before)], [self._base.decode(embedded, window)])[0]

    def perceive_many(
        self, windows: Sequence[Window], memories: Sequence[Memory | None]
    ) -> list[tuple[People, Memory]]:
        """As `Perceiver.perceive_many`; the people of all windows are measured in one batch."""
        before = [_before(window, memory) for window, memory in zip(windows, memories)]
        found = self._base.perceive_many(windows, [each.base for each in before])
        return self._measured(list(zip(windows, before)), found)

    def unfollowed(self, memory: Memory) -> int:
        """Return what the base says."""
        return self._base.unfollowed(memory.base)

    def close(self) -> None:
        """Close the base."""
        self._base.close()

    def _measured(
        self, windows: Sequence[tuple[Window, Memory]], found: Sequence[tuple[People, Any]]
    ) -> list[tuple[People, Memory]]:
        looked_at = [before.since == 0 for _, before in windows]
        chosen = [
            (window, people)
            for (window, _), (people, _), wanted in zip(windows, found, looked_at)
            if wanted
        ]
        measured = iter(self._people(chosen))
        return [
            (
                next(measured) if wanted else people,
                Memory(memory, (before.since + 1) % self._every),
            )
            for (_, before), (people, memory), wanted in zip(windows, found, looked_at)
        ]

    def _people(self, windows: Sequence[tuple[Window, People]]) -> list[People]:
        """The people of windows, those that are measured in place of the base's."""
        out = [[list(here) for here in people] for _, people in windows]
        keys = [
            (w, k)
            for w, (window, people) in enumerate(windows)
            for k in range(len(people[window.key]))
        ]
        own: list[tuple[int, int, int]] = []
        if keys and self._prompted:
            own = self._decode_neighbours(windows, keys, out)
        elif keys:
            own = [(w, windows[w][0].key, k) for w, k in keys]
        if own:
            queries = [CropQuery(windows[w][0].frames[t], out[w][t][k].box_px) for w, t, k in own]
            for (w, t, k), person in zip(own, self._network.measure(queries)):
                out[w][t][k] = _as_followed(person, out[w][t][k])
        return [[tuple(here) for here in people] for people in out]

    def _decode_neighbours(
        self,
        windows: Sequence[tuple[Window, People]],
        keys: Sequence[tuple[int, int]],
        out: list[list[list[Person]]],
    ) -> list[tuple[int, int, int]]:
        """Measure key frames with their neighbours, and return which people (window, frame, index)
        have to be measured by themselves."""
        points = np.zeros((len(keys), NEIGHBOURS, PROMPTS, 2), np.float32)
        labels = np.full((len(keys), NEIGHBOURS, PROMPTS), NO_PROMPT)
        places: list[tuple[int, int, int, int]] = []
        taken = set()
        for row, (w, k) in enumerate(keys):
            window, people = windows[w]
            before = people[window.key][k]
            others = [t for t in range(len(window.frames)) if t != window.key]
            for column, t in enumerate(others):
                index = next((i for i, p in enumerate(people[t]) if p.roi == before.roi), None)
                if index is None or motion(before, people[t][index]) > MOST_MOTION:
                    continue
                points[row, column], labels[row, column] = prompts_of(before, people[t][index])
                places.append((row, w, t, index))
                taken.add((w, t, index))
        queries = [
            CropQuery(windows[w][0].key_frame, windows[w][1][windows[w][0].key][k].box_px)
            for w, k in keys
        ]
        answers = self._network.measure_with_neighbours(queries, points, labels)
        for (w, k), key_person in zip(keys, answers):
            key = windows[w][0].key
            out[w][key][k] = _as_followed(key_person[0], out[w][key][k])
        for row, w, t, index in places:
            column = t - (t > windows[w][0].key)
            out[w][t][index] = _as_followed(answers[row][1 + column], out[w][t][index])
        rest = [
            (w, t, index)
            for w, (window, people) in enumerate(windows)
            for t, here in enumerate(people)
            for index in range(len(here))
            if t != window.key and (w, t, index) not in taken
        ]
        self.reused += len(places)
        self.refused += len(rest)
        return rest


def prompts_of(before: Person, after: Person) -> tuple[np.ndarray, np.ndarray]:
    """Return the prompts for a person of a neighbouring frame: the landmarks that moved farthest.

    Args:
        before: The person in the key frame, in BlazePose's landmarks.
        after: The same person in the neighbouring frame.

    Returns:
        Places (4, 2) in image pixels, and which of MHR's 70 keypoints each is (4,); `NO_PROMPT`
        where fewer are visible.
    """
    visible = _KNOWN & (before.visibility > _VISIBLE) & (after.visibility > _VISIBLE)
    moved = np.linalg.norm(after.landmarks_px - before.landmarks_px, axis=1)
    chosen = np.argsort(np.where(visible, -moved, np.inf), kind="stable")[:PROMPTS]
    labels = np.where(visible[chosen], _LABELS[chosen], NO_PROMPT)
    return after.landmarks_px[chosen].astype(np.float32), labels


def _before(window: Window, memory: Memory | None) -> Memory:
    return Memory() if memory is None or window.reset else memory


def _as_followed(measured: Person, followed: Person) -> Person:
    """The measured person, with the base's track, score and mask."""
    return replace(measured, roi=followed.roi, score=followed.score, mask=followed.mask)
