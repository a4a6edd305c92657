"""The overlay on the screen: frames come from the output's thread, the window lives in main's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from app.outputs.base import RunInfo
from pipeline.frame import Frame
from pipeline.people import Bodies

_NAME = "bodystream"
_QUIT_KEYS = (27, ord("q"), ord("Q"))
_PROBE = "import cv2; cv2.namedWindow('probe', cv2.WINDOW_GUI_NORMAL); cv2.destroyAllWindows()"
_PROBE_S = 30.0


class WindowError(RuntimeError):
    """There is no display to show a window on."""


class WindowOutput:
    """A window that shows the latest overlay; slower screens skip pictures, nothing waits.

    ``write`` puts a picture into a slot of one, from any thread. The main thread calls ``start``
    once, then ``poll`` every few milliseconds, and ``stop`` at the end; window systems allow only
    that. ``start`` raises WindowError where there is no display.
    """

    needs_picture = True
    files: tuple[Path, ...] = ()

    def __init__(self, title: str = "bodystream") -> None:
        self.title = title
        self._lock = threading.Lock()
        self._latest: np.ndarray | None = None
        self._shown = False
        self._closed = False

    def open(self, info: RunInfo) -> None:
        self.title = f"{self.title}: {info.source}" if info.source else self.title

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        with self._lock:
            self._latest = picture

    def close(self) -> None:
        """No more pictures; the last one stays until ``stop``."""

    def start(self) -> None:
        """Make sure that a window can be shown. Main thread."""
        problem = display_problem()
        if problem is not None:
            raise WindowError(problem)

    def poll(self, wait_ms: int = 15) -> bool:
        """Show the latest picture and look after the window for ``wait_ms``. Main thread.

        False once the user closed the window or pressed q or Escape.
        """
        import cv2

        if self._closed:
            return False
        with self._lock:
            picture, self._latest = self._latest, None
        if picture is not None:
            self.show(picture)
        if not self._shown:
            # Without a window there are no events to wait for.
            threading.Event().wait(wait_ms / 1000)
            return True
        self._closed = cv2.waitKey(wait_ms) in _QUIT_KEYS or not self._visible()
        return not self._closed

    def _visible(self) -> bool:
        import cv2

        try:
            return cv2.getWindowProperty(_NAME, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # What OpenCV's Qt windows answer once the last of them was closed.
            self._shown = False
            return False

    def show(self, picture: np.ndarray) -> None:
        """Put a picture, RGB uint8 (H, W, 3), on the screen. Main thread."""
        import cv2

        if not self._shown:
            _quiet_fonts()
            flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
            cv2.namedWindow(_NAME, flags)
            cv2.setWindowTitle(_NAME, self.title)
            height, width = picture.shape[:2]
            scale = min(1.0, 1280 / width, 720 / height)
            cv2.resizeWindow(_NAME, round(scale * width), round(scale * height))
            self._shown = True
        cv2.imshow(_NAME, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def stop(self) -> None:
        """Take the window away. Main thread; safe to call twice."""
        if self._shown:
            import cv2

            cv2.destroyAllWindows()
            self._shown = False


def display_problem() -> str | None:
    """Why no window can be shown here, in one line, or None.

    Tried in a process of its own: where the display does not answer, OpenCV's window system ends
    the process instead of raising.
    """
    unset = not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if sys.platform.startswith("linux") and unset:
        return "no display: DISPLAY is not set; leave --window out, or write --video"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, timeout=_PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no window: the display did not answer within {_PROBE_S:g} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.decode(errors="replace").splitlines()
    cause = next((line for line in lines if "display" in line or "rror" in line), "it failed")
    where = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return f"no window on display {where}: {cause.strip()[:120]}"


def _quiet_fonts() -> None:
    """OpenCV's own Qt carries no fonts and complains five times; point it to the system's."""
    folder = Path("/usr/share/fonts")
    if sys.platform.startswith("linux") and folder.is_dir():
        os.environ.setdefault("QT_QPA_FONTDIR", str(folder))
