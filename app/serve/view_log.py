"""The newest frames of a served source for the 3D view."""

from __future__ import annotations

import json
import threading
from collections import deque

from app.outputs.base import RunInfo
from app.view.frames import frame_message, scene
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies

_MOST_FRAMES = 64
"""A viewer that falls further behind misses frames."""


class ViewLog:
    """Messages of the last frames. One thread adds frames; any may read."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frames: deque[tuple[int, bytes]] = deque(maxlen=_MOST_FRAMES)
        self._size: tuple[int, int] | None = None
        self._scene = ""

    def add(self, info: RunInfo, frame: Frame, bodies: Bodies) -> None:
        """Store a frame's bodies."""
        message = frame_message(frame, bodies)
        with self._changed:
            if frame.size != self._size:
                self._size = frame.size
                self._scene = json.dumps(scene(info.model, info.camera(frame), frame.size))
            self._frames.append((frame.id, message))
            self._changed.notify_all()

    def after(self, number: int | None, timeout_s: float) -> tuple[str, list[tuple[int, bytes]]]:
        """Return the newer frames, waiting for the first of them.

        Args:
            number: The number of the last frame that the viewer has; None for the newest one alone.
            timeout_s: How long to wait, in seconds.

        Returns:
            The scene of the newest frame as JSON (`scene`), and the frames' numbers with their
            messages (`frame_message`), in order; none at the timeout.
        """
        after = -1 if number is None else number

        def newer() -> bool:
            return bool(self._frames) and self._frames[-1][0] > after

        with self._changed:
            self._changed.wait_for(newer, timeout_s)
            frames = [each for each in self._frames if each[0] > after]
            return self._scene, frames[-1:] if number is None else frames
