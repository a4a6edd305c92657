"""BlazePose for several people: detect on key frames, follow by regions on every frame.

``embed`` runs the detector on the key frame and tells what it finds from the people followed so
far; ``decode`` runs the landmark model in each region of each frame, key frame first and outward
from there, each frame's regions coming from its decoded neighbour's landmarks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.frame import Frame, Window
from pipeline.people import Person
from pipeline.perceive import detector, landmarks
from pipeline.perceive.likeness import apart, covered, on_mask, strayed
from pipeline.perceive.litert import load_model
from pipeline.perceive.region import Region, moved, same_place
from pipeline.perceive.resample import Box, crop, letterbox, painted_over, tiles

MIN_PRESENCE = 0.5
"""Below this nobody is in a region."""
_FAINT_PRESENCE = 0.02
"""... but in one where the detector sees somebody too: people who hide their face look faint."""
_SAME_PERSON = 0.12
"""Landmarks closer than this, in parts of the person's size, are one person's."""
_PART = 0.5
"""A find that lies this much on others is a part of them; and one of whose landmarks less lie on
its own mask is nobody, or hidden."""
_JUMP = 0.1
"""Limbs that move more than this between two frames, in parts of the person's size, are looked at
again."""
_BETTER = 0.6
"""... and that answer taken whose jump is this much smaller."""
_CLEAR, _FORGET, _MOST_VOTES = 0.05, 0.7, 30.0
_REACH = 0.25
"""How far somebody half hidden may have moved, in parts of their region's side."""
_KEEP_MISSED = 4
"""Frames in a row that somebody may be out of sight and keep their region."""
_SETTLING = 3
"""Looks at most until a detection's rough region fits the person."""
_SETTLED = 0.03
_UPRIGHT = 1.2
"""Radians. People lie and stand on their heads, but most of what is turned further is none of them:
it is believed when it stays the same twice as well."""
_SECOND_LOOKS = ((0.0, 1.0, True, 0.07), (-0.2, 1.1, False, 0.13))
"""Turns in radians, scales and mirrors in which a person, unlike a bench, stays the same: no
landmarks further apart, in parts of their size, than the last number, less where the detector is
unsure."""
_MIRRORED_LOOKS = ((0.0, 1.1), (-0.1, 1.0))
"""Turns and scales of the looks in a mirror at limbs that jumped, until one goes on from before."""
_FAVOUR = 1.3
"""A newcomer takes somebody's place only when this much larger."""
_MORE = 2
"""Candidates looked at beyond the free places: some are nobody."""
_EAGER = 4
"""Windows at the beginning for which all of the picture is searched: one frame may be blurred."""
_REST = 3
"""Windows for which a place where nobody was is not looked at again."""


@dataclass(frozen=True)
class Memory:
    """What BlazePose remembers of a source: where to look for the people it follows, the longest
    followed first; the next free region id; whose turn it is among the detector's views; and where
    the detector was wrong lately (``missed`` counts the windows to leave such a place alone)."""

    regions: tuple[Region, ...] = ()
    next_id: int = 0
    turn: int = 0
    refused: tuple[Region, ...] = ()


@dataclass(frozen=True)
class Embedding:
    """What the key frame told: where to look for those followed and, the largest first, for those
    who may be new. ``next_id``, ``turn`` and ``refused`` are the next memory's."""

    followed: tuple[Region, ...]
    candidates: tuple[Region, ...]
    refused: tuple[Region, ...]
    next_id: int
    turn: int


class BlazePose:
    """The default perceiver; LiteRT on the CPU. Not to be called from two threads at once.

    ``files`` are the two model files by name; at most ``max_people`` are followed, the largest
    ones; ``threads`` are LiteRT's own. Raises ValueError when a file is not the model it should
    be, RuntimeError when LiteRT is not installed.
    """

    name = "blazepose"

    def __init__(self, files: Mapping[str, Path], max_people: int = 4, threads: int = 2) -> None:
        if max_people < 1:
            raise ValueError(f"at least one person is followed, not {max_people}")
        threads = max(1, min(threads, os.cpu_count() or 1))
        self.max_people = max_people
        self._anchors = detector.make_anchors()
        self._detect = load_model(files["pose_detection.tflite"], detector.OUTPUTS, threads)
        self._landmark = load_model(files["pose_landmark_full.tflite"], landmarks.OUTPUTS, threads)

    def close(self) -> None:
        """Give back the models; nothing can be perceived after it."""
        self.__dict__.pop("_detect", None)
        self.__dict__.pop("_landmark", None)

    def embed(self, window: Window, memory: Memory | None) -> Embedding:
        """Look for people on the key frame. Whom the detector finds where somebody is followed
        is no news, but a second opinion; where somebody was just lost, it says where to look."""
        fresh = memory is None or window.reset
        known = Memory() if memory is None or window.reset else memory
        image = window.key_frame.image
        views = self._views(image, known, fresh)
        # Who is not asked about this time keeps the detector's last word.
        whole = views[0][2:] == image.shape[1::-1]
        followed = [replace(r, score=0.0) if whole else r for r in known.regions]
        refused = [replace(r, missed=r.missed - 1) for r in known.refused if r.missed > 1]
        candidates = []
        for region in self._detections(image, views):
            match = same_place(region, [r for r in followed if r.missed])
            if match is not None:
                lost = [k for k, r in enumerate(followed) if r.missed][match]
                old = followed[lost]
                followed[lost] = replace(region, id=old.id, missed=old.missed, points=old.points)
            elif (match := same_place(region, followed)) is not None:
                followed[match] = replace(followed[match], score=region.score)
            elif same_place(region, refused) is None:
                candidates.append(region)
        chosen = self._worth_a_look(candidates, followed, fresh)
        return Embedding(
            tuple(followed), tuple(chosen), tuple(refused), known.next_id, known.turn + 1
        )

    def decode(
        self, embedding: Embedding, window: Window
    ) -> tuple[list[tuple[Person, ...]], Memory]:
        """The people of every frame, and what to begin the next window with."""
        count, key = len(window.frames), window.key
        people: list[tuple[Person, ...]] = [()] * count
        seen, followed = self._follow(window.key_frame, embedding.followed)
        met, wrong = self._meet(window.key_frame, embedding, seen)
        regions = self._largest(followed, [region for _, region in met])
        ids = {region.id for region in regions}
        people[key] = tuple(p for p in (*seen, *(p for p, _ in met)) if p.region in ids)
        backward = forward = regions
        for t in range(key + 1, count):
            people[t], forward = self._follow(window.frames[t], forward)
        for t in range(key - 1, -1, -1):
            people[t], backward = self._follow(window.frames[t], backward)
        refused = (*embedding.refused, *wrong)
        return people, Memory(forward, embedding.next_id + len(met), embedding.turn, refused)

    def _views(self, image: np.ndarray, known: Memory, fresh: bool) -> list[Box]:
        """The parts of a picture to run the detector on. The whole and, while somebody may be
        new, a tile in its turn, every other window without the whole where all who are followed
        are seen; all of them where nothing is known, and all large ones soon after."""
        height, width = image.shape[:2]
        whole = (0, 0, width, height)
        levels = tiles(height, width, detector.INPUT)
        if fresh:
            return [whole, *(tile for level in levels for tile in level)]
        if len(known.regions) >= self.max_people or not levels:
            return [whole]
        if known.turn < _EAGER:
            return [whole, *levels[0]]
        # Large tiles have two turns of three: nearer people matter more, and have moved on sooner.
        level = levels[-1] if known.turn % 3 == 2 else levels[0]
        turn = known.turn // 3 if known.turn % 3 == 2 else known.turn - known.turn // 3
        tile = level[turn % len(level)]
        settled = bool(known.regions) and not any(region.missed for region in known.regions)
        return [tile] if settled and known.turn % 2 else [whole, tile]

    def _worth_a_look(
        self, candidates: list[Region], followed: Sequence[Region], fresh: bool
    ) -> list[Region]:
        """The largest candidates, so many that every free place may be filled; with none free,
        those large enough to take somebody's."""
        free = self.max_people - len(followed)
        least = 0.0 if free > 0 else _FAVOUR * min(region.side for region in followed)
        large = sorted((r for r in candidates if r.side > least), key=lambda r: -r.side)
        return large[: max(free, 0) + _MORE * (2 if fresh else 1)]

    def _detections(self, image: np.ndarray, views: Iterable[Box]) -> list[Region]:
        """Where the detector finds people in parts of a picture, the surest first, each once."""
        found = []
        for view in views:
            tensor, to_image = letterbox(image, view, detector.INPUT)
            raw, scores = self._detect(tensor)
            boxes = detector.decode_boxes(raw[0], scores[0, :, 0], self._anchors)
            found += detector.regions_of(detector.suppress(boxes), to_image)
        once: list[Region] = []
        for region in sorted(found, key=lambda region: -region.score):
            if same_place(region, once) is None and region.side > 16:
                once.append(region)
        return once

    def _follow(
        self, frame: Frame, regions: Sequence[Region]
    ) -> tuple[tuple[Person, ...], tuple[Region, ...]]:
        """Look for those followed in a frame -> who is there, and where to look for them next.

        Who is found twice is whom they are nearer to; the other may be behind them. Who is missed
        too often is forgotten.
        """
        found = [self._found_again(frame, region) for region in regions]
        for j in range(len(found)):
            for i in range(j):
                first, second = found[i], found[j]
                if first is None or second is None or not _same(first, second):
                    continue
                if _surprise(regions[i], first[1]) > _surprise(regions[j], second[1]):
                    found[i] = self._behind(frame, regions[i], second[0])
                else:
                    found[j] = self._behind(frame, regions[j], first[0])
        after = []
        for region, now in zip(regions, found):
            if now is not None:
                after.append(now[1])
            elif region.missed + 1 < _KEEP_MISSED:
                after.append(replace(region, missed=region.missed + 1))
        return tuple(now[0] for now in found if now is not None), tuple(after)

    def _behind(self, frame: Frame, region: Region, other: Person) -> tuple[Person, Region] | None:
        """Who is in a region besides the other one there."""
        found = self._person_in(frame, region, without=other)
        if found is None or moved(region, found[1]) > _REACH:
            return None
        return found if covered(found[0], [other]) < _PART else None

    def _found_again(self, frame: Frame, region: Region) -> tuple[Person, Region] | None:
        """Who is in the region of somebody followed.

        Where their limbs seem to have jumped, or left and right to have changed places, the region
        is looked at in a mirror too: the network's answers err apart, and the one that goes on
        from before is taken.
        """
        sure = region.score > 0 and not region.missed
        least = _FAINT_PRESENCE if sure else MIN_PRESENCE
        found = self._person_in(frame, region, least)
        if found is None or region.points is None or region.missed:
            return found
        there, swapped = strayed(found[0], region.points)
        if there < min(swapped, _JUMP):
            clear = swapped > there + _CLEAR
            votes = min(region.votes + 1, _MOST_VOTES) if clear else _FORGET * region.votes
            return found[0], replace(found[1], votes=votes)
        for turn, scale in _MIRRORED_LOOKS:
            other = self._person_in(frame, _turned(region, turn, scale), least, mirrored=True)
            if other is None:
                continue
            again, also = strayed(other[0], region.points)
            if again < _BETTER * there:
                found, there, swapped = other, again, also
            if there < _JUMP:
                return found[0], replace(found[1], votes=region.votes)
        if swapped < min(_BETTER * there, there - _CLEAR) and region.votes > 0:
            person = landmarks.exchanged(found[0])
            where = replace(found[1], points=person.landmarks_px, votes=region.votes - 1)
            return person, where
        return found

    def _meet(
        self, frame: Frame, embedding: Embedding, seen: Sequence[Person]
    ) -> tuple[list[tuple[Person, Region]], list[Region]]:
        """Who among the candidates is a person, and nobody who is seen already; and the candidates
        that are not."""
        met: list[tuple[Person, Region]] = []
        refused = []
        for region in embedding.candidates:
            somebody = replace(region, score=0.0, id=embedding.next_id + len(met))
            found = self._settle(frame, somebody)
            if found is not None:
                others = [*seen, *(person for person, _ in met)]
                found = self._checked(frame, *found, others, region.score)
            if found is not None:
                met.append((found[0], replace(found[1], score=region.score)))
            else:
                refused.append(replace(region, missed=_REST))
        return met, refused

    def _settle(self, frame: Frame, region: Region) -> tuple[Person, Region] | None:
        """Look, and look again from where the person was found, until that changes little."""
        found = None
        for _ in range(_SETTLING):
            found = self._person_in(frame, region, 0.0)
            if found is None or moved(region, found[1]) < _SETTLED:
                return found
            region = found[1]
        return found

    def _checked(
        self, frame: Frame, person: Person, region: Region, others: Sequence[Person], sure: float
    ) -> tuple[Person, Region] | None:
        """Somebody found, if they are none of the others, most of them is to be seen, and they
        stay the same in a mirror and in a region turned and scaled: as the look says that agrees
        best with the others."""
        if covered(person, others) >= _PART or on_mask(person, *frame.size) < _PART:
            return None
        lenient = sure if abs(region.angle) < _UPRIGHT else 0.5 * sure
        finds = [(person, region)]
        for turn, scale, mirrored, most in _SECOND_LOOKS:
            other = _turned(region, turn, scale)
            found = self._person_in(frame, other, _FAINT_PRESENCE, mirrored=mirrored)
            if found is None or apart(person, found[0]) > most * lenient:
                return None
            finds.append(found)
        if np.mean([found.score for found, _ in finds]) < MIN_PRESENCE:
            return None
        limbs = np.stack([found.landmarks_px[11:] for found, _ in finds])
        best = int(np.linalg.norm(limbs[:, None] - limbs, axis=-1).sum((1, 2)).argmin())
        return finds[0] if best == 0 else self._person_in(frame, finds[best][1])

    def _person_in(
        self,
        frame: Frame,
        region: Region,
        least: float = MIN_PRESENCE,
        mirrored: bool = False,
        without: Person | None = None,
    ) -> tuple[Person, Region] | None:
        """Who is in a region and where to look next, None when nobody is."""
        view = crop(frame.image, region, landmarks.INPUT)
        if without is not None and without.mask is not None:
            view = painted_over(view, region, without.mask)
        outputs = self._landmark(np.ascontiguousarray(view[:, ::-1]) if mirrored else view)
        if landmarks.presence_of(outputs) < least:
            return None
        return landmarks.read_person(region, outputs, mirrored)

    def _largest(self, followed: Sequence[Region], new: Sequence[Region]) -> tuple[Region, ...]:
        """The largest people, those already followed favoured and first."""
        sides = [r.side * _FAVOUR for r in followed] + [r.side for r in new]
        chosen = sorted(np.argsort(sides)[::-1][: self.max_people])
        return tuple([*followed, *new][i] for i in chosen)


def _same(a: tuple[Person, Region], b: tuple[Person, Region]) -> bool:
    """Whether two finds are one person: their landmarks and their regions lie on each other."""
    return apart(a[0], b[0]) < _SAME_PERSON and same_place(a[1], [b[1]]) is not None


def _surprise(region: Region, found: Region) -> tuple[bool, float]:
    """How little somebody found was expected there: not seen lately, or far to move."""
    return region.missed > 0, moved(region, found)


def _turned(region: Region, turn: float, scale: float) -> Region:
    return replace(region, angle=region.angle + turn, side=region.side * scale)
