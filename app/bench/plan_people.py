"""Who is in the frames that the plan's rows are measured on, as the default perceiver sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app.bench.footage import Player
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.core.people import Person
from pipeline.runtime.make import make_estimator

People = dict[int, Person]


def find_people(player: Player, most: int, weights_folder: Path | None = None) -> list[People]:
    """For each of a player's frames up to ``most`` people by track, found on the CPU; those of the
    nearest frame where one shows nobody. Raises WeightsError, and ValueError where nobody is ever
    found."""
    estimator = make_estimator(people=most, device="cpu", model_folder=weights_folder)
    frames, state = player.frames, estimator.begin()
    found: list[People] = []
    try:
        for first in range(0, len(frames), WINDOW_FRAMES):
            numbers = range(first, min(first + WINDOW_FRAMES, len(frames)))
            window = Window(tuple(Frame(k, "", 0, k / 30, frames[k]) for k in numbers))
            found += estimator.perceive([window], [state])[0].people
    finally:
        estimator.close()
    return from_neighbours(found)


def from_neighbours(found: list[People]) -> list[People]:
    """Frames without anybody take the nearest frame's; ValueError where there is none."""
    there = [k for k, people in enumerate(found) if people]
    if not there:
        raise ValueError("nobody is found in the clip, so there is nobody to segment and fit")
    return [
        people or found[min(there, key=lambda other: abs(other - k))]
        for k, people in enumerate(found)
    ]


def people_of(player: Player, people: list[People]) -> Callable[[Frame], People]:
    """Who is in a frame of the player's windows."""
    return lambda frame: people[player.number(frame)]
