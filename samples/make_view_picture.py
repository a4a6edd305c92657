"""Make the manual's picture of the 3D view: ``python -m samples.make_view_picture``.

Runs the sample, and writes docs/images/view.jpg: one frame's overlay, the same frame through the
camera in 3D, and from aside. It needs Chromium and the extra ``serve``.
"""

import base64
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import cv2
import numpy as np

from app.exports.recording import read_recording
from app.serve.connection import listen
from app.serve.running import running
from app.serve.viewing import create_view
from app.view.frames import recording_file
from tests.support.browser import Page, opened

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "images" / "view.jpg"
FRAME = 62
SIZE, GAP = (640, 360), 8
"""The size of each of the three, and what lies between them, in pixels."""
VIEW = "document.getElementById('view').view3d"


def main() -> None:
    """Write view.jpg."""
    with tempfile.TemporaryDirectory() as folder:
        poses, video = Path(folder) / "poses.npz", Path(folder) / "overlay.mp4"
        subprocess.run(
            [sys.executable, "-m", "app", "run", "samples/pitch.mp4", "--quiet", "--poses", poses,
             "--video", video], cwd=ROOT, check=True,
        )  # fmt: skip
        recording = recording_file(read_recording(poses))
        with (
            running(create_view(recording), listen("127.0.0.1", 0)) as (url, _),
            opened(Path(folder), webgl=True) as page,
        ):
            tiles = [overlay(video), *views(page, url)]
    between = np.full((SIZE[1], GAP, 3), 255, np.uint8)
    row = np.hstack([tiles[0], between, tiles[1], between, tiles[2]])
    cv2.imwrite(str(PICTURE), row, [cv2.IMWRITE_JPEG_QUALITY, 86])


def overlay(video: Path) -> np.ndarray:
    """Return the frame's overlay, BGR uint8 (H, W, 3)."""
    with av.open(str(video)) as container:
        frame = list(container.decode(video=0))[FRAME].to_ndarray(format="bgr24")
    return cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA)


def views(page: Page, url: str) -> list[np.ndarray]:
    """Return the frame through the camera and from aside, BGR uint8 (H, W, 3)."""
    page.go(url)
    page.wait_for(f"{VIEW}?.frame.tracks.length > 0")
    tools = page.run("document.getElementById('view').offsetHeight") - page.run(
        f"{VIEW}.canvas.offsetHeight"
    )
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=SIZE[0], height=SIZE[1] + tools, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    page.run(f"{VIEW}.timeline.toggle(false), {VIEW}.timeline.go({FRAME} / 30)")
    page.run(f"{VIEW}.enterCamera()")
    camera = shot(page)
    page.run(f"{VIEW}.reset()")
    return [camera, shot(page)]


def shot(page: Page) -> np.ndarray:
    """Return the 3D view once it has been drawn."""
    page.wait_for(f"!{VIEW}.stage.dirty")
    clip = {"x": 0, "y": 0, "width": SIZE[0], "height": SIZE[1], "scale": 1}
    data = base64.b64decode(page.call("Page.captureScreenshot", clip=clip)["data"])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


if __name__ == "__main__":
    main()
