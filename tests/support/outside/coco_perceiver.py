"""A perceiver from outside: 17 COCO keypoints in 2D, no world landmarks, no masks.

It stands for a network such as RTMPose: the keypoints are the sample clip's true ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Person
from pipeline.core.skeleton import BLAZEPOSE_33, COCO_17
from pipeline.perception.base import People, Perceiver, PerceiverOptions
from tests.support.paths import TRUTH

_PLACES = BLAZEPOSE_33.indices(*COCO_17.names)


class CocoPerceiver(Perceiver):
    """Reports the pitcher of samples/pitch.mp4 in every frame that shows the whole of him."""

    name = "coco"

    def __init__(self, options: PerceiverOptions) -> None:
        with np.load(TRUTH) as truth:
            self._landmarks_px = truth["landmarks_px"][:, _PLACES].astype(np.float32)

    def decode(self, embedding: Any, window: Window) -> tuple[People, Any]:
        return [self._people(frame) for frame in window.frames], None

    def _people(self, frame: Frame) -> tuple[Person, ...]:
        if frame.id >= len(self._landmarks_px):
            return ()
        points = self._landmarks_px[frame.id]
        box = np.concatenate((points.min(0), points.max(0)))
        seen = np.ones(len(COCO_17), np.float32)
        return (Person(box, 0.9, points, seen, world_m=None, keypoints=COCO_17),)
