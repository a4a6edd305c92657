"""Make README's pictures and animation from the sample: ``python samples/make_readme_pictures.py``.

Runs the app on samples/pitch.mp4 and writes into docs/images: overlay.jpg (four moments, the input
above the overlay), overlay.webp (the throw, both side by side) and throw.jpg (its report).
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import cv2
import numpy as np

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
SAMPLE = ROOT / "samples" / "pitch.mp4"
MOMENTS = (4, 36, 54, 62)
CROP = slice(40, 700), slice(330, 990)
HALF = (360, 360)
"""Width and height of each half of the animation."""
PAGE = (1280, 1480)
"""Width and height of the part of the report's page that is shown: pictures, bodies, numbers."""


def frames(path: Path) -> list[np.ndarray]:
    """Return a clip's frames, RGB uint8 (H, W, 3)."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def main() -> None:
    """Write overlay.jpg and overlay.webp."""
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder) / "overlay.mp4"
        command = [sys.executable, "-m", "app", "run", str(SAMPLE), "--video", str(overlay)]
        subprocess.run([*command, "--no-hud", "--quiet"], cwd=ROOT, check=True)
        plain, drawn = frames(SAMPLE), frames(overlay)
    IMAGES.mkdir(parents=True, exist_ok=True)
    still(plain, drawn)
    animation(plain, drawn)


def still(plain: list[np.ndarray], drawn: list[np.ndarray]) -> None:
    """Write overlay.jpg: `MOMENTS`, the input above the overlay."""
    rows = [
        np.hstack([cv2.resize(images[t][CROP], (330, 330)) for t in MOMENTS])
        for images in (plain, drawn)
    ]
    picture = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(IMAGES / "overlay.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])


def animation(plain: list[np.ndarray], drawn: list[np.ndarray]) -> None:
    """Write overlay.webp: the throw at half its frames, the input beside the overlay."""
    with av.open(str(IMAGES / "overlay.webp"), "w", options={"loop": "0"}) as container:
        stream = container.add_stream("libwebp_anim", rate=15)
        stream.width, stream.height = 2 * HALF[0], HALF[1]
        stream.pix_fmt = "yuv420p"
        stream.options = {"quality": "60"}
        for pair in zip(plain[16:100:2], drawn[16:100:2]):
            halves = [cv2.resize(each[CROP], HALF, interpolation=cv2.INTER_AREA) for each in pair]
            both = av.VideoFrame.from_ndarray(np.hstack(halves), format="rgb24")
            container.mux(stream.encode(both))
        container.mux(stream.encode())


def report() -> None:
    """Write throw.jpg; without a browser the old one stays."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("no Chromium: throw.jpg is left as it is", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "app", "events", str(SAMPLE), "--report", folder]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        shot = Path(folder) / "page.png"
        subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--disable-background-networking", f"--user-data-dir={folder}/browser",
             f"--window-size={PAGE[0]},{PAGE[1]}", f"--screenshot={shot}",
             (Path(folder) / "index.html").as_uri()],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        picture = cv2.imread(str(shot))
    if picture is None:
        raise SystemExit("the browser left no picture")
    picture = cv2.resize(picture, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    path = IMAGES / "throw.jpg"
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 86])


if __name__ == "__main__":
    main()
    report()
