"""Looking for people in regions of a frame: those followed, and those who may be new.

Every function here is a rule (`queries.py`): it asks for looks and is sent finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.core.frame import Frame
from pipeline.core.people import Person
from pipeline.perception.blazepose import landmarks
from pipeline.perception.blazepose.overlap import limb_drift, mask_overlap, median_distance, on_mask
from pipeline.perception.blazepose.queries import (
    MIN_PRESENCE,
    LandmarkQuery,
    PersonRoi,
    Plan,
    ask,
    gather,
)
from pipeline.perception.blazepose.roi import Roi, moved, same_place

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
_CLEAR = 0.05
"""Left and right are told apart where exchanging them would move the limbs this much more."""
_FORGET = 0.7
"""What is left of the frames that agreed on left and right after one that does not tell."""
_MOST_VOTES = 30.0
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
_REST = 3
"""Windows for which a place where nobody was is not looked at again."""


def track_rois(
    frame: Frame, rois: Sequence[Roi]
) -> Plan[tuple[tuple[Person, ...], tuple[Roi, ...]]]:
    """Look for those followed in a frame -> who is there, and where to look for them next.

    Who is found twice is whom they are nearer to; the other may be behind them. Who is missed
    too often is forgotten.
    """
    found = yield from gather([_relocate(frame, roi) for roi in rois])
    for j in range(len(found)):
        for i in range(j):
            first, second = found[i], found[j]
            if first is None or second is None or not _same(first, second):
                continue
            if _innovation(rois[i], first) > _innovation(rois[j], second):
                found[i] = yield from _occluded(frame, rois[i], second[0])
            else:
                found[j] = yield from _occluded(frame, rois[j], first[0])
    after = []
    for roi, now in zip(rois, found):
        if now is not None:
            after.append(now[1])
        elif roi.frames_missed + 1 < _KEEP_MISSED:
            after.append(replace(roi, frames_missed=roi.frames_missed + 1))
    return tuple(now[0] for now in found if now is not None), tuple(after)


def _occluded(frame: Frame, roi: Roi, other: Person) -> Plan[PersonRoi | None]:
    """Who is in a region besides the other one there."""
    found = yield from ask(LandmarkQuery(frame, roi, without=other))
    if found is None or moved(roi, found[1]) > _REACH:
        return None
    if mask_overlap(found[0], [other]) >= _PART:
        return None
    return found[0], replace(found[1], side_votes=roi.side_votes)


def _relocate(frame: Frame, roi: Roi) -> Plan[PersonRoi | None]:
    """Who is in the region of somebody followed. Before they are given up, it is looked at in a
    mirror too: the network's answers err apart."""
    least = _FAINT_PRESENCE if roi.score > 0 and not roi.frames_missed else MIN_PRESENCE
    found = yield from ask(LandmarkQuery(frame, roi, least))
    if roi.points is None or roi.frames_missed:
        return found
    if found is None:
        found = yield from ask(LandmarkQuery(frame, roi, least, mirrored=True))
        if found is None or limb_drift(found[0], roi.points)[0] > _JUMP:
            return None
    there, swapped = limb_drift(found[0], roi.points)
    if there < min(swapped, _JUMP):
        clear = swapped > there + _CLEAR
        side_votes = min(roi.side_votes + 1, _MOST_VOTES) if clear else _FORGET * roi.side_votes
        return found[0], replace(found[1], side_votes=side_votes)
    return (yield from _continue_limbs(frame, roi, roi.points, found, least))


def _continue_limbs(
    frame: Frame, roi: Roi, points: np.ndarray, found: PersonRoi, least: float
) -> Plan[PersonRoi]:
    """The find that goes on from ``points``, where limbs seem to have jumped, or left and right
    to have changed places: another look's, in a mirror. Where none does but one would with left
    for right, that is exchanged, for as many frames as agreed before."""
    finds = [(*limb_drift(found[0], points), *found)]
    for turn, scale in _MIRRORED_LOOKS:
        other = yield from ask(
            LandmarkQuery(frame, _turned(roi, turn, scale), least, mirrored=True)
        )
        if other is None:
            continue
        finds.append((*limb_drift(other[0], points), *other))
        if finds[-1][0] < min(_JUMP, _BETTER * finds[0][0]):
            return other[0], replace(other[1], side_votes=roi.side_votes)
    there, swapped, person, where = min(finds, key=lambda find: find[1])
    if roi.side_votes > 0 and swapped < min(_JUMP, there - _CLEAR):
        person = landmarks.exchanged(person)
        return person, replace(where, points=person.landmarks_px, side_votes=roi.side_votes - 1)
    there, swapped, person, where = min(finds, key=lambda find: find[0])
    if there > _BETTER * finds[0][0]:
        there, swapped, person, where = finds[0]
    kept = 1.0 if there < _BETTER * swapped else _FORGET
    return person, replace(where, side_votes=kept * roi.side_votes)


def confirm_candidates(
    frame: Frame, candidates: Sequence[Roi], next_id: int, seen: Sequence[Person]
) -> Plan[tuple[list[PersonRoi], list[Roi]]]:
    """Who among the candidates is a person, and nobody who is seen already; and the candidates
    that are not. Their ids are ``next_id`` and on."""
    settled = yield from gather([_refine_roi(frame, replace(roi, score=0.0)) for roi in candidates])
    met: list[PersonRoi] = []
    refused = []
    for roi, found in zip(candidates, settled):
        if found is not None:
            others = [*seen, *(person for person, _ in met)]
            found = yield from _checked(frame, *found, others, roi.score)
        if found is not None:
            name = next_id + len(met)
            where = replace(found[1], score=roi.score, id=name)
            met.append((replace(found[0], roi=name), where))
        else:
            refused.append(replace(roi, frames_missed=_REST))
    return met, refused


def _refine_roi(frame: Frame, roi: Roi) -> Plan[PersonRoi | None]:
    """Look, and look again from where the person was found, until that changes little."""
    found = None
    for _ in range(_SETTLING):
        found = yield from ask(LandmarkQuery(frame, roi, 0.0))
        if found is None or moved(roi, found[1]) < _SETTLED:
            return found
        roi = found[1]
    return found


def _checked(
    frame: Frame, person: Person, roi: Roi, others: Sequence[Person], sure: float
) -> Plan[PersonRoi | None]:
    """Somebody found, if they are none of the others, most of them is to be seen, and they
    stay the same in a mirror and in a region turned and scaled: as the look says that agrees
    best with the others."""
    if mask_overlap(person, others) >= _PART or on_mask(person, *frame.size) < _PART:
        return None
    lenient = sure if abs(roi.angle) < _UPRIGHT else 0.5 * sure
    finds, changed = [(person, roi)], 0.0
    for turn, scale, mirrored, most in _SECOND_LOOKS:
        other = _turned(roi, turn, scale)
        found = yield from ask(LandmarkQuery(frame, other, _FAINT_PRESENCE, mirrored=mirrored))
        if found is None:
            return None
        changed = max(changed, median_distance(person, found[0]) / most)
        if changed > lenient:
            return None
        finds.append(found)
    # Who stays quite the same may look faint.
    least = MIN_PRESENCE * (1 + changed / lenient) / 2
    if np.mean([found.score for found, _ in finds]) < least:
        return None
    limbs = np.stack([found.landmarks_px[11:] for found, _ in finds])
    best = int(np.linalg.norm(limbs[:, None] - limbs, axis=-1).sum((1, 2)).argmin())
    return finds[0] if best == 0 else (yield from ask(LandmarkQuery(frame, finds[best][1])))


def _same(a: PersonRoi, b: PersonRoi) -> bool:
    """Whether two finds are one person: their landmarks and their regions lie on each other."""
    return median_distance(a[0], b[0]) < _SAME_PERSON and same_place(a[1], [b[1]]) is not None


def _innovation(roi: Roi, find: PersonRoi) -> tuple[bool, float]:
    """How little somebody found was expected there: not seen lately, or far from where they were,
    in pixels."""
    person, where = find
    if roi.points is None:
        return True, float(np.hypot(where.x - roi.x, where.y - roi.y))
    distances = np.linalg.norm(person.landmarks_px - roi.points, axis=1)
    return roi.frames_missed > 0, float(np.mean(distances))


def _turned(roi: Roi, turn: float, scale: float) -> Roi:
    return replace(roi, angle=roi.angle + turn, side=roi.side * scale)
