"""Make the manual's picture of the page: ``python -m samples.make_serve_picture``.

Serves the sample, the sample mirrored and a camera that is not there, and writes
docs/images/serve.jpg: the page on a desk and on a phone. It needs Chromium and the extra ``serve``.
"""

import base64
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import httpx
import numpy as np

from tests.support.browser import Page, opened

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "serve.jpg"
SOURCES = (
    "bullpen=lavfi:movie=samples/pitch.mp4:loop=0,setpts=N/30/TB",
    "gym=lavfi:movie=samples/pitch.mp4:loop=0,hflip,setpts=N/30/TB",
    "door=rtsp://door.local:8554/stream",
)
DESK, PHONE, GAP = (1280, 760), (390, 760), 16
"""Sizes of the two views, and what lies between them, in pixels."""
SETTLED_S = 15


def main() -> None:
    """Write serve.jpg."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "app", "serve", str(port), *SOURCES, "--folder", folder],
            cwd=ROOT, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until_live(address)
            httpx.put(f"{address}/api/sources/bullpen/recording", json={"on": True})
            with opened(Path(folder)) as page:
                views = [view(page, address, size) for size in (DESK, PHONE)]
        finally:
            server.terminate()
            server.wait(60)
    between = np.full((DESK[1], GAP, 3), 60, np.uint8)
    both = np.hstack([views[0], between, views[1]])
    cv2.imwrite(str(PICTURE), both, [cv2.IMWRITE_JPEG_QUALITY, 86])


def wait_until_live(address: str) -> None:
    """Wait until both clips are live. Raises SystemExit after two minutes."""
    for _ in range(120):
        time.sleep(1)
        try:
            states = [each["state"] for each in httpx.get(f"{address}/api/sources").json()]
        except httpx.HTTPError:
            continue
        if states.count("live") == 2:
            return
    raise SystemExit("the sources did not come live")


def view(page: Page, address: str, size: tuple[int, int]) -> np.ndarray:
    """Return the page at a size, BGR uint8 (H, W, 3), once its pictures have come."""
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=size[0], height=size[1], deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    page.call("Emulation.setScrollbarsHidden", hidden=True)
    page.go(address)
    time.sleep(SETTLED_S)
    shot = base64.b64decode(page.call("Page.captureScreenshot")["data"])
    picture = cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None, "the browser sends a PNG"
    return picture


if __name__ == "__main__":
    main()
