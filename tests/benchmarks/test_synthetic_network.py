"""The made-up network: its noise, its gaps and its conventions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.evaluate.truth import Truth
from benchmarks.synthetic_network import Figures, Noise, PersonFrame, SyntheticNetwork
from pipeline.core.camera import project
from pipeline.core.frame import Frame, Window
from pipeline.core.people import as_blazepose

FRAMES = 40
LENS = np.array([[900.0, 0, 320], [0, 900.0, 240], [0, 0, 1]])


def some_truth() -> Truth:
    pose = np.random.default_rng(0).uniform(-0.8, 0.8, (33, 3)) + (0.3, 0, 4)
    points = np.repeat(pose[None], FRAMES, 0)
    return Truth(
        "made up", "render", np.arange(FRAMES), np.zeros(FRAMES, int), project(points, LENS),
        np.ones((FRAMES, 33), bool), np.ones(FRAMES), np.ones(FRAMES, bool),
        intrinsics=LENS, landmarks_m=points,
    )  # fmt: skip


TRUTH = some_truth()


def perceived(noise: Noise, seed: int = 0):
    network, image = SyntheticNetwork(TRUTH, noise, seed), np.zeros((4, 4, 3), np.uint8)
    people = []
    for k in range(FRAMES):
        window = Window((Frame(k, "made up", 0, k / 30, image),), 0)
        ((found,), _) = network.decode(None, window)
        people.append([as_blazepose(person) for person in found])
    return people


@given(st.floats(0.001, 0.1), st.integers(0, 99))
def test_its_noise_has_the_stated_size(sigma_m, seed):
    people = [frame[0] for frame in perceived(Noise(sigma_m), seed)]
    seen = people[0].visibility > 0
    assert seen.sum() == 27
    assert people[0].world_sigma_m == sigma_m
    true_m = TRUTH.landmarks_m[0]
    world_m = np.stack([person.world_m for person in people])
    # The middle of the hips is noisy too; between two frames it drops out of limbs' differences.
    apart = (world_m[:, 15] - world_m[:, 28]) - (true_m[15] - true_m[28])
    assert apart.std() == pytest.approx(np.sqrt(2) * sigma_m, rel=0.3)
    pixels = np.stack([person.landmarks_px for person in people])[:, seen]
    off_m = (pixels - TRUTH.landmarks_px[0, seen]) * TRUTH.landmarks_m[0, seen, 2:] / 900
    assert off_m.std() == pytest.approx(sigma_m, rel=0.1)


def test_without_noise_it_is_the_truth():
    for projected in (False, True):
        (person,) = perceived(Noise(0.0, projected=projected))[3]
        seen = person.visibility > 0
        assert np.allclose(person.landmarks_px[seen], TRUTH.landmarks_px[3, seen], atol=1e-2)
        true_m = TRUTH.landmarks_m[3]
        hips_m = true_m[[23, 24]].mean(0)
        assert np.allclose(person.world_m[seen], (true_m - hips_m)[seen], atol=1e-5)
        assert int(person.extra["row"]) == 3


def test_people_are_missing_and_errors_unstated_as_asked():
    assert 5 < sum(not frame for frame in perceived(Noise(0.0, missing=0.4))) < 30
    assert perceived(Noise(0.02, stated=False))[0][0].world_sigma_m is None


def test_held_errors_are_the_same_in_all_frames_and_of_the_stated_size():
    people = [frame[0] for frame in perceived(Noise(0.02, held=True))]
    for person in people[1:]:
        assert (person.world_m == people[0].world_m).all()
        assert (person.landmarks_px == people[0].landmarks_px).all()
    others = np.stack([perceived(Noise(0.02, held=True), seed)[0][0].world_m for seed in range(30)])
    true_m = TRUTH.landmarks_m[0]
    apart = (others[:, 15] - others[:, 28]) - (true_m[15] - true_m[28])
    assert apart.std() == pytest.approx(np.sqrt(2) * 0.02, rel=0.3)


def test_the_figures_are_those_of_a_body_that_is_off_by_a_centimetre():
    random = np.random.default_rng(1)
    landmarks_m, joints_m = random.normal(size=(33, 3)), random.normal(size=(24, 3))
    off = landmarks_m.copy()
    off[11:] += (0.01, 0, 0)
    off[[23, 24]] = landmarks_m[[23, 24]]
    figures = Figures()
    figures.add(
        [
            PersonFrame(
                k, landmarks_m, off, landmarks_m, joints_m, joints_m + (0, 0.02, 0), 0.03,
                np.zeros(10),
            )
            for k in range(20)
        ],
        30.0,
    )  # fmt: skip
    # Ten of the twelve limbs are off; still bodies do not jitter.
    assert figures.row(10) == (
        "| 10 | 8.3 → 0.0 | 20.0 (0.0) | 30.0 | 0.0 → 0.0 (0.0) | 0.000 | 0.0 → 0.0 |"
    )
