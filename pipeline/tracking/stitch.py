"""Identities over a whole clip: what a tracker decided frame by frame, decided again afterwards.

Tracks are cut where two of them met and one looks like another person since. Then one assignment
decides which piece goes on as which (Huang, Wu and Nevatia, Robust object tracking by hierarchical
association, ECCV 2008): by where both sides of the gap lead, by shape, and by clothes. To join two
people is worse than to leave one person in two pieces, so a pair must be clearly the likeliest;
otherwise all stays as the tracker had it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.tracking import likeness
from pipeline.tracking.meetings import look_through
from pipeline.tracking.pieces import NO_ONE, Cuts, Piece, Read, piece_of

_MOST_GAP_S = 3.0
_SURE, _MARGIN = 3.0, 2.0
"""How much likelier a pair must be one person than two, and than every other pair of these pieces
(natural logarithms)."""
_KEEPS_S = 0.7
"""For how long people keep their velocity when they are not seen."""
_BRIEF_S, _FAINT = 0.15, 0.5
"""Tracks that are shorter and have a lower mean score are no people."""


def decide_identities(
    track: np.ndarray,
    frame: np.ndarray,
    read: Read,
    betas: Mapping[int, np.ndarray],
    interval_s: float,
    cuts: Sequence[int] = (),
) -> np.ndarray:
    """Return the id of every record of a clip, decided with the future known.

    An identity has one of its tracks' ids, or a new one where a track was two people's. No two
    records of a frame get the same id.

    Args:
        track: (N,) int64 the ids that the tracker gave.
        frame: (N,) int64 the frames' numbers, rising.
        read: Returns the records of some rows.
        betas: The shape (10,) of each track.
        interval_s: Time between the source's frames, in seconds.
        cuts: The numbers of the frames with which another scene begins.

    Returns:
        (N,) int64; `NO_ONE` for records of tracks that are no people or doubles of others.
    """
    if not len(track):
        return track.copy()
    seen = look_through(track, frame, read, interval_s)
    rows_of: list[np.ndarray] = []
    pieces: list[Piece] = []
    default: dict[int, int] = {}
    rows_by = {k: rows for k, rows in _rows_by_track(track) if k not in seen.doubles}
    parted = Cuts(rows_by, frame, read, interval_s)
    for at, one, other in sorted(seen.meetings):
        if one in rows_by and other in rows_by:
            parted.exchange(at, one, other)
    for number, rows in rows_by.items():
        parted.leap(number, seen.leaps.get(number, ()))
        edges = parted.edges(number)
        for a, b in zip(edges, edges[1:]):
            if a:
                default[len(pieces)] = len(pieces) - 1
            rows_of.append(rows[a:b])
            shape = betas[number] if len(edges) == 2 else None
            pieces.append(piece_of(number, rows[a:b], read, shape, interval_s))
    before = chosen_links(pieces, interval_s, default, cuts)
    out = np.full(len(track), NO_ONE, np.int64)
    new = int(track.max()) + 1
    joined = set(before.values())
    names = [piece.track for piece in pieces]
    # In the order of time, because a piece takes the name of the one before it.
    for k in sorted(range(len(pieces)), key=lambda k: (pieces[k].first, k)):
        if k in before:
            names[k] = names[before[k]]
        elif k in default:
            names[k], new = new, new + 1
        brief = (pieces[k].last - pieces[k].first + 1) * interval_s < _BRIEF_S
        alone = k not in before and k not in joined
        if not (alone and brief and seen.scores[pieces[k].track] < _FAINT):
            out[rows_of[k]] = names[k]
    return out


def chosen_links(
    pieces: Sequence[Piece],
    interval_s: float,
    default: Mapping[int, int] | None = None,
    cuts: Sequence[int] = (),
) -> dict[int, int]:
    """Return the piece that goes before each piece that has one.

    Args:
        pieces: The pieces.
        interval_s: Time between the source's frames, in seconds.
        default: The piece before, by piece, where nothing else is clearly likelier.
        cuts: As for `decide_identities`.
    """
    default = default or {}
    pairs = _possible(pieces, interval_s, cuts)
    likely = {(i, j): likelihood(pieces[i], pieces[j], interval_s) for i, j in pairs}
    for j, i in default.items():
        # What the tracker had is likely for reasons of its own.
        likely[i, j] = max(likely.get((i, j), 0.0), 0.0)
    best_of: dict[tuple[str, int], list[float]] = {}
    for (i, j), value in likely.items():
        best_of.setdefault(("from", i), []).append(value)
        best_of.setdefault(("to", j), []).append(value)
    out = {}
    for i, j in _assigned(likely, len(pieces)):
        rivals = [*best_of["from", i], *best_of["to", j]]
        # The pair's own value is in both lists.
        rivals.remove(likely[i, j])
        rivals.remove(likely[i, j])
        if likely[i, j] >= max(_SURE, max(rivals, default=-np.inf) + _MARGIN):
            out[j] = i
    taken = set(out.values())
    for j, i in default.items():
        if j not in out and i not in taken:
            out[j] = i
    return out


def likelihood(one: Piece, other: Piece, interval_s: float) -> float:
    """Return how much likelier it is that a piece goes on as another than that they are two
    people's, as a natural logarithm.

    Args:
        one: The earlier piece.
        other: The later piece.
        interval_s: Time between the source's frames, in seconds.
    """
    gap_s = (other.first - one.last) * interval_s
    return (
        _of_path(one, other, gap_s)
        + likeness.of_appearance(one.end_look, other.start_look)
        + _of_shape(one.betas, other.betas)
    )


def _of_path(one: Piece, other: Piece, gap_s: float) -> float:
    """What the places say: both sides go on to the middle of the gap."""
    keeps = _KEEPS_S * (1 - np.exp(-0.5 * gap_s / _KEEPS_S))
    apart = other.start_m - keeps * other.start_velocity - one.end_m - keeps * one.end_velocity
    away_m = max(float(np.linalg.norm(one.end_m)), 1.0)
    along = float(apart @ one.end_m) / away_m
    up = float(apart[1] - along * one.end_m[1] / away_m)
    across = float(np.sqrt(max(apart @ apart - along**2 - up**2, 0.0)))
    # Distances along the ray come from sizes and are known far worse.
    spread = np.array([0.12 + 0.5 * gap_s, 0.1 + 0.1 * gap_s, 0.06 * away_m + 0.5 * gap_s])
    others = np.array([2.0, 0.4, 3.0])
    spread = np.minimum(spread, others)
    square = np.square([across, up, along])
    ratio = np.log(others / spread) - 0.5 * square * (1 / spread**2 - 1 / others**2)
    return max(float(ratio.sum()), -10.0)


def _of_shape(one: np.ndarray | None, other: np.ndarray | None) -> float:
    """What two shapes say. One camera tells little: size and distance are confused."""
    if one is None or other is None:
        return 0.0
    same, people = 0.5, 1.0
    square = np.square(one[:3] - other[:3])
    ratio = np.log(people / same) - 0.25 * square * (1 / same**2 - 1 / people**2)
    return float(np.clip(ratio.sum(), -2.0, 0.5))


def _possible(
    pieces: Sequence[Piece], interval_s: float, cuts: Sequence[int]
) -> list[tuple[int, int]]:
    """The pairs of pieces of which the second begins within seconds after the first ended."""
    most, begun = round(_MOST_GAP_S / interval_s), sorted(cuts)
    scene = np.searchsorted(begun, [[p.first, p.last] for p in pieces], side="right")
    order = sorted(range(len(pieces)), key=lambda k: pieces[k].first)
    firsts = [pieces[k].first for k in order]
    out = []
    for i, piece in enumerate(pieces):
        a, b = np.searchsorted(firsts, [piece.last + 1, piece.last + most + 1]).tolist()
        out += [(i, j) for j in order[a:b] if scene[i, 1] == scene[j, 0]]
    return out


def _assigned(likely: Mapping[tuple[int, int], float], count: int) -> list[tuple[int, int]]:
    """The pairs that are likeliest together; pairs that exclude each other are decided at once."""
    pairs = [pair for pair, value in likely.items() if value > 0]
    if not pairs:
        return []
    i, j = np.array(pairs).T
    graph = coo_array((np.ones(len(i)), (i, count + j)), shape=(2 * count, 2 * count))
    group = connected_components(graph, directed=False)[1][i]
    out = []
    for own in np.split(
        np.argsort(group, kind="stable"), np.flatnonzero(np.diff(np.sort(group))) + 1
    ):
        rows, columns = np.unique(i[own]), np.unique(j[own])
        value = np.zeros((len(rows), len(columns)))
        for a, b in zip(i[own].tolist(), j[own].tolist()):
            value[np.searchsorted(rows, a), np.searchsorted(columns, b)] = likely[a, b]
        chosen = zip(*linear_sum_assignment(value, maximize=True))
        out += [(int(rows[a]), int(columns[b])) for a, b in chosen if value[a, b] > 0]
    return out


def _rows_by_track(track: np.ndarray) -> list[tuple[int, np.ndarray]]:
    order = np.argsort(track, kind="stable")
    ids, starts = np.unique(track[order], return_index=True)
    return list(zip(ids.tolist(), np.split(order, starts[1:])))
