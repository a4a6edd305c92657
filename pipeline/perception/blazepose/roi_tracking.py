"""Tracking people from ROI to ROI, and checking candidates that may be new people.

Every function here that queries the landmark model is a plan (`queries.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.core.frame import Frame
from pipeline.core.people import Person
from pipeline.perception.blazepose import landmarks
from pipeline.perception.blazepose.occlusion import separate
from pipeline.perception.blazepose.overlap import limb_drift, mask_overlap, median_distance, on_mask
from pipeline.perception.blazepose.queries import (
    MIN_PRESENCE,
    LandmarkQuery,
    PersonRoi,
    Plan,
    ask,
    gather,
)
from pipeline.perception.blazepose.roi import Roi, roi_change

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
_REFINEMENTS = 3
"""Most queries until a detection's rough ROI fits its person."""
_REFINED = 0.03
"""An ROI that changes by less than this, in parts of its side, fits."""
_UPRIGHT = 1.2
"""Radians. People lie and stand on their heads, but most results that are rotated further are not
people: they must stay the same twice as well."""
_CHECKS = ((0.0, 1.0, True, 0.07), (-0.2, 1.1, False, 0.13))
"""Rotations in radians, scales and mirroring under which a person stays the same while a bench does
not. The median landmark may differ by the last number times the detector's score, in parts of the
person's size."""
_MIRRORED_QUERIES = ((0.0, 1.1), (-0.1, 1.0))
"""Rotations and scales of the mirrored queries after limbs have jumped, until one answer continues
the motion."""
_REFUSED_DETECTIONS = 3
"""Detector passes for which a refused candidate's place is left alone."""


def track_rois(
    frame: Frame, rois: Sequence[Roi]
) -> Plan[tuple[tuple[Person, ...], tuple[Roi, ...]]]:
    """Find the tracked people in a frame.

    People that overlap are told apart (`occlusion`). A track without its person for too many frames
    ends.

    Args:
        frame: The frame.
        rois: The ROI of each tracked person.

    Returns:
        The people that are present, and the ROIs in which to find them next.
    """
    # All people in one round, which a GPU answers in one batch.
    found = yield from gather([_relocate(frame, roi) for roi in rois])
    found = yield from separate(frame, rois, found)
    next_rois = []
    for roi, result in zip(rois, found):
        if result is not None:
            next_rois.append(result[1])
        elif roi.frames_missed + 1 < _MAX_MISSED:
            # The ROI stays where it was; a detection may move it.
            next_rois.append(replace(roi, frames_missed=roi.frames_missed + 1))
    return tuple(result[0] for result in found if result is not None), tuple(next_rois)


def _relocate(frame: Frame, roi: Roi) -> Plan[PersonRoi | None]:
    """The tracked person in an ROI, or None."""
    confirmed = roi.score > 0 and not roi.frames_missed
    min_presence = _FAINT_PRESENCE if confirmed else MIN_PRESENCE
    result = yield from ask(LandmarkQuery(frame, roi, min_presence))
    # There are no recent landmarks that the limbs could be compared with.
    if roi.points is None or roi.frames_missed:
        return result
    if result is None:
        # The network's errors on a mirrored crop are others, so it may succeed where it failed.
        result = yield from ask(LandmarkQuery(frame, roi, min_presence, mirrored=True))
        if result is None or limb_drift(result[0], roi.points)[0] > _JUMP:
            return None
    drift, swapped = limb_drift(result[0], roi.points)
    # The usual case ends here, without further queries.
    if drift < min(swapped, _JUMP):
        clear = swapped > drift + _CLEAR
        votes = min(roi.side_votes + 1, _MAX_VOTES) if clear else _VOTE_DECAY * roi.side_votes
        return result[0], replace(result[1], side_votes=votes)
    return (yield from _continue_limbs(frame, roi, roi.points, result, min_presence))


def _continue_limbs(
    frame: Frame, roi: Roi, points: np.ndarray, result: PersonRoi, min_presence: float
) -> Plan[PersonRoi]:
    """The result that continues from ``points`` after limbs seem to have jumped or swapped sides.

    Mirrored queries are tried first. Where none continues but one would with left and right
    exchanged, they are exchanged, for as many frames as agreed on the sides before: a lasting
    exchange is then believed.
    """
    # The plain answer comes first; the others are measured against it.
    results = [(*limb_drift(result[0], points), *result)]
    for rotation, scale in _MIRRORED_QUERIES:
        other = yield from ask(
            LandmarkQuery(frame, _varied(roi, rotation, scale), min_presence, mirrored=True)
        )
        if other is None:
            continue
        results.append((*limb_drift(other[0], points), *other))
        if results[-1][0] < min(_JUMP, _BETTER * results[0][0]):
            return other[0], replace(other[1], side_votes=roi.side_votes)
    drift, swapped, person, next_roi = min(results, key=lambda each: each[1])
    if roi.side_votes > 0 and swapped < min(_JUMP, drift - _CLEAR):
        person = landmarks.exchanged(person)
        votes = roi.side_votes - 1
        return person, replace(next_roi, points=person.landmarks_px, side_votes=votes)
    drift, swapped, person, next_roi = min(results, key=lambda each: each[0])
    if drift > _BETTER * results[0][0]:
        drift, swapped, person, next_roi = results[0]
    decay = 1.0 if drift < _BETTER * swapped else _VOTE_DECAY
    return person, replace(next_roi, side_votes=decay * roi.side_votes)


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
    refined = yield from gather([_refine_roi(frame, replace(roi, score=0.0)) for roi in candidates])
    confirmed: list[PersonRoi] = []
    refused = []
    for roi, result in zip(candidates, refined):
        if result is not None:
            # The people confirmed just now count too: no person may be confirmed twice.
            others = [*tracked, *(person for person, _ in confirmed)]
            result = yield from _verified(frame, *result, others, roi.score)
        if result is not None:
            person_id = next_id + len(confirmed)
            next_roi = replace(result[1], score=roi.score, id=person_id)
            confirmed.append((replace(result[0], roi=person_id), next_roi))
        else:
            refused.append(replace(roi, frames_missed=_REFUSED_DETECTIONS))
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
    frame: Frame, person: Person, roi: Roi, others: Sequence[Person], score: float
) -> Plan[PersonRoi | None]:
    """The candidate if it is a person, else None.

    It must not be a part of the others, must be mostly visible, and must stay the same mirrored
    and in a rotated and scaled ROI. Of the answers, the one that agrees best with the rest counts.
    """
    if mask_overlap(person, others) >= _PART or on_mask(person, *frame.size) < _PART:
        return None
    tolerance = score if abs(roi.angle) < _UPRIGHT else 0.5 * score
    results, change = [(person, roi)], 0.0
    for rotation, scale, mirrored, limit in _CHECKS:
        varied = _varied(roi, rotation, scale)
        result = yield from ask(LandmarkQuery(frame, varied, _FAINT_PRESENCE, mirrored=mirrored))
        if result is None:
            return None
        change = max(change, median_distance(person, result[0]) / limit)
        if change > tolerance:
            return None
        results.append(result)
    # The less the candidate changed, the lower a presence is enough.
    min_presence = MIN_PRESENCE * (1 + change / tolerance) / 2
    if np.mean([found.score for found, _ in results]) < min_presence:
        return None
    limbs = np.stack([found.landmarks_px[11:] for found, _ in results])
    best = int(np.linalg.norm(limbs[:, None] - limbs, axis=-1).sum((1, 2)).argmin())
    # Queried once more, plain, so that the track begins with an answer like those to come.
    return results[0] if best == 0 else (yield from ask(LandmarkQuery(frame, results[best][1])))


def _varied(roi: Roi, rotation: float, scale: float) -> Roi:
    return replace(roi, angle=roi.angle + rotation, side=roi.side * scale)
