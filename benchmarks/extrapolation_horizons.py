"""Measure how far predicted bodies are from the ones fitted later, compared with bodies that are
held still.

Run ``python -m app run CLIP --poses CLIP.npz`` for some clips, and then:

    python -m benchmarks.extrapolation_horizons *.npz

It prints, for the longest visible person of each clip and for some horizons, the median distance of
a joint in the image as "held / predicted", in thousandths of the person's height.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from pipeline.body.load import load_body
from pipeline.core.camera import project
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.fitting.fitter import BodyFitter
from pipeline.tracking.extrapolate import Predictor

HORIZONS = (1, 2, 4, 8)
_IMAGE = np.zeros((8, 8, 3), np.uint8)
_PARTS = ("track", "score", "global_orient", "body_pose", "betas", "transl_m", "joints_m",
          "landmarks_m")  # fmt: skip


def errors(file: Path, predictor_of) -> list[tuple[float, float]]:
    """Return the errors (held, predicted) for each of `HORIZONS`."""
    with np.load(file) as poses:
        rows = {name: poses[name] for name in (*_PARTS, "joint_visibility", "frame", "pts_s")}
        intrinsics = poses["intrinsics"]
    tracks, counts = np.unique(rows["track"], return_counts=True)
    chosen = rows["track"] == tracks[counts.argmax()]
    rows = {name: values[chosen] for name, values in rows.items()}
    count = int(chosen.sum())
    bodies = [
        Bodies(
            *(rows[name][k : k + 1] for name in _PARTS),
            np.zeros((1, 0, 3), np.float32),
            rows["joint_visibility"][k : k + 1],
        )
        for k in range(count)
    ]
    frames = [
        Frame(int(rows["frame"][k]), "x", 0, float(rows["pts_s"][k]), _IMAGE) for k in range(count)
    ]
    fitted_px = project(rows["joints_m"], intrinsics)
    height_px = float(np.median(np.ptp(fitted_px[..., 1], axis=1)))
    out = []
    for horizon in HORIZONS:
        predictor, held, predicted = predictor_of(), [], []
        for k in range(count - horizon):
            predictor.observe(frames[k], bodies[k], intrinsics)
            # Only without a gap, and once the predictor has seen a few frames.
            if frames[k + horizon].id - frames[k].id != horizon or k < 3:
                continue
            ahead_px = project(predictor.predict(frames[k + horizon]).joints_m[0], intrinsics)
            for joints_px, values in ((fitted_px[k], held), (ahead_px, predicted)):
                # The later fit stands for the truth: it is what low latency does without.
                error_px = np.linalg.norm(joints_px - fitted_px[k + horizon], axis=-1).mean()
                values.append(1000 * error_px / height_px)
        out.append((float(np.median(held)), float(np.median(predicted))))
    return out


def main() -> None:
    body = load_body()
    nobody = BodyFitter(body).no_bodies()
    print("| clip |", " | ".join(f"{horizon} frames" for horizon in HORIZONS), "|")
    print("| --- |", " | ".join("--:" for _ in HORIZONS), "|")
    all_clips = []
    for name in sys.argv[1:]:
        of_clip = errors(Path(name), lambda: Predictor(body, nobody))
        all_clips.append(of_clip)
        print(f"| {Path(name).stem} |", " | ".join(f"{a:.0f} / {b:.0f}" for a, b in of_clip), "|")
    mean = np.mean(all_clips, axis=0)
    print("| mean |", " | ".join(f"{a:.0f} / {b:.0f}" for a, b in mean), "|")


if __name__ == "__main__":
    main()
