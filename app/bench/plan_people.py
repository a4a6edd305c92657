"""Find the people in the frames for the plan's rows, with the default perceiver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app.bench.footage import Player
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.core.people import Person
from pipeline.runtime.make import make_estimator

People = dict[int, Person]


def find_people(player: Player, most: int, weights_folder: Path | None = None) -> list[People]:
    """Find the people in all of a player's frames, on the CPU.

    Args:
        player: The frames.
        most: The most people to track.
        weights_folder: A folder that is searched for weights first.

    Returns:
        The people of every frame by track. A frame in which no one is found takes the nearest
        frame's.

    Raises:
        WeightsError: The perceiver's weights are missing.
        ValueError: No one is found in any frame.
    """
    estimator = make_estimator(people=most, device="cpu", model_folder=weights_folder)
    frames, state = player.frames, estimator.begin()
    found: list[People] = []
    try:
        for first in range(0, len(frames), WINDOW_FRAMES):
            numbers = range(first, min(first + WINDOW_FRAMES, len(frames)))
            # In order and with one state: tracks go on from window to window.
            window = Window(tuple(Frame(k, "", 0, k / 30, frames[k]) for k in numbers))
            found += estimator.perceive([window], [state])[0].people
    finally:
        estimator.close()
    return from_neighbours(found)


def from_neighbours(found: list[People]) -> list[People]:
    """Fill frames without people from the nearest frame. Raises ValueError if all are empty."""
    filled = [k for k, people in enumerate(found) if people]
    if not filled:
        raise ValueError("no person is found in the clip, so there is no one to segment and fit")
    return [
        people or found[min(filled, key=lambda other: abs(other - k))]
        for k, people in enumerate(found)
    ]


def people_of(player: Player, people: list[People]) -> Callable[[Frame], People]:
    """Return a function from a frame of the player's windows to its people."""
    return lambda frame: people[player.number(frame)]
