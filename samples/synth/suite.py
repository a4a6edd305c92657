"""A suite of clips that differ in everything: what `samples/make_pitch.py --suite` renders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Every fourth one throws, and by the golden angle between seeds' views no two throws look alike.
_KINDS = ("pitch", "walk", "jacks", "kick", "box", "throw_left", "run", "squat", "wave", "pitch",
          "bend", "jump", "walk", "stretch", "throw_left", "run", "kick", "box", "pitch", "jacks")  # fmt: skip # noqa: E501
_PEOPLE = {6: 2, 12: 3, 17: 2}


@dataclass(frozen=True)
class Plan:
    """One clip of a suite; ``frames`` at 30 a second, so many more at another rate."""

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
    """``count`` clips with seeds in a row: all kinds of motion, a quarter of them throws, one
    person each but for three of twenty, 48 to 60 frames."""
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
    """``count`` throws with seeds in a row, every third with the left hand, around the release."""
    return [
        Plan("throw_left" if seed % 3 == 1 else "pitch", seed, 1, THROW_FRAMES)
        for seed in range(first_seed, first_seed + count)
    ]
