"""How far predicted bodies are from those fitted later, against bodies that stay where they were.

Run `python -m app run CLIP --poses CLIP.npz` for some clips; then
`python -m benchmarks.extrapolation_horizons *.npz`
prints, for the person longest in view of each, the median distance of a joint in the image, in
thousandths of the person's height, as "held / predicted", at some horizons.
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
    """(held, predicted) by horizon."""
    with np.load(file) as poses:
        rows = {name: poses[name] for name in (*_PARTS, "frame", "pts_s")}
        intrinsics = poses["intrinsics"]
    tracks, counts = np.unique(rows["track"], return_counts=True)
    chosen = rows["track"] == tracks[counts.argmax()]
    rows = {name: values[chosen] for name, values in rows.items()}
    count = int(chosen.sum())
    bodies = [
        Bodies(*(rows[name][k : k + 1] for name in _PARTS), np.zeros((1, 0, 3), np.float32))
        for k in range(count)
    ]
    frames = [
        Frame(int(rows["frame"][k]), "x", 0, float(rows["pts_s"][k]), _IMAGE) for k in range(count)
    ]
    seen = project(rows["joints_m"], intrinsics)
    height = float(np.median(np.ptp(seen[..., 1], axis=1)))
    out = []
    for horizon in HORIZONS:
        predictor, held, predicted = predictor_of(), [], []
        for k in range(count - horizon):
            predictor.observe(frames[k], bodies[k], intrinsics)
            if frames[k + horizon].id - frames[k].id != horizon or k < 3:
                continue
            ahead = project(predictor.predict(frames[k + horizon]).joints_m[0], intrinsics)
            for joints, into in ((seen[k], held), (ahead, predicted)):
                apart = np.linalg.norm(joints - seen[k + horizon], axis=-1).mean()
                into.append(1000 * apart / height)
        out.append((float(np.median(held)), float(np.median(predicted))))
    return out


def main() -> None:
    body = load_body()
    nobody = BodyFitter(body).no_bodies()
    print("| clip |", " | ".join(f"{horizon} frames" for horizon in HORIZONS), "|")
    print("| --- |", " | ".join("--:" for _ in HORIZONS), "|")
    every = []
    for name in sys.argv[1:]:
        told = errors(Path(name), lambda: Predictor(body, nobody))
        every.append(told)
        print(f"| {Path(name).stem} |", " | ".join(f"{a:.0f} / {b:.0f}" for a, b in told), "|")
    mean = np.mean(every, axis=0)
    print("| mean |", " | ".join(f"{a:.0f} / {b:.0f}" for a, b in mean), "|")


if __name__ == "__main__":
    main()
