"""Tracking people from ROI to ROI, and checking candidates that may be new people.

Every function here that queries the landmark model is a plan (`queries.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Person
from pipeline.core.records import replaced
from pipeline.perception.blazepose import landmarks
from pipeline.perception.blazepose.between import between, hardly_moved
from pipeline.perception.blazepose.followed import need_scores
from pipeline.perception.blazepose.occlusion import overlapping, separate
from pipeline.perception.blazepose.overlap import (
    agreement,
    limb_drift,
    mask_overlap,
    median_distance,
    on_mask,
    share_inside,
)
from pipeline.perception.blazepose.queries import (
    MIN_PRESENCE,
    LandmarkQuery,
    PersonRoi,
    Plan,
    Query,
    ask,
    gather,
)
from pipeline.perception.blazepose.roi import (
    Roi,
    along_torso,
    continued,
    roi_change,
    turn_between,
    turned,
)

_FAINT_PRESENCE = 0.02
"""Least presence in an ROI that the detector confirms: people who hide their face score low."""
_PART = 0.5
"""A result that lies on other people by this share is a part of them. One with fewer of its
landmarks than this on its own mask is empty background, or a hidden person."""
_JUMP = 0.1
"""Limbs that move more than this between two frames, in parts of the person's size, are queried
again."""
_BETTER = 0.6
"""Another answer is taken when its jump is smaller by this factor."""
_CLEAR = 0.05
"""Left and right are told apart when exchanging them would move the limbs this much more."""
_VOTE_DECAY = 0.7
"""Share of the side votes that remains after a frame in which left and right are not clear."""
_MAX_VOTES = 30.0
_MAX_MISSED = 4
"""A track ends with this many frames in a row without its person."""
_LEAVING = 0.5
"""A person with fewer of its landmarks than this in the picture is leaving it."""
_WHOLE = 0.8
"""The rotation of a person with fewer of its landmarks in the picture is not doubted."""
_STRAYED = 0.12
"""A look whose ROI is further off its person than this, in parts of its side, is queried again
around that person."""
_TURNED = 0.35
"""... or is turned by more than this, in radians."""
_SPINNING = 2.5
"""People who turn faster than this in the picture, in radians a second, are asked for frame by
frame in an ROI that turns with them. In one at another rotation the model answers, and is sure,
with a person at that rotation."""
_AGREES = 0.4
"""Limbs and mask of most right answers agree better than this; where they do not, other rotations
are asked for ..."""
_CLEARLY = 1.3
"""... and the best is taken if presence and agreement together are better by this factor."""
_REST_FRAMES = 5
"""Frames for which a rotation is not doubted again, after none was better."""
_KNOWN_FRAMES = 15
"""People who were followed for fewer frames are not asked for at other rotations."""
_REFINEMENTS = 3
"""Most queries until a detection's rough ROI fits its person."""
_REFINED = 0.03
"""An ROI that changes by less than this, in parts of its side, fits."""
_UPRIGHT = 1.2
"""Radians. People lie and stand on their heads, but most results that are rotated further are not
people: they must stay the same twice as well."""
_CHECKS = ((0.0, 1.0, True, 0.07), (-0.2, 1.1, False, 0.13))
"""Rotations in radians, scales and mirroring under which a person stays the same while a bench does
not. The median landmark may differ by the last number, in parts of the person's size."""
_SURE_PRESENCE = (0.5, 0.3)
"""Least presence in every one of these answers that makes a person without any detector's score,
where nothing changed, and how much more it must be where the change is at the limit. Of 39 such
places in ten labelled frames of a crowd 36 were people; below 0.5 there were 37 of 134."""
_SURE_ANGLE = 0.5
"""... if it stands upright within this, in radians."""
_BOX_SCORE, _BOX_CHANGE, _BOX_PRESENCE, _BOX_LEAST = 0.3, 1.25, 0.3, 0.15
"""Where the second detector's score is above the first, a change up to the second, a mean presence
from the third and a least one from the fourth are enough: that adds a third to the people of these
frames. Painted spectators of renders look like people in some of these answers only."""
_MIRRORED_QUERIES = ((0.0, 1.1), (-0.1, 1.0))
"""Rotations and scales of the mirrored queries after limbs have jumped, until one answer continues
the motion."""
_MOST_DOUBTED = 2
"""People a frame, the largest, that are queried mirrored: the landmarks of small people in a
crowd jump all the time."""
_REFUSED_DETECTIONS = 3
"""Detector passes for which a refused candidate's place is left alone."""


@dataclass(frozen=True)
class Look:
    """The answer for one person in one frame, asked before the frames between were known.

    Attributes:
        roi: The ROI that was asked.
        answer: The person and the next ROI, with the model's presence as the score; None where
            the ROI is empty.
        again: The answer in the ROI of ``answer``, where that strayed and was asked for too.
        around: The ROI around which mirrored queries were asked too; None if they were not.
        mirrored: Their answers, in the order of `_MIRRORED_QUERIES`.
    """

    roi: Roi
    answer: PersonRoi | None
    again: tuple[PersonRoi | None, ...] = ()
    around: Roi | None = None
    mirrored: tuple[PersonRoi | None, ...] = ()


Looks = dict[tuple[int, int], Look]
"""Looks by frame of the window and track id."""


def look_ahead(window: Window, rois: Sequence[Roi], sparing: bool = False) -> Plan[Looks]:
    """Query the tracked people in the frames of a window.

    All are asked in the ROI of the last frame before the window. In four frames of 14 clips people
    moved by 0.07 of an ROI's side at the 95th percentile, by 0.10 at the 99th; predicting the
    motion from the frames before made that no less. People that overlap others or spin are left
    out: `track_rois` asks for them frame by frame.

    Args:
        window: The window.
        rois: The ROI of each tracked person in the frame before the window.
        sparing: Whether to ask for as little as possible: for the first and the last frame before
            the others, and for those only where the person moves (`between`). Else all frames are
            one batch, and the queries that their answers call for are another one.
    """
    # Where people overlap, an ROI of some frames ago may show the other one.
    not_ahead = overlapping(rois) | _spinning(rois)
    apart = [roi for roi in rois if roi.id not in not_ahead]
    last = len(window.frames) - 1
    inner = range(1, last)
    if not sparing or not inner:
        looks = yield from _looks(window, range(last + 1), apart)
        return looks if sparing else (yield from _second_looks(window, apart, looks))
    looks = yield from _looks(window, (0, last), apart)
    moving = []
    for roi in apart:
        before, after = looks[0, roi.id].answer, looks[last, roi.id].answer
        if before is None or after is None or not hardly_moved(before[0], after[0]):
            moving.append(roi)
            continue
        for t in inner:
            looks[t, roi.id] = Look(roi, between(before, after, t / last))
    if moving:
        looks |= yield from _looks(window, inner, moving)
    return looks


def _looks(window: Window, times: Iterable[int], rois: Sequence[Roi]) -> Plan[Looks]:
    """The answers for all ROIs in some frames of a window."""
    # A score of 0, so that the answer's score is the model's presence alone.
    rois = [replaced(roi, score=0.0) for roi in rois]
    asked = [(t, roi) for t in times for roi in rois]
    if not asked:
        return {}
    answers = yield [LandmarkQuery(window.frames[t], roi, _FAINT_PRESENCE) for t, roi in asked]
    return {(t, roi.id): Look(roi, answer) for (t, roi), answer in zip(asked, answers)}


def _second_looks(window: Window, rois: Sequence[Roi], looks: Looks) -> Plan[Looks]:
    """The looks, with the answers that following people through them will ask for next.

    These are asked for frame by frame otherwise, where a GPU waits for each: in the ROI of an
    answer that strayed, and mirrored where limbs jump, in the ROI to which the frame before will
    probably lead.
    """
    largest = {roi.id for roi in _largest(rois)}
    jumps = _before_jumps(window, [r for r in rois if r.id in largest], looks)
    found = {place: along_torso(look.answer[1]) for place, look in looks.items() if look.answer}
    strays = {place: roi for place, roi in found.items() if _strayed(looks[place].roi, roi)}
    places = [(time, roi, False) for (time, _), roi in strays.items()]
    for (time, _), roi in jumps.items():
        places += [(time, _varied(roi, *how), True) for how in _MIRRORED_QUERIES]
    if not places:
        return looks
    answers = yield [
        LandmarkQuery(window.frames[time], replaced(roi, score=0.0), _FAINT_PRESENCE, mirrored)
        for time, roi, mirrored in places
    ]
    remaining = iter(answers)
    looks = dict(looks)
    for place in strays:
        looks[place] = replaced(looks[place], again=(next(remaining),))
    for place, roi in jumps.items():
        mirrored = tuple(next(remaining) for _ in _MIRRORED_QUERIES)
        looks[place] = replaced(looks[place], around=roi, mirrored=mirrored)
    return looks


def _before_jumps(window: Window, rois: Sequence[Roi], looks: Looks) -> dict[tuple[int, int], Roi]:
    """The ROIs that looks lead to, in the frames where the limbs of the next look jump."""
    found = {}
    # As people are followed: outward from the key frame.
    for way in (range(window.key, len(window.frames)), range(window.key, -1, -1)):
        for roi in rois:
            for time in way:
                look = looks[time, roi.id]
                if look.answer is None or roi.points is None:
                    break
                points = look.answer[0].landmarks_px
                if _jumps(*limb_drift(look.answer[0], roi.points)):
                    found[time, roi.id] = roi
                    # A mirrored answer will probably continue from the limbs before the jump.
                    points = roi.points
                roi = replaced(along_torso(look.answer[1]), points=points)
    return found


def track_rois(
    window: Window, time: int, rois: Sequence[Roi], looks: Looks, at_once: bool = False
) -> Plan[tuple[tuple[Person, ...], tuple[Roi, ...]]]:
    """Find the tracked people in one frame of a window.

    People that overlap are separated (`occlusion`). A track without its person for too many frames
    ends.

    Args:
        window: The window.
        time: Which of its frames.
        rois: The ROI of each tracked person.
        looks: What `look_ahead` returned; people without a look are queried in their ROI.
        at_once: Whether the mirrored queries of those that may need them go out with the first one,
            as a batch, instead of one after another.

    Returns:
        The people that are present, and the ROIs in which to find them next.

    Raises:
        ScoreNeeded: People overlap or are found at another rotation, and scores are not known yet.
    """
    frame = window.frames[time]
    spinning = _spinning(rois)
    rois = [turned(roi, frame.pts_s) if roi.id in spinning else roi for roi in rois]
    # All people in one round, which a GPU answers in one batch.
    doubted = {roi.id for roi in _largest(rois)}
    close = overlapping(rois)
    if close:
        need_scores(rois)
    plans = []
    for roi in rois:
        look = None if roi.id in close else looks.get((time, roi.id))
        plans.append(_followed(frame, roi, look, roi.id in doubted, at_once))
    found = yield from gather(plans)
    found = yield from separate(frame, rois, found)
    next_rois = []
    for roi, result in zip(rois, found):
        if result is not None:
            next_rois.append(continued(roi, along_torso(result[1]), frame.pts_s))
        elif roi.frames_missed + 1 < _MAX_MISSED:
            # The ROI stays where it was; a detection may move it.
            next_rois.append(replaced(roi, frames_missed=roi.frames_missed + 1))
    return tuple(result[0] for result in found if result is not None), tuple(next_rois)


def _largest(rois: Sequence[Roi]) -> list[Roi]:
    return sorted(rois, key=lambda roi: -roi.side)[:_MOST_DOUBTED]


def _spinning(rois: Sequence[Roi]) -> set[int]:
    """The ids of people who spin. The rotation of small people in a crowd jumps all the time."""
    known = (roi for roi in _largest(rois) if roi.age >= _KNOWN_FRAMES)
    return {roi.id for roi in known if abs(roi.turn) >= _SPINNING}


def _followed(
    frame: Frame, roi: Roi, look: Look | None, doubted: bool, at_once: bool
) -> Plan[PersonRoi | None]:
    """The tracked person in an ROI, or None; the rotation of ``doubted`` people is checked."""
    in_picture = 1.0 if roi.points is None else share_inside(roi.points, *frame.size)
    result = yield from _relocate(frame, roi, look, doubted, at_once, in_picture)
    if not doubted or roi.points is None or roi.age < _KNOWN_FRAMES or roi.rest:
        return result
    if in_picture < _WHOLE:
        return result
    if result is not None and agreement(result[0]) > _AGREES:
        return result
    return (yield from _at_other_rotations(frame, roi, result))


def _at_other_rotations(frame: Frame, roi: Roi, result: PersonRoi | None) -> Plan[PersonRoi | None]:
    """The result, or that of the ROI turned by a right angle or two where it is clearly better."""
    turns = (0.5 * math.pi, math.pi, -0.5 * math.pi)
    asked = [replaced(roi, angle=roi.angle + turn, score=0.0) for turn in turns]
    answers = yield [LandmarkQuery(frame, each) for each in asked]
    best, fits = None, max(_AGREES, 0.0 if result is None else _CLEARLY * _fit(result[0]))
    for answer in answers:
        if answer is not None and _fit(answer[0]) > fits:
            best, fits = answer, _fit(answer[0])
    if best is not None:
        # A score that is not known yet could only make the result better, and is not the best's.
        need_scores([roi])
        return best
    if result is None:
        return None
    return result[0], replaced(result[1], rest=_REST_FRAMES)


def _fit(person: Person) -> float:
    return person.score * agreement(person)


def _relocate(
    frame: Frame, roi: Roi, look: Look | None, doubted: bool, at_once: bool, in_picture: float
) -> Plan[PersonRoi | None]:
    """The tracked person in an ROI, or None; ``doubted`` people are queried mirrored too.

    ``in_picture`` is the share of the last landmarks in the picture.
    """
    # A detection of a person who has half left the picture says little about the next frames.
    confirmed = roi.score > 0 and not roi.frames_missed and in_picture >= _LEAVING
    min_presence = _FAINT_PRESENCE if confirmed else MIN_PRESENCE
    # There are no recent landmarks that the limbs could be compared with.
    comparable = roi.points is not None and not roi.frames_missed
    more: list[PersonRoi | None] = []
    if look is None:
        asked: list[Query] = [LandmarkQuery(frame, roi, min_presence)]
        if at_once and doubted and comparable:
            asked += _mirrored_queries(frame, roi, min_presence)
        result, *more = yield asked
    else:
        result = yield from _looked_again(frame, roi, look, min_presence)
    if roi.points is None or not comparable:
        return result
    if result is None and not doubted:
        return None
    if result is None:
        # The network's errors on a mirrored crop are others, so it may succeed where it failed.
        result = yield from ask(LandmarkQuery(frame, roi, min_presence, mirrored=True))
        if result is None or limb_drift(result[0], roi.points)[0] > _JUMP:
            return None
    drift, swapped = limb_drift(result[0], roi.points)
    # The usual case ends here, without further queries.
    if not _jumps(drift, swapped):
        clear = swapped > drift + _CLEAR
        votes = min(roi.side_votes + 1, _MAX_VOTES) if clear else _VOTE_DECAY * roi.side_votes
        return result[0], replaced(result[1], side_votes=votes)
    mirrored = [_known(answer) for answer in more]
    if doubted and not more:
        mirrored = _mirrored(frame, roi, look, min_presence)
    return (yield from _continue_limbs(roi, roi.points, result, mirrored))


def _jumps(drift: float, swapped: float) -> bool:
    """Whether limbs moved too far for one frame, or less far with their sides exchanged."""
    return drift >= min(swapped, _JUMP)


def _mirrored(
    frame: Frame, roi: Roi, look: Look | None, min_presence: float
) -> list[Plan[PersonRoi | None]]:
    """The mirrored queries of an ROI, each of which asks when it is run, or was asked before."""
    if look is not None and look.around is not None and not _strayed(look.around, roi):
        return [_known(_from_look(roi, answer, min_presence)) for answer in look.mirrored]
    return [ask(query) for query in _mirrored_queries(frame, roi, min_presence)]


def _mirrored_queries(frame: Frame, roi: Roi, min_presence: float) -> list[LandmarkQuery]:
    return [
        LandmarkQuery(frame, _varied(roi, *how), min_presence, mirrored=True)
        for how in _MIRRORED_QUERIES
    ]


def _known(answer: PersonRoi | None) -> Plan[PersonRoi | None]:
    """A plan without queries."""
    return answer
    yield  # A generator, as all plans are.


def _from_look(roi: Roi, answer: PersonRoi | None, min_presence: float) -> PersonRoi | None:
    """The answer to a query of the tracked ROI, of one that was asked without its score."""
    if answer is None or answer[0].score < min_presence:
        return None
    person, next_roi = answer
    if person.score < roi.score:
        person = replaced(person, score=roi.score)
    return person, next_roi


def _looked_again(
    frame: Frame, roi: Roi, look: Look, min_presence: float
) -> Plan[PersonRoi | None]:
    """The answer of a look, or that of a second one where the first was too far off its person."""
    result = _from_look(roi, look.answer, min_presence)
    if result is not None:
        result = result[0], along_torso(result[1])
        if not _strayed(look.roi, result[1]):
            return result
    # Where the first look found nothing, the frames between may have moved the ROI.
    around = roi if result is None else replaced(result[1], score=roi.score)
    if roi_change(look.roi, around) < _REFINED:
        return result
    if result is not None and look.again:
        return _from_look(roi, look.again[0], min_presence) or result
    again = yield from ask(LandmarkQuery(frame, around, min_presence))
    return again or result


def _strayed(asked: Roi, answered: Roi) -> bool:
    """Whether a person lies too far off the ROI that was asked for a good answer."""
    return roi_change(asked, answered) > _STRAYED or turn_between(asked, answered) > _TURNED


def _continue_limbs(
    roi: Roi,
    points: np.ndarray,
    result: PersonRoi,
    mirrored: Sequence[Plan[PersonRoi | None]],
) -> Plan[PersonRoi]:
    """The result that continues from ``points`` after limbs seem to have jumped or swapped sides.

    Mirrored queries are tried first. Where none continues but one would with left and right
    exchanged, they are exchanged, for as many frames as agreed on the sides before: a lasting
    exchange is then believed.
    """
    # The plain answer comes first; the others are measured against it.
    results = [(*limb_drift(result[0], points), *result)]
    for plan in mirrored:
        other = yield from plan
        if other is None:
            continue
        results.append((*limb_drift(other[0], points), *other))
        if results[-1][0] < min(_JUMP, _BETTER * results[0][0]):
            return other[0], replaced(other[1], side_votes=roi.side_votes)
    drift, swapped, person, next_roi = min(results, key=lambda each: each[1])
    if roi.side_votes > 0 and swapped < min(_JUMP, drift - _CLEAR):
        person = landmarks.exchanged(person)
        votes = roi.side_votes - 1
        return person, replaced(next_roi, points=person.landmarks_px, side_votes=votes)
    drift, swapped, person, next_roi = min(results, key=lambda each: each[0])
    if drift > _BETTER * results[0][0]:
        drift, swapped, person, next_roi = results[0]
    decay = 1.0 if drift < _BETTER * swapped else _VOTE_DECAY
    return person, replaced(next_roi, side_votes=decay * roi.side_votes)


def confirm_candidates(
    frame: Frame, candidates: Sequence[Roi], next_id: int, tracked: Sequence[Person]
) -> Plan[tuple[list[PersonRoi], list[Roi]]]:
    """Check which candidates are people that are not tracked yet.

    Args:
        frame: The frame.
        candidates: ROIs of detections.
        next_id: The id of the first new person; later ones count up.
        tracked: The people that are tracked already.

    Returns:
        The new people; and the refused candidates, whose ``frames_missed`` counts the detector
        passes for which to leave them alone.
    """
    # A score of 0 here, so that it does not stand in for the landmark model's presence.
    refined = yield from gather(
        [_refine_roi(frame, replaced(roi, score=0.0)) for roi in candidates]
    )
    confirmed: list[PersonRoi] = []
    refused = []
    for roi, result in zip(candidates, refined):
        if result is not None:
            # The people confirmed just now count too: no person may be confirmed twice.
            others = [*tracked, *(person for person, _ in confirmed)]
            result = yield from _verified(frame, *result, others, roi)
        if result is not None:
            person_id = next_id + len(confirmed)
            next_roi = replaced(result[1], score=roi.score, id=person_id)
            confirmed.append((replaced(result[0], roi=person_id), next_roi))
        else:
            refused.append(replaced(roi, frames_missed=_REFUSED_DETECTIONS))
    return confirmed, refused


def _refine_roi(frame: Frame, roi: Roi) -> Plan[PersonRoi | None]:
    """The person in a rough ROI, queried again in the ROI of each answer until that settles."""
    result = None
    for _ in range(_REFINEMENTS):
        # The presence in a rough ROI means little; `_verified` decides.
        result = yield from ask(LandmarkQuery(frame, roi, 0.0))
        if result is None or roi_change(roi, result[1]) < _REFINED:
            return result
        roi = result[1]
    return result


def _verified(
    frame: Frame, person: Person, roi: Roi, others: Sequence[Person], candidate: Roi
) -> Plan[PersonRoi | None]:
    """The candidate if it is a person, else None.

    It must not be a part of the others, must be mostly visible, and must stay the same mirrored
    and in a rotated and scaled ROI. Of the answers, the one that agrees best with the rest counts.
    """
    if mask_overlap(person, others, frame.size) >= _PART or on_mask(person, *frame.size) < _PART:
        return None
    limit = 1.0 if abs(roi.angle) < _UPRIGHT else 0.5
    results, change = [(person, roi)], 0.0
    for rotation, scale, mirrored, tolerance in _CHECKS:
        varied = _varied(roi, rotation, scale)
        result = yield from ask(LandmarkQuery(frame, varied, _FAINT_PRESENCE, mirrored=mirrored))
        if result is None:
            return None
        change = max(change, median_distance(person, result[0]) / tolerance)
        if change > _BOX_CHANGE * limit:
            return None
        results.append(result)
    presences = [found.score for found, _ in results]
    if not _convincing(presences, roi.angle, change, limit, candidate):
        return None
    limbs = np.stack([found.landmarks_px[11:] for found, _ in results])
    best = int(np.linalg.norm(limbs[:, None] - limbs, axis=-1).sum((1, 2)).argmin())
    # Queried once more, plain, so that the track begins with an answer like those to come.
    return results[0] if best == 0 else (yield from ask(LandmarkQuery(frame, results[best][1])))


def _convincing(
    presences: Sequence[float], angle: float, change: float, limit: float, candidate: Roi
) -> bool:
    """Whether answers that change this much, where ``limit`` is much, show a person."""
    least, more = _SURE_PRESENCE
    upright = abs(angle) < _SURE_ANGLE
    if upright and change <= limit and min(presences) >= least + more * change / limit:
        return True
    mean = float(np.mean(presences))
    if candidate.by_box:
        likely = mean >= _BOX_PRESENCE and min(presences) >= _BOX_LEAST
        return candidate.score > _BOX_SCORE and likely
    # The score of a detector that saw hips and rotation makes up for a low presence: the less the
    # candidate changed, the lower a presence is enough.
    tolerance = limit * candidate.score
    return change <= tolerance and mean >= MIN_PRESENCE * (1 + change / tolerance) / 2


def _varied(roi: Roi, rotation: float, scale: float) -> Roi:
    return replaced(roi, angle=roi.angle + rotation, side=roi.side * scale)
