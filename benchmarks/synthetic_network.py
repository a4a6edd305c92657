"""Measure what the fit adds to a network of metric joints: a made-up one puts noise on true joints.

    python -m benchmarks.synthetic_network CLIP ... [--sigma-mm 0 20] [--seeds 1 2 3] [--projected]
        [--outliers 0.02] [--missing 0.1] [--unstated] [--held]

The CLIPs are renders of `samples/make_pitch.py`, each with its CLIP_truth.npz. A perceiver that
reads the truth in place of the picture reports MHR's 70 keypoints as SAM 3D Body and InstantHMR do:
in metres about the middle of the hips in the camera's axes, and in pixels. Keypoints without a
truth (fingertips, points around the elbow) are not visible. Every coordinate of every joint has
Gaussian noise of its own in each frame, and in the picture, too, noise of the same length at the
person's distance. The estimator that ships does the rest, with the truth's lens.

Printed for each sigma are means over all people of all clips and seeds, "before" of the
network's joints and "after" of the fitted body:

- limbs mm: the error of twelve landmarks about the middle of the hips (MPJPE);
- SMPL mm: the error of SMPL's 24 joints about the middle of the landmarks of the hips, in brackets
  about the pelvis;
- surface mm: the chamfer distance to the clothed surface, as ``evaluate`` measures it;
- jitter mm: the mean length of the limbs' second differences over frames, about the hips;
- betas: the largest change of a shape coefficient from one frame to the next after a second;
- bones %: the standard deviation of the lengths of upper and lower arms and legs over their mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.evaluate.metrics import (
    HIPS,
    LIMBS,
    accelerations,
    from_hips,
    limb_errors,
    surface_distance,
)
from app.evaluate.replay import mean_focal_px
from app.evaluate.truth import Truth, load_truth
from benchmarks.renderers import hardware
from pipeline.body.load import load_body
from pipeline.body.model import BodyModel
from pipeline.capture.open import open_source
from pipeline.core.camera import project
from pipeline.core.frame import Window
from pipeline.core.people import Bodies, Person
from pipeline.core.skeleton import BLAZEPOSE_33, LANDMARKS, MHR_70, blazepose_order
from pipeline.fitting.fitter import BodyFitter
from pipeline.perception.base import People, Perceiver
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.one_thread import one_thread
from pipeline.runtime.window import Windower

_OUTLIER = 10.0
"""How many times as far off an outlier is."""
_LEAST_FRAMES = 12
"""Tracks that are shorter have no motion to measure."""
_SETTLED_S = 1.0
"""The time after which a track's shape should not change any more."""
_SURFACE_STEP = 4
"""Surfaces are compared in every n-th frame: it takes longer than the fit."""
_BONES = np.array(
    [
        BLAZEPOSE_33.indices(f"{side}_{upper}", f"{side}_{lower}")
        for side in ("left", "right")
        for upper, lower in (
            ("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"),
        )
    ]
)  # fmt: skip
"""The landmarks at both ends of upper and lower arms and legs, (8, 2)."""


@dataclass(frozen=True)
class Noise:
    """The made-up network's errors.

    Attributes:
        sigma_m: Standard deviation of each coordinate of a joint, in metres.
        outliers: The share of joints that are `_OUTLIER` times as far off.
        missing: The share of person-frames in which the person is not found.
        projected: Whether the pixels are those of the noisy joints, without noise of their own.
        stated: Whether the network states its error. The fit takes its joints for BlazePose's
            otherwise.
        held: Whether a person's errors are the same in all frames, so that none averages out.
    """

    sigma_m: float
    outliers: float = 0.0
    missing: float = 0.0
    projected: bool = False
    stated: bool = True
    held: bool = False


class SyntheticNetwork(Perceiver):
    """Reports the people of a truth as MHR's 70 keypoints with noise.

    ``Person.extra`` holds the ``row`` of the truth.

    Args:
        truth: A render's truth.
        noise: What is put on it.
        seed: Of the noise. Each frame draws its own, so that a run can be repeated.

    Raises:
        ValueError: The truth has no landmarks in space or no lens.
    """

    name = "synthetic"

    def __init__(self, truth: Truth, noise: Noise, seed: int) -> None:
        if truth.landmarks_m is None or truth.intrinsics is None:
            raise ValueError(f"{truth.name}: no landmarks in space; take a render's truth")
        self._truth, self._noise, self._seed = truth, noise, seed
        self._landmarks_m = truth.landmarks_m.astype(np.float64)
        self._intrinsics = truth.intrinsics
        self._places, self._known = blazepose_order(MHR_70)

    def decode(self, embedding: Any, window: Window) -> tuple[People, Any]:
        people: People = []
        for frame in window.frames:
            random = np.random.default_rng([self._seed, frame.id])
            rows = self._truth.rows_of(frame.id)
            found = rows[random.random(len(rows)) >= self._noise.missing]
            people.append(tuple(self._person(int(row), random) for row in found))
        return people, None

    def _person(self, row: int, random: np.random.Generator) -> Person:
        noise, true_m = self._noise, self._landmarks_m[row]
        if noise.held:
            random = np.random.default_rng([self._seed, int(self._truth.person[row])])
        far = random.random((LANDMARKS, 1)) < noise.outliers
        sigma_m = noise.sigma_m * np.where(far, _OUTLIER, 1.0)
        noisy_m = true_m + sigma_m * random.standard_normal((LANDMARKS, 3))
        # Noise across the view alone: along it, the picture would not change.
        across_m = sigma_m * random.standard_normal((LANDMARKS, 3)) * (1.0, 1.0, 0.0)
        pixels = project(noisy_m if noise.projected else true_m + across_m, self._intrinsics)
        box = np.concatenate((pixels[self._known].min(0), pixels[self._known].max(0)))
        return Person(
            box.astype(np.float32),
            1.0,
            self._as_mhr(pixels),
            self._as_mhr(self._known),
            self._as_mhr(from_hips(noisy_m)),
            keypoints=MHR_70,
            world_sigma_m=noise.sigma_m if noise.stated else None,
            extra={"row": np.array(row)},
        )

    def _as_mhr(self, landmarks: np.ndarray) -> np.ndarray:
        """Return BlazePose's landmarks (33, ...) at MHR's places (70, ...) float32; 0 elsewhere."""
        out = np.zeros((len(MHR_70), *landmarks.shape[1:]), np.float32)
        out[self._places[self._known]] = landmarks[self._known]
        return out


@dataclass(frozen=True, eq=False)
class PersonFrame:
    """One person in one frame: the truth, the network's answer and the fit. Points are in metres
    about the middle of the hips' landmarks.

    Attributes:
        frame: The frame's number.
        true_m: True landmarks (33, 3).
        before_m: The network's landmarks (33, 3).
        after_m: The fitted body's landmarks (33, 3).
        true_joints_m: SMPL's joints (24, 3) of the truth.
        joints_m: The fitted body's joints (24, 3).
        surface_m: The distance of the surfaces; NaN in frames in which it is not measured.
        betas: The fitted shape (10,).
    """

    frame: int
    true_m: np.ndarray
    before_m: np.ndarray
    after_m: np.ndarray
    true_joints_m: np.ndarray
    joints_m: np.ndarray
    surface_m: float
    betas: np.ndarray


@dataclass
class Figures:
    """The measured numbers of many people, one entry a track and run."""

    limbs: list[tuple[float, float]] = field(default_factory=list)
    smpl: list[tuple[float, float]] = field(default_factory=list)
    surface: list[float] = field(default_factory=list)
    jitter: list[tuple[float, float, float]] = field(default_factory=list)
    betas: list[float] = field(default_factory=list)
    bones: list[tuple[float, float]] = field(default_factory=list)

    def add(self, seen: Sequence[PersonFrame], fps: float) -> None:
        """Add what was measured of one person, frame by frame."""
        true_m, before_m, after_m = (
            np.stack([getattr(one, name) for one in seen])
            for name in ("true_m", "before_m", "after_m")
        )
        self.limbs.append(
            (1e3 * limb_errors(before_m, true_m).mean(), 1e3 * limb_errors(after_m, true_m).mean())
        )
        off_m = np.stack([one.joints_m - one.true_joints_m for one in seen])
        about_pelvis_m = off_m - off_m[:, :1]
        self.smpl.append((_mean_mm(off_m), _mean_mm(about_pelvis_m)))
        self.surface.append(1e3 * float(np.nanmean([one.surface_m for one in seen])))
        # Second differences need three frames in a row.
        numbers = np.array([one.frame for one in seen])
        straight = (numbers[2:] - numbers[:-2]) == 2
        self.jitter.append(
            tuple(
                1e3 * float(accelerations(points[:, LIMBS])[straight].mean())
                for points in (before_m, after_m, true_m)
            )
        )
        late = np.stack([one.betas for one in seen])[numbers - numbers[0] >= _SETTLED_S * fps]
        self.betas.append(float(np.abs(np.diff(late, axis=0)).max(initial=0.0)))
        self.bones.append((_bone_spread(before_m), _bone_spread(after_m)))

    def row(self, sigma_mm: float) -> str:
        """Return the means as a row of a Markdown table, under `HEADER`."""
        limbs, smpl, jitter, bones = (
            np.mean(values, axis=0) for values in (self.limbs, self.smpl, self.jitter, self.bones)
        )
        return (
            f"| {sigma_mm:g} | {limbs[0]:.1f} → {limbs[1]:.1f} | {smpl[0]:.1f} ({smpl[1]:.1f}) "
            f"| {np.mean(self.surface):.1f} | {jitter[0]:.1f} → {jitter[1]:.1f} ({jitter[2]:.1f}) "
            f"| {max(self.betas):.3f} | {bones[0]:.1f} → {bones[1]:.1f} |"
        )


HEADER = (
    "| sigma mm | limbs mm | SMPL mm (about the pelvis) | surface mm | jitter mm (the truth's) "
    "| betas | bones % |\n|--:|--:|--:|--:|--:|--:|--:|"
)


def _mean_mm(offsets_m: np.ndarray) -> float:
    return 1e3 * float(np.linalg.norm(offsets_m, axis=-1).mean())


def _bone_spread(points_m: np.ndarray) -> float:
    """Return how much the bones' lengths differ over the frames, per cent of their means."""
    ends = points_m[:, _BONES]
    lengths = np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=-1)
    return 100 * float((lengths.std(0) / lengths.mean(0)).mean())


def truth_of(clip: Path) -> Truth:
    """Return the truth beside a clip. Raises as `load_truth`."""
    return load_truth(clip.with_name(f"{clip.stem}_truth.npz"))


def measure(
    clip: Path, truth: Truth, network: Perceiver, body: BodyModel, figures: Figures
) -> None:
    """Run one clip and add its people to ``figures``.

    Args:
        clip: A render.
        truth: Its truth.
        network: Perceives the people, with the ``row`` of the truth in ``Person.extra``. People
            without it are not measured.
        body: The body to fit.
        figures: Gets an entry for each track.
    """
    assert truth.intrinsics is not None
    focal_px = mean_focal_px(truth.intrinsics)
    estimator = KeypointEstimator(network, BodyFitter(body), focal_px=focal_px)
    source, windower = open_source(str(clip)), Windower(max_wait_ms=float("inf"))
    source.open()
    assert source.info.fps is not None
    windows = [window for frame in source.frames() for window in windower.add(frame)]
    state, people = estimator.begin(), dict[tuple[int, int], list[PersonFrame]]()
    for window in windows + windower.finish():
        detected = estimator.perceive([window], [state])
        (fitted,) = estimator.fit(detected, [state])
        for seen, (frame, bodies) in zip(detected[0].people, fitted):
            for place, track in enumerate(bodies.track.tolist()):
                extra = seen[track].extra
                if extra is None:
                    continue
                row = int(extra["row"])
                one = _compared(frame.id, row, seen[track], place, bodies, truth)
                # A person who gets another track has another shape to find.
                people.setdefault((int(truth.person[row]), track), []).append(one)
    source.close()
    for frames in people.values():
        if len(frames) >= _LEAST_FRAMES:
            figures.add(frames, source.info.fps)


def _compared(
    frame: int, row: int, person: Person, place: int, bodies: Bodies, truth: Truth
) -> PersonFrame:
    assert truth.landmarks_m is not None
    assert truth.joints_m is not None
    assert truth.surface is not None
    assert person.world_m is not None
    true_hips_m = truth.landmarks_m[row][HIPS].mean(0)
    hips_m = bodies.landmarks_m[place][HIPS].mean(0)
    surface_m = float("nan")
    if frame % _SURFACE_STEP == 0:
        own, other = bodies.vertices_m[place] - hips_m, truth.surface(row) - true_hips_m
        surface_m = surface_distance(own, other)
    return PersonFrame(
        frame,
        truth.landmarks_m[row] - true_hips_m,
        person.world_m,
        bodies.landmarks_m[place] - hips_m,
        truth.joints_m[row] - true_hips_m,
        bodies.joints_m[place] - hips_m,
        surface_m,
        bodies.betas[place],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.synthetic_network",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    parser.add_argument("--sigma-mm", type=float, nargs="+", default=[0.0, 20.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--outliers", type=float, default=0.0, help="their share of the joints")
    parser.add_argument("--missing", type=float, default=0.0, help="share of people not found")
    parser.add_argument("--projected", action="store_true", help="no noise of the picture's own")
    parser.add_argument("--held", action="store_true", help="the same errors in all frames")
    parser.add_argument("--unstated", action="store_true", help="the network states no error")
    options = parser.parse_args(arguments)
    body = load_body()
    print(f"{hardware()}; {len(options.clips)} clips, seeds {options.seeds}")
    print(HEADER)
    for sigma_mm in options.sigma_mm:
        noise = Noise(
            sigma_mm / 1e3, options.outliers, options.missing, options.projected,
            not options.unstated, options.held,
        )  # fmt: skip
        figures = Figures()
        with one_thread():
            for clip in options.clips:
                truth = truth_of(clip)
                for seed in options.seeds:
                    measure(clip, truth, SyntheticNetwork(truth, noise, seed), body, figures)
        print(figures.row(sigma_mm), flush=True)


if __name__ == "__main__":
    main()
