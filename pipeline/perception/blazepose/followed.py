"""People who are followed while a GPU still detects: all but the detectors' scores is known.

A detection changes nothing of a followed person but the score and when it was confirmed; it moves
the ROI of missed people alone. So the people of a window are followed first, and get their scores
afterwards. The few decisions that depend on a score end that (`need_scores`): the window's people
are followed again once the detections are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.core.people import Person
from pipeline.core.records import replaced
from pipeline.perception.blazepose.roi import Roi

_UNKNOWN_SCORE = 1e-6
"""Stands for a score that is not known yet; lower than the presence of any person who is found
(`roi_tracking._FAINT_PRESENCE`)."""


class ScoreNeeded(Exception):
    """A decision depends on a score that is not known yet."""


@dataclass(frozen=True)
class Followed:
    """The tracked people of a window. Where new ones take a place, the key frame's alone hold.

    Attributes:
        present: The people in the key frame.
        tracked: Where they are found next to it.
        people: The people of the other frames.
        last_rois: Where they are found in the next window.
    """

    present: tuple[Person, ...]
    tracked: tuple[Roi, ...]
    people: dict[int, tuple[Person, ...]]
    last_rois: tuple[Roi, ...]


def without_score(roi: Roi) -> Roi:
    """Return a tracked ROI whose score is not known yet. Whether it has one stays known."""
    return replaced(roi, score=_UNKNOWN_SCORE if roi.score > 0 else 0.0)


def need_scores(rois: Iterable[Roi]) -> None:
    """Call before a decision that depends on the scores of tracked ROIs.

    Raises:
        ScoreNeeded: One of them is not known yet (`without_score`).
    """
    if any(roi.score == _UNKNOWN_SCORE for roi in rois):
        raise ScoreNeeded


def with_scores(
    followed: Followed, before: Sequence[Roi], tracked: Sequence[Roi]
) -> Followed | None:
    """Return people who were followed without scores as if the scores had been known.

    Args:
        followed: The people.
        before: The ROIs from which they were followed; none is of a missed person.
        tracked: The same ROIs after the detection.

    Returns:
        The people; None where a score came or expired, so that they must be followed again.
    """
    if any((old.score > 0) != (new.score > 0) for old, new in zip(before, tracked, strict=True)):
        return None
    known = {roi.id: roi for roi in tracked}

    def scored(people: tuple[Person, ...]) -> tuple[Person, ...]:
        # As `landmarks.read_people`: the larger one of presence and score.
        return tuple(
            p if p.score >= (least := known[p.roi].score) else replaced(p, score=least)
            for p in people
        )

    def confirmed(rois: tuple[Roi, ...]) -> tuple[Roi, ...]:
        return tuple(
            replaced(roi, score=known[roi.id].score, unconfirmed=known[roi.id].unconfirmed)
            for roi in rois
        )

    return Followed(
        scored(followed.present),
        confirmed(followed.tracked),
        {time: scored(people) for time, people in followed.people.items()},
        confirmed(followed.last_rois),
    )
