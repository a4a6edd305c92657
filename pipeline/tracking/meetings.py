"""Tracks beside each other: which ones met, and which are doubles of others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.tracking.pieces import Read

_SAME, _ALL_LIFE = 0.1, 0.9
"""A track whose landmarks are this near another's (median, in parts of the size) in this share of
its frames is the other's double."""
_NEAR = 0.5
"""People meet when their middles are nearer than this, in parts of their size ..."""
_APART_S = 0.5
"""... and meet again when they were apart for this time."""
_CHUNK = 10_000
"""Records that are read at once."""


@dataclass
class Companions:
    """What one look through a clip shows of tracks beside each other.

    Attributes:
        scores: The mean score of each track.
        doubles: The tracks that are other tracks' doubles.
        meetings: The frames in which each track was nearest to others that it met.
    """

    scores: dict[int, float]
    doubles: set[int] = field(default_factory=set)
    meetings: dict[int, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Meeting:
    last: int
    nearest: float
    at: int


def look_through(track: np.ndarray, frame: np.ndarray, read: Read, interval_s: float) -> Companions:
    ids, place, counts = np.unique(track, return_inverse=True, return_counts=True)
    score = np.zeros(len(ids))
    same: dict[tuple[int, int], int] = {}
    open_: dict[tuple[int, int], _Meeting] = {}
    ended: list[tuple[tuple[int, int], _Meeting]] = []
    apart = max(round(_APART_S / interval_s), 1)
    for rows in _whole_frames(frame):
        seen = read(rows)
        np.add.at(score, place[rows], seen.score)
        starts = np.flatnonzero(np.diff(seen.frame, prepend=seen.frame[0] - 1))
        for a, b in zip(starts.tolist(), [*starts[1:].tolist(), len(rows)]):
            if b - a < 2:
                continue
            points, own = seen.points[a:b], track[rows[a:b]]
            size = np.maximum(np.ptp(points, 1).max(1), 1e-6)
            larger = np.maximum(size[:, None], size)
            middle = points.mean(1)
            near = np.linalg.norm(middle[:, None] - middle, axis=-1) / larger
            for m, n in zip(*np.nonzero(np.triu(near < _NEAR, 1))):
                pair = min(own[m], own[n]), max(own[m], own[n])
                distance = np.median(np.linalg.norm(points[m] - points[n], axis=-1))
                same[pair] = same.get(pair, 0) + int(distance < _SAME * larger[m, n])
                now, met = int(seen.frame[a]), open_.get(pair)
                if met is not None and now - met.last > apart:
                    ended.append((pair, met))
                    met = None
                if met is None or near[m, n] < met.nearest:
                    met = _Meeting(now, float(near[m, n]), now)
                open_[pair] = replace(met, last=now)
    out = Companions(dict(zip(ids.tolist(), (score / counts).tolist())))
    number = dict(zip(ids.tolist(), counts.tolist()))
    for (one, other), times in same.items():
        # The one that lives shorter, or is less sure, is the double.
        less = min((one, other), key=lambda k: (number[k], out.scores[k]))
        if times >= _ALL_LIFE * number[less]:
            out.doubles.add(less)
    for pair, met in [*ended, *open_.items()]:
        for one in pair:
            out.meetings.setdefault(int(one), []).append(met.at)
    return out


def _whole_frames(frame: np.ndarray) -> list[np.ndarray]:
    """Rows in chunks that end with a frame."""
    starts = np.flatnonzero(np.diff(frame, prepend=frame[0] - 1))
    edges = starts[
        np.unique(
            np.searchsorted(starts, np.arange(0, len(frame), _CHUNK)).clip(max=len(starts) - 1)
        )
    ]
    return [np.arange(a, b) for a, b in zip(edges, [*edges[1:], len(frame)])]
