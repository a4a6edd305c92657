"""People, truths and frames for tests of the evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from app.evaluate.compare import compare
from app.evaluate.metrics import (
    from_hips,
    torso_px,
)
from app.evaluate.outcome import Outcome, Row
from app.evaluate.replay import Played
from app.evaluate.truth import Truth
from pipeline.core.camera import default_intrinsics, project
from pipeline.core.people import Bodies, Person
from tests.support.recordings import poses_arrays, save_poses

SIZE = (120, 160)
LENS = default_intrinsics(*SIZE)
FACES = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
seeds = st.integers(0, 2**32 - 1)
SHARED = settings(deadline=None)
"""No deadline: the machine may be busy with other things."""


def a_person(seed: int = 0) -> np.ndarray:
    """Return landmarks (33, 3) of a person-sized cloud four metres away, shoulders above hips."""
    points = np.random.default_rng(seed).normal(0, 0.15, (33, 3))
    points[[11, 12]] += [0, -0.4, 0]
    points[[23, 24]] += [0, 0.2, 0]
    return points + [0, 0, 4.0]


def truth_of(landmarks_m: np.ndarray, frame, person, **changes) -> Truth:
    """Return a rendered clip's truth of landmarks (N, 33, 3)."""
    pixels = project(landmarks_m, LENS)
    parts = {
        "name": "t.npz", "kind": "render", "frame": np.array(frame), "person": np.array(person),
        "landmarks_px": pixels, "visible": np.ones(pixels.shape[:2], bool),
        "torso_px": torso_px(pixels), "counted": np.ones(len(pixels), bool),
        "frames": 3, "size": SIZE, "intrinsics": LENS, "landmarks_m": landmarks_m,
        "root_depth_m": from_hips(landmarks_m)[:, 0, 2], "complete": True,
    }  # fmt: skip
    return Truth(**(parts | changes))


def person_of(landmarks_m: np.ndarray) -> Person:
    """Return a person as perceived, without error."""
    pixels = project(landmarks_m, LENS).astype(np.float32)
    box = np.concatenate((pixels.min(0), pixels.max(0)))
    world = from_hips(landmarks_m).astype(np.float32)
    return Person(box, 1.0, pixels, np.ones(33, np.float32), world)


def played(frame: int, people: dict[int, np.ndarray]) -> Played:
    """A frame in which these tracks' bodies have these landmarks (33, 3)."""
    count = len(people)
    landmarks = np.array(list(people.values()), np.float32).reshape(-1, 33, 3)
    middle = landmarks.mean(1, keepdims=True)
    square = np.array([[-0.4, -0.6, 0], [-0.4, 0.6, 0], [0.4, 0.6, 0], [0.4, -0.6, 0]], np.float32)
    shapes = ((3,), (69,), (10,), (3,), (24, 3))
    bodies = Bodies(
        np.array(list(people), np.int64),
        np.ones(count, np.float32),
        *(np.zeros((count, *shape), np.float32) for shape in shapes),
        landmarks,
        middle + square,
        np.ones((count, 24), np.float32),
    )
    seen = {track: person_of(points) for track, points in people.items()}
    return Played(frame, SIZE, LENS, seen, bodies)


A, B = a_person(1) - [0.6, 0, 0], a_person(2) + [0.6, 0, 0]
ELSEWHERE = a_person(3) + [0, 0, 30.0]


def outcome_of(truth: Truth, frames: list[dict[int, np.ndarray]]) -> Outcome:
    pairs, tallies = [], []
    for index, people in enumerate(frames):
        found, tally = compare(played(index, people), truth, FACES)
        pairs += found
        tallies.append(tally)
    return Outcome.of(truth, pairs, tallies)


def values(rows: list[Row]) -> dict[str, float]:
    return {row.key: row.mesh for row in rows}


def recorded(path: Path, tracks: dict[int, list[np.ndarray | None]], **changes) -> Path:
    """Save a recording in which the tracks have these landmarks (33, 3) frame by frame."""
    frames = {
        track: [k for k, points in enumerate(path_m) if points is not None]
        for track, path_m in tracks.items()
    }
    arrays = poses_arrays(frames)
    rows = zip(arrays["frame"].tolist(), arrays["track"].tolist())
    landmarks = np.array([tracks[track][frame] for frame, track in rows], np.float32)
    arrays["landmarks_m"] = landmarks
    arrays["landmarks_px"] = project(landmarks, LENS).astype(np.float32)
    arrays |= {"intrinsics": LENS, "image_size": np.array(SIZE)}
    arrays |= changes
    return save_poses(path, {name: value for name, value in arrays.items() if value is not None})
