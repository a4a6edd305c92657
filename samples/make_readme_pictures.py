"""Make README's picture and animation from the sample: ``python samples/make_readme_pictures.py``.

Runs the app on samples/pitch.mp4 and writes docs/overlay.jpg (four moments, input above overlay)
and docs/overlay.webp (the whole throw).
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import av
import cv2
import numpy as np

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "samples" / "pitch.mp4"
MOMENTS = (4, 36, 54, 62)
CROP = slice(40, 700), slice(330, 990)


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder) / "overlay.mp4"
        command = [sys.executable, "-m", "app", "run", str(SAMPLE), "--video", str(overlay)]
        subprocess.run([*command, "--no-hud", "--quiet"], cwd=ROOT, check=True)
        plain, drawn = frames(SAMPLE), frames(overlay)
    rows = [
        np.hstack([cv2.resize(images[t][CROP], (330, 330)) for t in MOMENTS])
        for images in (plain, drawn)
    ]
    docs = ROOT / "docs"
    docs.mkdir(exist_ok=True)
    picture = cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(docs / "overlay.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 88])
    with av.open(str(docs / "overlay.webp"), "w", options={"loop": "0"}) as container:
        stream = container.add_stream("libwebp_anim", rate=15)
        stream.width = stream.height = 360
        stream.pix_fmt = "yuv420p"
        stream.options = {"quality": "60"}
        for image in drawn[16:100:2]:
            small = cv2.resize(image[CROP], (360, 360), interpolation=cv2.INTER_AREA)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(small, format="rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
