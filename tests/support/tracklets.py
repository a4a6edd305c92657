"""People walking through a made-up clip, as `pipeline.tracking.stitch` reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.tracking.pieces import Sightings

INTERVAL_S = 1 / 30
_STICK = np.random.default_rng(5).uniform(-1, 1, (33, 2)) * [0.25, 0.85]


@dataclass
class Walker:
    """One person on a straight way.

    Args:
        start_m: (3,) the place in frame 0.
        velocity: (3,) metres a second.
        colour: The level of all colours; None where the person is never described.
        score: The perceiver's.
    """

    start_m: np.ndarray
    velocity: np.ndarray
    colour: float | None = 0.0
    score: float = 0.9

    def root_m(self, frame):
        return np.asarray(self.start_m) + np.asarray(self.velocity) * frame * INTERVAL_S


class Clip:
    """Records of walkers in frames; ``seen`` lists (walker, frames) in which each is found."""

    def __init__(self, seen, noise_m=0.0, seed=0):
        random = np.random.default_rng(seed)
        rows = sorted((int(f), k) for k, (_, frames) in enumerate(seen) for f in frames)
        self.frame = np.array([f for f, _ in rows], np.int64)
        self.person = np.array([k + 1 for _, k in rows], np.int64)
        walkers = [seen[k][0] for _, k in rows]
        self.root_m = np.array([w.root_m(f) for w, (f, _) in zip(walkers, rows)])
        self.root_m = self.root_m + noise_m * random.normal(size=self.root_m.shape) * [1, 1, 3]
        points = self.root_m[:, None, :2] + _STICK
        points = points + noise_m * random.normal(size=points.shape)
        self.points = points / self.root_m[:, None, 2:]
        self.score = np.array([w.score for w in walkers])
        known = np.array([w.colour is not None for w in walkers])
        # Described in one frame of six, as a first pass does.
        self.looked = np.where(known & (self.frame % 6 == 0), 1.0, 0.0)[:, None] * np.ones(5)
        level = np.array([w.colour or 0.0 for w in walkers])
        self.colours = level[:, None, None, None] * np.ones((5, 3, 5))
        self.reads = 0

    def read(self, rows):
        self.reads = max(self.reads, len(rows))
        return Sightings(
            self.frame[rows], self.score[rows], self.points[rows], self.root_m[rows],
            self.colours[rows], self.looked[rows],
        )  # fmt: skip

    def shapes(self, tracks):
        return {int(k): np.zeros(10, np.float32) for k in np.unique(tracks)}


def same_partition(some, others):
    """Whether two lists of ids part the same records in the same way."""
    pairs = set(zip(some.tolist(), others.tolist()))
    return len(pairs) == len(set(some.tolist())) == len(set(others.tolist()))
