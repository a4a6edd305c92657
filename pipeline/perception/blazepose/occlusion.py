"""People over one another: which answer belongs to which person, and who is hidden.

Where two people overlap, the landmark model may answer for one of them with limbs of the other. So
each is also queried with the other painted over. That gives two explanations of the frame: either
person is in front and has its plain answer, while the other one has the answer behind the paint.
What counts is how well each explanation has continued both tracks over the last frames: in a single
frame, while one pose slides into the other, the wrong one may fit better.

A hidden person is kept where it is expected while that place is behind the person in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import cv2
import numpy as np

from pipeline.core.frame import Frame
from pipeline.core.people import Mask, Person
from pipeline.perception.blazepose.landmarks import OTHER_SIDE, box_around
from pipeline.perception.blazepose.overlap import inside, size_px
from pipeline.perception.blazepose.queries import LandmarkQuery, PersonRoi, Plan, ask, gather
from pipeline.perception.blazepose.roi import Overlap, Roi, roi_change

_JOINTS = np.array([11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28])
"""Shoulders, elbows, wrists, hips, knees and ankles: they tell people apart."""
_BOXES = 0.1
"""People overlap where their boxes share this part of the smaller one."""
_MOST_PAIRS = 3
"""The most pairs that are separated in a frame, at two queries each: in a crowd all overlap."""
_FAR = 0.4
"""A joint is at most this far from where it is expected, in parts of the person's size; beyond it,
it is simply wrong."""
_PRIOR = (2, 0.1)
"""Joints that are added, and their distance, so that a few visible ones do not count as sure."""
_SAME_JOINT = 0.06
"""Joints of two people coincide within this part of the smaller one's size."""
_ALIKE = 0.5
"""Cost of an answer whose joints all coincide with those of the person in front."""
_TAKEN = 0.8
"""An answer with this share of coinciding joints is the person in front."""
_ODD = 0.25
"""An answer is refused that is further from what is expected, in parts of the person's size, ..."""
_ODDER = 0.6
"""... and this much more for each second in which the person was hidden."""
_HELD = 0.15
"""Cost of an explanation that holds the person behind where it is expected, ..."""
_LOST = 0.25
"""... and of one that has no place for it."""
_SHOWN = 3
"""A person with fewer joints than this beside the one in front is hidden."""
_DECAY, _GAIN, _MOST = 0.95, 0.15, 1.0
"""Share of the evidence that is left after a frame; the most that a frame adds, and the most
there is."""
_SURE = 0.5
"""With more evidence than this, the other explanation is not asked for."""
_HOLD_S = 2.0
"""A hidden person is held for this long."""
_BEHIND = 0.2
"""It is held while this share of its landmarks is expected on the mask of the person in front."""
_FAINT = 0.2
"""Factor of the visibility of a hidden landmark."""
_FADE = 0.95
"""Factor of the score of a held person in each frame."""
_STEADY = 0.1
"""A next ROI of the person behind that changes by more than this, in parts of its side, is not
taken: the ROI moves with the visible joints instead."""
_SMOOTH = 0.7
"""Share of a person's motion that is kept in a frame, ..."""
_SLOWING = 0.8
"""... and while it is held."""
_STRIDE = 0.05
"""The most that a person is believed to move in a frame, in parts of its size."""


_Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


@dataclass(frozen=True, eq=False)
class _Order:
    """An explanation of a frame: the person in front, the one behind, and how badly both fit."""

    front: PersonRoi
    behind: PersonRoi | None
    cost: float


def separate(
    frame: Frame, rois: Sequence[Roi], found: Sequence[PersonRoi | None]
) -> Plan[list[PersonRoi | None]]:
    """Return the tracked people of a frame, after those that overlap were told apart.

    People that overlap no other stay as they were found, without further queries.

    Args:
        frame: The frame.
        rois: The ROI of each tracked person.
        found: The person found in each, and the next ROI; or None.
    """
    results = list(found)
    in_front: list[dict[int, float]] = [{} for _ in rois]
    for i, j in _closest_pairs(rois, found):
        results[i], results[j], evidence = yield from _separated(
            frame, (rois[i], rois[j]), (results[i], results[j])
        )
        in_front[i][rois[j].id], in_front[j][rois[i].id] = evidence, -evidence
    return [
        _remembered(frame, roi, result, known) if result is not None and known else result
        for roi, result, known in zip(rois, results, in_front)
    ]


def overlapping(rois: Sequence[Roi]) -> set[int]:
    """Return the ids of the people whose last landmarks overlap those of another one."""
    if len(rois) < 2:
        return set()
    boxes = [_box(roi) for roi in rois]
    pairs = combinations(range(len(rois)), 2)
    return {rois[k].id for i, j in pairs if _overlap(boxes[i], boxes[j]) > _BOXES for k in (i, j)}


def _closest_pairs(rois: Sequence[Roi], found: Sequence[PersonRoi | None]) -> list[tuple[int, int]]:
    """The pairs of overlapping people that are separated: those with most joints in common."""
    if len(rois) < 2:
        return []
    pairs, boxes = [], [_box(roi) for roi in rois]
    for i, j in combinations(range(len(rois)), 2):
        shared = _overlap(boxes[i], boxes[j])
        if shared > _BOXES:
            one, two = found[i], found[j]
            # A person that was not found may be behind the other one.
            common = 1.0 if one is None or two is None else _coincidence(one[0], two[0])
            pairs.append((-common, -shared, i, j))
    return [(i, j) for _, _, i, j in sorted(pairs)[:_MOST_PAIRS]]


def _separated(
    frame: Frame, rois: tuple[Roi, Roi], found: tuple[PersonRoi | None, PersonRoi | None]
) -> Plan[tuple[PersonRoi | None, PersonRoi | None, float]]:
    """The people of two ROIs, and the evidence that the first one is in front."""
    first, second = rois
    # A person that was just missed has no claim on one that is followed.
    if (
        found[0] is not None
        and found[1] is not None
        and _coincidence(found[0][0], found[1][0]) > _TAKEN
    ):
        if first.frames_missed and not second.frames_missed:
            found = None, found[1]
        elif second.frames_missed and not first.frames_missed:
            found = found[0], None
    evidence = first.overlap.in_front.get(second.id, 0.0) if first.overlap is not None else 0.0
    by_first = _order(frame, first, found[0], second)
    by_second = _order(frame, second, found[1], first)
    # Once sure, only the likely order is asked for; its evidence decays until both are again.
    if evidence > _SURE and found[0] is not None:
        evidence *= _DECAY
        chosen, first_in_front = (yield from by_first), True
    elif evidence < -_SURE and found[1] is not None:
        evidence *= _DECAY
        chosen, first_in_front = (yield from by_second), False
    else:
        one, two = yield from gather([by_first, by_second])
        first_in_front = two is None
        if one is not None and two is not None:
            gain = float(np.clip(two.cost - one.cost, -_GAIN, _GAIN))
            evidence = float(np.clip(_DECAY * evidence + gain, -_MOST, _MOST))
            first_in_front = evidence > 0
        chosen = one if first_in_front else two
    if chosen is None:
        return (*found, evidence)
    if first_in_front:
        return chosen.front, chosen.behind, evidence
    return chosen.behind, chosen.front, evidence


def _order(frame: Frame, front: Roi, found: PersonRoi | None, back: Roi) -> Plan[_Order | None]:
    """The explanation in which the person found in ``front`` hides that of ``back``."""
    if found is None:
        return None
    cost = _surprise(frame, front, found[0])
    answer = yield from ask(LandmarkQuery(frame, back, without=found[0]))
    if answer is not None:
        seen, odd = _seen_behind(frame, back, answer, found[0])
        if seen is not None:
            alike = _ALIKE * _coincidence(seen[0], found[0])
            return _Order(found, seen, cost + odd + alike)
    held = _held(frame, back, found[0])
    return _Order(found, held, cost + (_LOST if held is None else _HELD))


def _seen_behind(
    frame: Frame, roi: Roi, answer: PersonRoi, front: Person
) -> tuple[PersonRoi | None, float]:
    """The person behind, its hidden landmarks marked, and how unexpected its visible joints are.

    None where too little of it is visible, or the answer is not this person.
    """
    person, following = answer
    hidden = _hidden(person.landmarks_px, front)
    shown = _JOINTS[~hidden[_JOINTS]]
    odd = _surprise(frame, roi, person, shown)
    since_s = 0.0 if roi.overlap is None else abs(frame.pts_s - roi.overlap.shown_s)
    if len(shown) < _SHOWN or odd > _ODD + _ODDER * since_s or _coincidence(person, front) > _TAKEN:
        return None, odd
    if roi_change(roi, following) > _STEADY:
        # The alignment points of a half hidden person jump more than its visible joints.
        step = np.median((person.landmarks_px - _last(roi))[shown], axis=0)
        following = replace(roi, x=roi.x + float(step[0]), y=roi.y + float(step[1]))
    person = _marked(person, hidden)
    if person.mask is not None and front.mask is not None:
        person = replace(person, mask=_cut(person.mask, front.mask))
    following = replace(
        following, points=person.landmarks_px, side_votes=roi.side_votes, frames_missed=0,
        overlap=_memory(frame, roi, person),
    )  # fmt: skip
    return (person, following), odd


def _held(frame: Frame, roi: Roi, front: Person) -> PersonRoi | None:
    """The hidden person where it is expected; None where the one in front does not explain that."""
    memory = roi.overlap
    if memory is None or abs(frame.pts_s - memory.shown_s) > _HOLD_S:
        return None
    points = _expected(frame, roi)
    if _hidden(points, front).mean() < _BEHIND:
        return None
    step = np.median(points - _last(roi), axis=0)
    person = replace(
        _marked(replace(memory.person, landmarks_px=points), np.ones(len(points), bool)),
        score=_FADE * memory.person.score,
        mask=None,
    )
    memory = replace(
        memory, person=person, time_s=frame.pts_s, velocity_px=_SLOWING * memory.velocity_px
    )
    return person, replace(
        roi, x=roi.x + float(step[0]), y=roi.y + float(step[1]), points=points, frames_missed=0,
        overlap=memory,
    )  # fmt: skip


def _remembered(frame: Frame, roi: Roi, result: PersonRoi, in_front: dict[int, float]) -> PersonRoi:
    """The result, and in its ROI what the next frame needs to know."""
    person, following = result
    memory = following.overlap or _memory(frame, roi, person)
    return person, replace(following, overlap=replace(memory, in_front=in_front))


def _memory(frame: Frame, roi: Roi, person: Person) -> Overlap:
    """The memory of a person that was just seen, with its velocity averaged over some frames."""
    before = roi.overlap
    if before is None:
        return Overlap(person, frame.pts_s, frame.pts_s, np.zeros(2))
    velocity, elapsed_s = before.velocity_px, frame.pts_s - before.time_s
    if elapsed_s:
        step = np.median((person.landmarks_px - _last(roi))[_JOINTS], axis=0)
        # A person that jumps was mistaken before or is now; it does not run on like that.
        step *= min(1.0, _STRIDE * _size(_last(roi)) / max(float(np.linalg.norm(step)), 1e-6))
        velocity = _SMOOTH * velocity + (1 - _SMOOTH) * step / elapsed_s
    return Overlap(person, frame.pts_s, frame.pts_s, velocity)


def _box(roi: Roi) -> _Box | None:
    """The box around a person's last landmarks; None before the first."""
    if roi.points is None:
        return None
    (left, top), (right, bottom) = roi.points.min(0).tolist(), roi.points.max(0).tolist()
    return left, top, right, bottom


def _overlap(a: _Box | None, b: _Box | None) -> float:
    """The part of the smaller of two boxes that both share."""
    if a is None or b is None:
        return 0.0
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b))
    return max(wide, 0.0) * max(high, 0.0) / max(smaller, 1e-6)


def _expected(frame: Frame, roi: Roi) -> np.ndarray:
    """Where a person's landmarks (33, 2) are expected: its last ones, moved on."""
    if roi.overlap is None:
        return _last(roi)
    step = roi.overlap.velocity_px * (frame.pts_s - roi.overlap.time_s)
    return (_last(roi) + step).astype(np.float32)


def _last(roi: Roi) -> np.ndarray:
    assert roi.points is not None, "`_overlap` lets no other through"
    return roi.points


def _size(points: np.ndarray) -> float:
    return max(float(np.ptp(points, axis=0).max()), 1.0)


def _surprise(frame: Frame, roi: Roi, person: Person, joints: np.ndarray = _JOINTS) -> float:
    """How far joints are from where they are expected, on average, in parts of the size."""
    distance = np.linalg.norm(person.landmarks_px - _expected(frame, roi), axis=1)[joints]
    total = np.minimum(distance / _size(_last(roi)), _FAR).sum()
    count, usual = _PRIOR
    return float((total + count * usual) / (len(joints) + count))


def _coincidence(a: Person, b: Person) -> float:
    """The share of joints that two people have in the same place, on either side of the body."""
    straight, crossed = (
        np.linalg.norm(a.landmarks_px - b.landmarks_px[order], axis=1)[_JOINTS]
        for order in (slice(None), OTHER_SIDE)
    )
    near = np.minimum(straight, crossed) < _SAME_JOINT * min(size_px(a), size_px(b))
    return float(near.mean())


def _hidden(points: np.ndarray, front: Person) -> np.ndarray:
    """Which landmarks (33,) lie on the mask of the person in front."""
    return np.zeros(len(points), bool) if front.mask is None else inside(points, front.mask)


def _marked(person: Person, hidden: np.ndarray) -> Person:
    """The person with a low visibility of its hidden landmarks."""
    visibility = np.where(hidden, _FAINT * person.visibility, person.visibility)
    box = box_around(person.landmarks_px, visibility)
    return replace(person, visibility=visibility.astype(np.float32), box_px=box)


def _cut(mask: Mask, front: Mask) -> Mask:
    """A mask without the pixels of the one in front."""
    to_front = cv2.invertAffineTransform(front.to_image.astype(np.float64))
    place = to_front[:, :2] @ mask.to_image
    place[:, 2] += to_front[:, 2]
    size = mask.values.shape[::-1]
    covered = cv2.warpAffine(
        front.values, place, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    return Mask(mask.values * (1 - covered), mask.to_image)
