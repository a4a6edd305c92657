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
from pipeline.perception.blazepose.overlap import apart, covered, on_mask, strayed
from pipeline.perception.blazepose.queries import MIN_PRESENCE, Find, Look, Steps, ask, side_by_side
from pipeline.perception.blazepose.roi import Region, moved, same_place

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


def follow(
    frame: Frame, regions: Sequence[Region]
) -> Steps[tuple[tuple[Person, ...], tuple[Region, ...]]]:
    """Look for those followed in a frame -> who is there, and where to look for them next.

    Who is found twice is whom they are nearer to; the other may be behind them. Who is missed
    too often is forgotten.
    """
    found = yield from side_by_side([_found_again(frame, region) for region in regions])
    for j in range(len(found)):
        for i in range(j):
            first, second = found[i], found[j]
            if first is None or second is None or not _same(first, second):
                continue
            if _surprise(regions[i], first) > _surprise(regions[j], second):
                found[i] = yield from _behind(frame, regions[i], second[0])
            else:
                found[j] = yield from _behind(frame, regions[j], first[0])
    after = []
    for region, now in zip(regions, found):
        if now is not None:
            after.append(now[1])
        elif region.missed + 1 < _KEEP_MISSED:
            after.append(replace(region, missed=region.missed + 1))
    return tuple(now[0] for now in found if now is not None), tuple(after)


def _behind(frame: Frame, region: Region, other: Person) -> Steps[Find | None]:
    """Who is in a region besides the other one there."""
    found = yield from ask(Look(frame, region, without=other))
    if found is None or moved(region, found[1]) > _REACH:
        return None
    if covered(found[0], [other]) >= _PART:
        return None
    return found[0], replace(found[1], votes=region.votes)


def _found_again(frame: Frame, region: Region) -> Steps[Find | None]:
    """Who is in the region of somebody followed. Before they are given up, it is looked at in a
    mirror too: the network's answers err apart."""
    least = _FAINT_PRESENCE if region.score > 0 and not region.missed else MIN_PRESENCE
    found = yield from ask(Look(frame, region, least))
    if region.points is None or region.missed:
        return found
    if found is None:
        found = yield from ask(Look(frame, region, least, mirrored=True))
        if found is None or strayed(found[0], region.points)[0] > _JUMP:
            return None
    there, swapped = strayed(found[0], region.points)
    if there < min(swapped, _JUMP):
        clear = swapped > there + _CLEAR
        votes = min(region.votes + 1, _MOST_VOTES) if clear else _FORGET * region.votes
        return found[0], replace(found[1], votes=votes)
    return (yield from _going_on(frame, region, region.points, found, least))


def _going_on(
    frame: Frame, region: Region, points: np.ndarray, found: Find, least: float
) -> Steps[Find]:
    """The find that goes on from ``points``, where limbs seem to have jumped, or left and right
    to have changed places: another look's, in a mirror. Where none does but one would with left
    for right, that is exchanged, for as many frames as agreed before."""
    finds = [(*strayed(found[0], points), *found)]
    for turn, scale in _MIRRORED_LOOKS:
        other = yield from ask(Look(frame, _turned(region, turn, scale), least, mirrored=True))
        if other is None:
            continue
        finds.append((*strayed(other[0], points), *other))
        if finds[-1][0] < min(_JUMP, _BETTER * finds[0][0]):
            return other[0], replace(other[1], votes=region.votes)
    there, swapped, person, where = min(finds, key=lambda find: find[1])
    if region.votes > 0 and swapped < min(_JUMP, there - _CLEAR):
        person = landmarks.exchanged(person)
        return person, replace(where, points=person.landmarks_px, votes=region.votes - 1)
    there, swapped, person, where = min(finds, key=lambda find: find[0])
    if there > _BETTER * finds[0][0]:
        there, swapped, person, where = finds[0]
    kept = 1.0 if there < _BETTER * swapped else _FORGET
    return person, replace(where, votes=kept * region.votes)


def meet(
    frame: Frame, candidates: Sequence[Region], next_id: int, seen: Sequence[Person]
) -> Steps[tuple[list[Find], list[Region]]]:
    """Who among the candidates is a person, and nobody who is seen already; and the candidates
    that are not. Their ids are ``next_id`` and on."""
    settled = yield from side_by_side(
        [_settle(frame, replace(region, score=0.0)) for region in candidates]
    )
    met: list[Find] = []
    refused = []
    for region, found in zip(candidates, settled):
        if found is not None:
            others = [*seen, *(person for person, _ in met)]
            found = yield from _checked(frame, *found, others, region.score)
        if found is not None:
            name = next_id + len(met)
            where = replace(found[1], score=region.score, id=name)
            met.append((replace(found[0], region=name), where))
        else:
            refused.append(replace(region, missed=_REST))
    return met, refused


def _settle(frame: Frame, region: Region) -> Steps[Find | None]:
    """Look, and look again from where the person was found, until that changes little."""
    found = None
    for _ in range(_SETTLING):
        found = yield from ask(Look(frame, region, 0.0))
        if found is None or moved(region, found[1]) < _SETTLED:
            return found
        region = found[1]
    return found


def _checked(
    frame: Frame, person: Person, region: Region, others: Sequence[Person], sure: float
) -> Steps[Find | None]:
    """Somebody found, if they are none of the others, most of them is to be seen, and they
    stay the same in a mirror and in a region turned and scaled: as the look says that agrees
    best with the others."""
    if covered(person, others) >= _PART or on_mask(person, *frame.size) < _PART:
        return None
    lenient = sure if abs(region.angle) < _UPRIGHT else 0.5 * sure
    finds, changed = [(person, region)], 0.0
    for turn, scale, mirrored, most in _SECOND_LOOKS:
        other = _turned(region, turn, scale)
        found = yield from ask(Look(frame, other, _FAINT_PRESENCE, mirrored=mirrored))
        if found is None:
            return None
        changed = max(changed, apart(person, found[0]) / most)
        if changed > lenient:
            return None
        finds.append(found)
    # Who stays quite the same may look faint.
    least = MIN_PRESENCE * (1 + changed / lenient) / 2
    if np.mean([found.score for found, _ in finds]) < least:
        return None
    limbs = np.stack([found.landmarks_px[11:] for found, _ in finds])
    best = int(np.linalg.norm(limbs[:, None] - limbs, axis=-1).sum((1, 2)).argmin())
    return finds[0] if best == 0 else (yield from ask(Look(frame, finds[best][1])))


def _same(a: Find, b: Find) -> bool:
    """Whether two finds are one person: their landmarks and their regions lie on each other."""
    return apart(a[0], b[0]) < _SAME_PERSON and same_place(a[1], [b[1]]) is not None


def _surprise(region: Region, find: Find) -> tuple[bool, float]:
    """How little somebody found was expected there: not seen lately, or far from where they were,
    in pixels."""
    person, where = find
    if region.points is None:
        return True, float(np.hypot(where.x - region.x, where.y - region.y))
    distances = np.linalg.norm(person.landmarks_px - region.points, axis=1)
    return region.missed > 0, float(np.mean(distances))


def _turned(region: Region, turn: float, scale: float) -> Region:
    return replace(region, angle=region.angle + turn, side=region.side * scale)
