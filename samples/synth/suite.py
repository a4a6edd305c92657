"""The suites of clips that `samples/make_pitch.py` renders; they differ in everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Every fourth is a throw; the golden angle between views makes no two throws look alike.
_KINDS = ("pitch", "walk", "jacks", "kick", "box", "throw_left", "run", "squat", "wave", "pitch",
          "bend", "jump", "walk", "stretch", "throw_left", "run", "kick", "box", "pitch", "jacks")  # fmt: skip # noqa: E501
_PEOPLE = {6: 2, 12: 3, 17: 2}


@dataclass(frozen=True)
class Plan:
    """One clip of a suite; ``frames`` are at 30 a second, and in proportion at other rates."""

    kind: str
    seed: int
    people: int
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / 30

    @property
    def name(self) -> str:
        return f"{self.seed}_{self.kind}"


def suite(first_seed: int, count: int) -> list[Plan]:
    """Return ``count`` clips with consecutive seeds: all kinds of motion, a quarter of them throws,
    48 to 60 frames; three of twenty have several people."""
    out = []
    for number in range(count):
        seed, place = first_seed + number, number % len(_KINDS)
        frames = int(np.random.default_rng([seed, 8]).integers(48, 61))
        out.append(Plan(_KINDS[place], seed, _PEOPLE.get(place, 1), frames))
    return out


THROW_FRAMES = 30
THROW_MANNER = 3.0
"""Throws to learn from differ three times as much as people do in the suite above, in how far arm
and trunk are turned, bent and tilted (six degrees each, and a fifth of their way), in how long and
deep they stride, and in when between two frames they let the ball go."""


def throws(first_seed: int, count: int) -> list[Plan]:
    """Return ``count`` throws with consecutive seeds, around the release; every third is with the
    left hand."""
    return [
        Plan("throw_left" if seed % 3 == 1 else "pitch", seed, 1, THROW_FRAMES)
        for seed in range(first_seed, first_seed + count)
    ]


FLOOR_FRAMES = 120


def floor_acts(first_seed: int, count: int) -> list[Plan]:
    """Return ``count`` floor acts with consecutive seeds, each with three or four onlookers."""
    return [
        Plan("floor", seed, 4 + seed % 2, FLOOR_FRAMES)
        for seed in range(first_seed, first_seed + count)
    ]


WALK_FRAMES = 240
_WALKERS = (1, 1, 2, 1, 3)


def walks(first_seed: int, count: int) -> list[Plan]:
    """Return ``count`` clips of eight seconds with consecutive seeds: two of three are walks, with
    one to three people, and every third has lunges."""
    out = []
    for number in range(count):
        kind = "lunges" if number % 3 == 2 else "path"
        out.append(Plan(kind, first_seed + number, _WALKERS[number % 5], WALK_FRAMES))
    return out


def moving(first_seed: int, count: int) -> list[Plan]:
    """Return the plans of `walks` for a camera that moves; every fourth clip is a throw of two
    seconds instead."""
    out = walks(first_seed, count)
    for number in range(3, count, 4):
        kind = "throw_left" if number % 8 == 7 else "pitch"
        out[number] = Plan(kind, first_seed + number, 1, 60)
    return out
