"""Measure how exactly and how fast the camera's own rotation and zoom are found.

    python -m benchmarks.camera_motion [--pans 12] [--seed 1] [--size 1280x720]

Each pan turns a camera in a made-up scene by up to 60 degrees, with tilt, roll, a zoom of 1 to 2
and some shake, at 30 frames a second for two seconds, with noise. Errors are against the truth, at
worst over the frames of a pan: degrees of rotation, and parts in a hundred of the zoom. Times are
those of one thread, in milliseconds a frame: while still, in the pans, while the camera shakes at
random, when no frame is where it is expected, and in pans of a hall that has no corners.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import cv2
import numpy as np

from benchmarks.renderers import hardware
from pipeline.world.camera_motion import CameraMotion
from pipeline.world.camera_view import CameraView
from tests.support.panorama import Scene, angle_deg, hall, turn

_FRAMES = 60


def ways(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return pan, tilt and roll (F, 3), degrees, and zoom (F,) of a camera that is still, pans
    or shakes."""
    if kind == "still":
        return np.zeros((_FRAMES, 3)), np.ones(_FRAMES)
    if kind == "shake":
        return rng.normal(0, 0.4, (_FRAMES, 3)), np.ones(_FRAMES)
    along = np.linspace(0, 1, _FRAMES)
    ends = rng.uniform([-60, -15, -15], [60, 15, 15])
    shakes = rng.normal(0, rng.uniform(0, 0.1), (_FRAMES, 3))
    return ends * along[:, None] + shakes, rng.uniform(1, 2) ** along


def measure(
    scene: Scene, angles_deg: np.ndarray, zooms: np.ndarray, rng: np.random.Generator
) -> tuple[list[CameraView], list[float], float, float]:
    """Return the poses, milliseconds a frame, and the largest error of the rotation, degrees, and
    of the zoom, per cent."""
    motion = CameraMotion(scene.intrinsics, scene.size)
    poses, times_ms, errors_deg, errors_pct = [], [], [], []
    first = turn(*angles_deg[0])
    for angles, zoom in zip(angles_deg, zooms):
        rotation = turn(*angles)
        grey = scene.picture(rotation, zoom)
        grey = np.clip(grey + rng.normal(0, 3, grey.shape), 0, 255).astype(np.uint8)
        image = np.repeat(grey[..., None], 3, 2)
        start = time.perf_counter()
        pose = motion.add(image)
        times_ms.append(1e3 * (time.perf_counter() - start))
        poses.append(pose)
        errors_deg.append(angle_deg(pose.rotation, first.T @ rotation))
        errors_pct.append(100 * abs(pose.zoom / (zoom / zooms[0]) - 1))
    return poses, times_ms, max(errors_deg), max(errors_pct)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.camera_motion", description=__doc__)
    parser.add_argument("--pans", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", default="1280x720")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    width, height = (int(side) for side in options.size.split("x"))
    rng = np.random.default_rng(options.seed)
    scene = Scene(options.seed % 1000, (height, width))
    without_corners = Scene(options.seed % 1000, (height, width), draw=hall)
    print(f"{hardware()}; {options.size}, seed {options.seed}")
    for kind, count in (("still", 1), ("pan", options.pans), ("shake", 1), ("hall", options.pans)):
        seen = without_corners if kind == "hall" else scene
        runs = [measure(seen, *ways(rng, kind), rng) for _ in range(count)]
        times_ms = np.concatenate([run[1] for run in runs])
        p50, p95 = np.percentile(times_ms, [50, 95])
        degrees, parts = (np.array([run[place] for run in runs]) for place in (2, 3))
        known = np.mean([pose.known for run in runs for pose in run[0]])
        print(
            f"{kind:5s} {count} x {_FRAMES} frames: mean {times_ms.mean():.1f} ms, p50 {p50:.1f}, "
            f"p95 {p95:.1f}; error median {np.median(degrees):.3f} deg, worst {degrees.max():.3f}; "
            f"zoom {np.median(parts):.2f} %, worst {parts.max():.2f}; known {known:.2f}"
        )


if __name__ == "__main__":
    main()
