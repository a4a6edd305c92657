"""SAM 3D Body on key frames only, with BlazePose's landmarks for the frames between.

BlazePose finds and follows the people. On a window's key frame SAM 3D Body measures them. What
their neighbouring frames get is a choice:

- "prompts": the decoder once more, on the key frame's features, prompted with the places of the
  four limb landmarks that moved farthest about the hips. The prompts say where these joints are
  now; the features still show the key frame. A person who moved more than `MOST_MOTION` is measured
  in that frame instead.
- "landmarks": BlazePose's landmarks with what SAM 3D Body corrected of them in the last key frame
  (`correction`). The fit ties both: one shape for the track, and poses that follow each other
  smoothly. One window in several may be enough.

Neither is a default: what they cost with the released weights has not been measured. What they can
give at best is in docs/results/reuse.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.core.people import Person
from pipeline.core.skeleton import BLAZEPOSE_33, MHR_70, blazepose_order
from pipeline.perception.base import People, Perceiver
from pipeline.perception.correction import Correction
from pipeline.perception.crop_tracking import LEAST_SIDE_PX, longer_side, seen_box
from pipeline.perception.crops import CropQuery
from pipeline.perception.sam3d_people import Sam3dPeople
from pipeline.perception.with_masks import motion
from pipeline.sam3d.prompt_encoder import NO_PROMPT

MOST_MOTION = 0.03
"""Most motion with which the key frame's features serve a neighbour, as of `with_masks.motion`. At
best reuse then costs 10 mm a joint (docs/results/reuse.md)."""
PROMPTS = 4
"""Prompts a person and frame: as many as the network's own second pass has, for wrists and
elbows."""
NEIGHBOURS = WINDOW_FRAMES - 1
_VISIBLE = 0.5
_LABELS, _ = blazepose_order(MHR_70)
_LIMBS = BLAZEPOSE_33.indices(
    *(
        f"{side}_{name}"
        for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    )
)
"""Landmarks that are prompts. Of all, three or four of those that moved farthest are often on one
hand."""


@dataclass(frozen=True)
class Memory:
    """What is remembered of a source between windows.

    Attributes:
        base: The base's memory; None for a new source.
        since: Windows since the key frame was measured last; 0: it is due.
        corrections: What was measured then, by the people's ROIs.
    """

    base: Any = None
    since: int = 0
    corrections: Mapping[int, Correction] = field(default_factory=dict)


class _Place(NamedTuple):
    """Where a person is: the window, the frame in it, and the index among its people."""

    window: int
    frame: int
    person: int


_Found = list[list[list[Person]]]
"""The people of windows' frames."""


def _query(frames: Sequence[Sequence[Frame]], people: _Found, place: _Place) -> CropQuery:
    """What is asked of a person: the crop that `TopDown` would take."""
    w, t, k = place
    return CropQuery(frames[w][t], seen_box(people[w][t][k], frames[w][t].size))


def _shows(query: CropQuery) -> bool:
    """Whether a box is large enough to show anything."""
    return longer_side(query.box) > LEAST_SIDE_PX


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

    def __init__(self, base: Perceiver, network: Sam3dPeople, reuse: str, every: int = 1) -> None:
        self._base, self._network = base, network
        self._prompted, self._every = reuse == "prompts", 1 if reuse == "prompts" else every
        self.reused = self.refused = 0
        between = "prompted" if self._prompted else base.name
        self.name = f"{network.name} on key frames, {between} between"
        self.has_skin = network.has_skin
        # With landmarks the frames between have no MHR bodies.
        self.has_mhr = self._prompted
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
        people = [list(map(list, each)) for each, _ in found]
        frames = [window.frames for window, _ in windows]
        # People who were never measured do not wait for their turn.
        keys = [
            _Place(w, _key(window), k)
            for w, (window, before) in enumerate(windows)
            for k, person in enumerate(people[w][_key(window)])
            if before.since == 0 or person.roi not in before.corrections
        ]
        own = self._decode_neighbours(frames, keys, people) if self._prompted else keys
        self._measure(frames, own, people)
        out = []
        for w, ((_, before), (seen, memory)) in enumerate(zip(windows, found)):
            corrections: Mapping[int, Correction] = {}
            if not self._prompted:
                corrections = self._corrected(frames[w], seen, people[w], before.corrections)
            after = Memory(memory, (before.since + 1) % self._every, corrections)
            out.append(([tuple(here) for here in people[w]], after))
        return out

    def _measure(
        self, frames: Sequence[Sequence[Frame]], places: Sequence[_Place], people: _Found
    ) -> None:
        """Put measured people where these are."""
        queries = {each: _query(frames, people, each) for each in places}
        shown = {each: query for each, query in queries.items() if _shows(query)}
        if shown:
            found = self._network.measure(list(shown.values()))
            for (w, t, k), person in zip(shown, found):
                people[w][t][k] = _as_followed(person, people[w][t][k])

    def _corrected(
        self,
        frames: Sequence[Frame],
        seen: People,
        people: list[list[Person]],
        known: Mapping[int, Correction],
    ) -> Mapping[int, Correction]:
        """Correct one window's people who were not measured, also those before the key frame, and
        return the corrections of the people who are there."""
        lens = self._network.intrinsics_of(frames[0].size)
        corrections = dict(known)
        for here, measured in zip(seen, people):
            for person, better in zip(here, measured):
                if better.world_sigma_m is not None:
                    corrections[person.roi] = Correction.of(person, better, lens)
        for frame in people:
            for k, person in enumerate(frame):
                correction = corrections.get(person.roi)
                if correction is not None and person.world_sigma_m is None:
                    frame[k] = correction.applied(person, lens)
        present = {person.roi for here in seen for person in here}
        return {roi: each for roi, each in corrections.items() if roi in present}

    def _decode_neighbours(
        self, frames: Sequence[Sequence[Frame]], keys: Sequence[_Place], people: _Found
    ) -> list[_Place]:
        """Put people where they are measured in key frames and decoded in neighbouring ones, and
        return where they have to be measured by themselves."""
        points = np.zeros((len(keys), NEIGHBOURS, PROMPTS, 2), np.float32)
        labels = np.full((len(keys), NEIGHBOURS, PROMPTS), NO_PROMPT)
        decoded: list[tuple[int, int, _Place]] = []
        used: dict[_Place, CropQuery] = {}
        for each in keys:
            w, key, k = each
            before, row, query = people[w][key][k], len(used), _query(frames, people, each)
            if not _shows(query):
                continue
            others = [t for t in range(len(frames[w])) if t != key]
            for column, t in enumerate(others):
                index = next((i for i, p in enumerate(people[w][t]) if p.roi == before.roi), None)
                if index is None or motion(before, people[w][t][index]) > MOST_MOTION:
                    continue
                points[row, column], labels[row, column] = prompts_of(before, people[w][t][index])
                decoded.append((row, 1 + column, _Place(w, t, index)))
            if decoded and decoded[-1][0] == row:
                used[each] = query
        taken = {*used, *(place for _, _, place in decoded)}
        rest = [
            _Place(w, t, k)
            for w, window in enumerate(people)
            for t, here in enumerate(window)
            for k in range(len(here))
            if (w, t, k) not in taken
        ]
        if used:
            answers = self._network.measure_with_neighbours(
                list(used.values()), points[: len(used)], labels[: len(used)]
            )
            placed = [(row, 0, place) for row, place in enumerate(used)]
            for row, column, (w, t, k) in placed + decoded:
                people[w][t][k] = _as_followed(answers[row][column], people[w][t][k])
        self.reused += len(decoded)
        self.refused += sum(place not in keys for place in rest)
        return rest


def prompts_of(before: Person, after: Person) -> tuple[np.ndarray, np.ndarray]:
    """Return the prompts for a person of a neighbouring frame: the limbs' landmarks that moved
    farthest about the hips.

    Args:
        before: The person in the key frame, in BlazePose's landmarks.
        after: The same person in the neighbouring frame.

    Returns:
        Places (4, 2) in image pixels, and which of MHR's 70 keypoints each is (4,); `NO_PROMPT`
        where fewer are visible.
    """
    visible = ((before.visibility > _VISIBLE) & (after.visibility > _VISIBLE))[_LIMBS]
    moved = np.linalg.norm(_about_hips(after) - _about_hips(before), axis=1)
    chosen = np.argsort(np.where(visible, -moved, np.inf), kind="stable")[:PROMPTS]
    landmarks = np.array(_LIMBS)[chosen]
    labels = np.where(visible[chosen], _LABELS[landmarks], NO_PROMPT)
    return after.landmarks_px[landmarks].astype(np.float32), labels


def _about_hips(person: Person) -> np.ndarray:
    """The limbs' landmarks (12, 2) about the middle of the hips, pixels."""
    return person.landmarks_px[_LIMBS] - person.landmarks_px[list(BLAZEPOSE_33.hips)].mean(0)


def _key(window: Window) -> int:
    """The place of the frame that is measured: the middle one, to which the others are nearest."""
    return len(window.frames) // 2


def _before(window: Window, memory: Memory | None) -> Memory:
    return Memory() if memory is None or window.reset else memory


def _as_followed(measured: Person, followed: Person) -> Person:
    """The measured person, with the base's track, score and mask."""
    return replace(measured, roi=followed.roi, score=followed.score, mask=followed.mask)
