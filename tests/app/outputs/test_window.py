"""The window, on a virtual display: what is shown, and every way a user has to close it."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.outputs import window as module
from app.outputs.window import WindowOutput, display_problem
from tests.support.bodies import bodies, frame, run_info
from tests.support.paths import ROOT

SHOW = """
import sys, time
import numpy as np
from tests.support.bodies import bodies, frame, run_info
from app.outputs.window import WindowOutput
window = WindowOutput()
window.start()
window.open(run_info())
image = np.zeros((240, 320, 3), np.uint8)
image[:, :160], image[:, 160:] = (250, 0, 0), (0, 0, 250)
window.write(frame(0), bodies([]), image)
deadline = time.monotonic() + 20
print("shown", flush=True)
while window.poll():
    if time.monotonic() > deadline:
        sys.exit("nobody closed the window")
assert not window.poll()
window.stop()
window.stop()
"""


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    needed = ("Xvfb", "xdotool", "import")
    missing = [tool for tool in needed if shutil.which(tool) is None]
    if missing or not ctypes.util.find_library("X11"):
        pytest.skip(f"needs {missing or 'libX11'}: apt install xvfb xdotool imagemagick")
    reader, writer = os.pipe()
    server = subprocess.Popen(
        [
            "Xvfb",
            "-displayfd",
            str(writer),
            "-screen",
            "0",
            "800x600x24",
            "-noreset",
            "-nolisten",
            "tcp",
        ],
        pass_fds=(writer,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    with os.fdopen(reader) as number:
        name = f":{number.readline().strip()}"
    yield name
    server.terminate()
    server.wait()


def environment(display: str | None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    more = {"DISPLAY": display} if display else {}
    return {**kept, **more, "PYTHONPATH": str(ROOT)}


def x(display: str, *command: str) -> str:
    done = subprocess.run(
        command, env=environment(display), capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout


@pytest.fixture
def shown(display: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that shows a picture, and its window."""
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW],
        env=environment(display),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    found: list[str] = []
    deadline = time.monotonic() + 20
    while not found and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.2)
        found = x(display, "xdotool", "search", "--onlyvisible", "--name", "clip.mp4").split()
    if not found:
        process.kill()
        pytest.fail(f"no window came up: {process.communicate()}")
    yield process, found[-1]
    process.kill()
    process.communicate()


def pixels(display: str, path: Path) -> np.ndarray:
    import cv2

    x(display, "import", "-window", "root", str(path))
    return cv2.imread(str(path))[..., ::-1]


@pytest.mark.slow
def test_the_window_shows_the_picture_and_says_what_it_is(display, shown, tmp_path):
    _, window = shown
    assert x(display, "xdotool", "getwindowname", window).strip() == "bodystream: clip.mp4"
    red = blue = 0
    deadline, again = time.monotonic() + 18, time.monotonic() + 4
    while not (red and blue) and time.monotonic() < deadline:
        if time.monotonic() > again:
            # There is no window manager here, and Qt then misses now and then that its window is
            # on the screen, in which it draws nothing. A second mapping tells it.
            x(display, "xdotool", "windowunmap", window, "windowmap", window)
            again += 4
        image = pixels(display, tmp_path / "shot.png").reshape(-1, 3)
        red = int((np.abs(image.astype(int) - (250, 0, 0)).max(axis=1) < 8).sum())
        blue = int((np.abs(image.astype(int) - (0, 0, 250)).max(axis=1) < 8).sum())
    # Half of 320x240 each, not a toolbar or a wrong order of colours.
    assert red == pytest.approx(160 * 240, rel=0.05)
    assert blue == pytest.approx(160 * 240, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["q", "Escape", "close"])
def test_every_way_to_close_it_ends_the_polling(display, shown, how):
    process, window = shown
    if how == "close":
        ask_to_close(display, int(window))
    else:
        x(display, "xdotool", "windowfocus", "--sync", window)
        x(display, "xdotool", "key", how)
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 0, errors
    assert "QFontDatabase" not in errors


def ask_to_close(display: str, window: int) -> None:
    """What a window manager sends when the user clicks on the cross (ICCCM 4.2.8.1)."""

    class ClientMessage(ctypes.Structure):
        _fields_ = [
            ("type", ctypes.c_int),
            ("serial", ctypes.c_ulong),
            ("send_event", ctypes.c_int),
            ("display", ctypes.c_void_p),
            ("window", ctypes.c_ulong),
            ("message_type", ctypes.c_ulong),
            ("format", ctypes.c_int),
            ("data", ctypes.c_long * 5),
            ("rest_of_the_union", ctypes.c_long * 24),
        ]

    x11 = ctypes.CDLL(ctypes.util.find_library("X11"))
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    connection = ctypes.c_void_p(x11.XOpenDisplay(display.encode()))
    protocols = x11.XInternAtom(connection, b"WM_PROTOCOLS", 0)
    event = ClientMessage(33, 0, 1, connection, window, protocols, 32)
    event.data[0] = x11.XInternAtom(connection, b"WM_DELETE_WINDOW", 0)
    x11.XSendEvent(connection, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(event))
    x11.XCloseDisplay(connection)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="DISPLAY is X11's")
@pytest.mark.parametrize(("name", "says"), [(None, "DISPLAY is not set"), (":987", ":987")])
def test_no_display_is_one_line_and_no_crash(monkeypatch, name, says):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if name is not None:
        monkeypatch.setenv("DISPLAY", name)
    problem = display_problem()
    assert problem is not None
    assert says in problem
    assert "\n" not in problem
    with pytest.raises(module.WindowError, match=says):
        WindowOutput().start()


def test_only_the_latest_picture_is_shown(monkeypatch):
    window, shown = WindowOutput(), []
    monkeypatch.setattr(window, "show", shown.append)
    window.open(run_info())
    pictures = [np.full((2, 2, 3), i, np.uint8) for i in range(5)]

    def write() -> None:
        for i, picture in enumerate(pictures):
            window.write(frame(i), bodies([]), picture)

    writer = threading.Thread(target=write)
    writer.start()
    writer.join()
    assert window.poll(1)
    assert window.poll(1)
    assert len(shown) == 1
    assert shown[0] is pictures[-1]
