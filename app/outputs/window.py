"""The overlay on the screen: frames come from the output's thread, the main one has the window."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from app.outputs.base import RunInfo
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies

_NAME = "bodystream"
_QUIT_KEYS = (27, ord("q"), ord("Q"))
_PROBE = "import cv2; cv2.namedWindow('probe', cv2.WINDOW_GUI_NORMAL); cv2.destroyAllWindows()"
_PROBE += "; print('ok', flush=True); input()"
_PROBE_S = 30.0


class WindowError(RuntimeError):
    """There is no display to show a window on."""


class WindowOutput:
    """A window that shows the latest overlay; a slow screen skips pictures, and nothing waits.

    ``write`` puts a picture into a slot for one, from any thread. The main thread calls ``start``
    once, then ``poll`` every few milliseconds, and ``stop`` at the end; window systems allow no
    other thread. ``start`` raises WindowError where there is no display.
    """

    needs_picture = True
    files: tuple[Path, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(self, title: str = "bodystream") -> None:
        self.title = title
        self._lock = threading.Lock()
        self._latest: np.ndarray | None = None
        self._shown = False
        self._closed = False
        self._probe: _Probe | None = None

    def open(self, info: RunInfo) -> None:
        self.title = f"{self.title}: {info.source}" if info.source else self.title

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        with self._lock:
            # Overwrites a picture that was not shown yet: the newest is the one to see.
            self._latest = picture

    def close(self) -> None:
        """Take no more pictures; the last one stays on the screen until ``stop``."""

    def start(self) -> None:
        """Check that a window can be shown. Main thread. Raises WindowError."""
        self._probe = _Probe()
        if self._probe.problem is not None:
            raise WindowError(self._probe.problem)

    def poll(self, wait_ms: int = 15) -> bool:
        """Show the latest picture and handle the window's events for ``wait_ms``. Main thread.

        Returns:
            False once the user has closed the window or pressed q or Escape.
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
        # `waitKey` also draws the window; without it nothing appears.
        self._closed = cv2.waitKey(wait_ms) in _QUIT_KEYS or not self._visible()
        return not self._closed

    def _visible(self) -> bool:
        import cv2

        try:
            return cv2.getWindowProperty(_NAME, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # OpenCV's Qt raises this once its last window was closed.
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
            self._end_probe()
        cv2.imshow(_NAME, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def _end_probe(self) -> None:
        if self._probe is not None:
            self._probe.end()
            self._probe = None

    def stop(self) -> None:
        """Close the window. Main thread; safe to call twice."""
        self._end_probe()
        if self._shown:
            import cv2

            cv2.destroyAllWindows()
            self._shown = False


class _Probe:
    """A trial window in a process of its own; ``problem`` is one line, or None.

    Where the display does not answer, OpenCV's window system ends the process instead of raising.
    The process stays connected until ``end``: a display server that resets when its last client
    leaves (Xvfb does) would refuse the next one.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        unset = not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
        # Known without starting a process.
        if sys.platform.startswith("linux") and unset:
            self.problem: str | None = (
                "no display: DISPLAY is not set; leave --window out, or write --video"
            )
            return
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROBE], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        self.problem = self._ask(self._process)

    def _ask(self, process: subprocess.Popen[str]) -> str | None:
        assert process.stdout is not None
        # A display that does not answer would block the read for ever.
        alarm = threading.Timer(_PROBE_S, process.kill)
        alarm.start()
        answer = process.stdout.readline()
        alarm.cancel()
        if answer == "ok\n":
            return None
        _, errors = process.communicate()
        lines = [line for line in errors.splitlines() if "display" in line or "rror" in line]
        cause = lines[0].strip()[:120] if lines else "no answer"
        where = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "of this session"
        return f"no window on display {where}: {cause}"

    def end(self) -> None:
        """End the process. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.communicate("\n")


def display_problem() -> str | None:
    """Return why no window can be shown here, in one line, or None."""
    probe = _Probe()
    probe.end()
    return probe.problem


def _quiet_fonts() -> None:
    """Point OpenCV's own Qt to the system's fonts: it has none, and warns five times."""
    folder = Path("/usr/share/fonts")
    if sys.platform.startswith("linux") and folder.is_dir():
        os.environ.setdefault("QT_QPA_FONTDIR", str(folder))
