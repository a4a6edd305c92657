"""A perceiver of another package: people whose landmarks another program has written to an npz.

The file has a row for each person and frame: ``frame`` (N,), ``landmarks_px`` (N, 33, 2) and
``landmarks_m`` (N, 33, 3) in the camera's axes. ``samples/pitch_truth.npz`` is such a file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.core.frame import Window
from pipeline.core.people import Person
from pipeline.core.skeleton import BLAZEPOSE_33
from pipeline.perception.base import People, Perceiver, PerceiverOptions


class RecordedPeople(Perceiver):
    """Finds in each frame the people that a file has for it."""

    name = "recorded"

    def __init__(self, rows: dict[str, np.ndarray]) -> None:
        self._rows = rows

    def decode(self, embedding: Any, window: Window) -> tuple[People, Any]:
        """Return the people of every frame. Nothing is remembered from window to window."""
        return [self._people(frame.id) for frame in window.frames], None

    def _people(self, frame_id: int) -> tuple[Person, ...]:
        return tuple(self._person(row) for row in np.flatnonzero(self._rows["frame"] == frame_id))

    def _person(self, row: int) -> Person:
        points_px = self._rows["landmarks_px"][row].astype(np.float32)
        points_m = self._rows["landmarks_m"][row]
        # World landmarks lie about the middle of the hips.
        world_m = points_m - points_m[list(BLAZEPOSE_33.hips)].mean(0)
        return Person(
            box_px=np.concatenate((points_px.min(0), points_px.max(0))),
            score=1.0,
            landmarks_px=points_px,
            visibility=np.ones(len(points_px), np.float32),
            world_m=world_m.astype(np.float32),
        )


def make(options: PerceiverOptions) -> RecordedPeople:
    """Return the perceiver; ``--weights`` names the folder with ``people.npz``."""
    if options.model_folder is None:
        raise ValueError("the perceiver 'recorded' needs --weights, the folder with people.npz")
    with np.load(options.model_folder / "people.npz") as file:
        names = ("frame", "landmarks_px", "landmarks_m")
        return RecordedPeople({name: file[name] for name in names})
