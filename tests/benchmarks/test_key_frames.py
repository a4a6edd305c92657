"""Key frames measured by a made-up network: which frames, whose people, and the figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.evaluate.metrics import from_hips
from app.evaluate.truth import Truth
from benchmarks.key_frames import SOME, Correction, KeyFrameFigures, KeyFramePerceiver, Measured
from benchmarks.synthetic_network import Noise, PersonFrame, SyntheticNetwork
from pipeline.core.camera import project
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Mask, Person, as_blazepose
from pipeline.core.skeleton import BLAZEPOSE_33, MHR_70
from pipeline.perception.base import Perceiver

FRAMES = 16
LENS = np.array([[900.0, 0, 320], [0, 900.0, 240], [0, 0, 1]])
MASK = Mask(np.ones((4, 4), np.float32), np.eye(2, 3, dtype=np.float32))


def some_truth() -> Truth:
    pose = np.random.default_rng(0).uniform(-0.8, 0.8, (33, 3)) + (0.3, 0, 4)
    points = np.repeat(pose[None], FRAMES, 0)
    pixels = project(points, LENS)
    return Truth(
        "made up", "render", np.arange(FRAMES), np.zeros(FRAMES, int), pixels,
        np.ones((FRAMES, 33), bool), np.full(FRAMES, 100.0), np.ones(FRAMES, bool),
        intrinsics=LENS, landmarks_m=points,
    )  # fmt: skip


TRUTH = some_truth()


class Base(Perceiver):
    """Sees the truth's person near where it is, and one that is not in the truth."""

    def decode(self, embedding, window):
        people = [
            tuple(
                Person(
                    np.array([0, 0, 10, 10], np.float32), 0.7,
                    (TRUTH.landmarks_px[frame.id] + off).astype(np.float32),
                    np.ones(33, np.float32), np.zeros((33, 3), np.float32), MASK, roi,
                )
                for roi, off in ((4, 5.0), (9, 2000.0))
            )
            for frame in window.frames
        ]  # fmt: skip
        return people, "memory"


def window(frames: range) -> Window:
    image = np.zeros((4, 4, 3), np.uint8)
    return Window(tuple(Frame(k, "made up", 0, k / 30, image) for k in frames), 0)


def perceived(measured: Measured, carried: bool = False):
    network = SyntheticNetwork(TRUTH, Noise(0.0), 1)
    perceiver = KeyFramePerceiver(Base(), network, TRUTH, measured, carried=carried)
    found = []
    for first in range(0, FRAMES, 4):
        people, memory = perceiver.decode(None, window(range(first, first + 4)))
        assert memory == "memory"
        found += people
    return found


@given(st.integers(0, 400), st.sampled_from((1, 2, 4)))
def test_the_measured_frames_are_the_key_frames_of_every_nth_window(frame, windows):
    assert Measured("", windows).has(frame) == (frame % (4 * windows) == 2)
    assert Measured("", 1, all_frames=True).has(frame)
    assert not Measured("none", 0).has(frame)


@pytest.mark.parametrize("measured", SOME, ids=lambda each: each.name)
def test_measured_people_keep_their_track_and_their_mask(measured):
    for k, (person, ghost) in enumerate(perceived(measured)):
        assert person.roi == 4
        assert person.mask is MASK
        assert person.score == 0.7
        assert int(person.extra["row"]) == k
        has = measured.has(k)
        assert person.keypoints is (MHR_70 if has else BLAZEPOSE_33)
        assert (person.world_sigma_m is not None) == has
        # No person of the truth: nothing to report, nothing to measure.
        assert ghost.extra is None
        assert ghost.roi == 9
        assert ghost.keypoints is BLAZEPOSE_33


def test_a_correction_makes_the_person_of_its_own_frame_the_measured_one():
    """And moves one of another frame by as much, in the camera's axes."""
    ((measured,),) = SyntheticNetwork(TRUTH, Noise(0.02), 1).decode(None, window(range(1)))[0]
    seen = Base().decode(None, window(range(1)))[0][0][0]
    correction = Correction.of(seen, measured, LENS)
    applied, points = correction.applied(seen, LENS), as_blazepose(measured)
    known = points.visibility > 0
    assert applied.landmarks_px[known] == pytest.approx(points.landmarks_px[known], abs=1e-3)
    assert from_hips(applied.world_m)[known] == pytest.approx(
        from_hips(points.world_m)[known], abs=1e-5
    )
    assert applied.world_sigma_m > points.world_sigma_m
    assert (applied.visibility[~correction.known] == 0).all()
    assert not correction.known[~known].any()


def test_a_correction_is_carried_to_the_window_and_to_those_without_one():
    for k, (person, ghost) in enumerate(perceived(SOME[2], carried=True)):
        assert person.world_sigma_m is not None
        assert person.keypoints is (MHR_70 if SOME[2].has(k) else BLAZEPOSE_33)
        assert ghost.world_sigma_m is None


def test_the_figures_between_key_frames_leave_the_key_frames_out():
    random = np.random.default_rng(1)
    landmarks_m, joints_m = random.normal(size=(33, 3)), random.normal(size=(24, 3))
    off = landmarks_m.copy()
    off[11:] += (0.012, 0, 0)
    off[[23, 24]] = landmarks_m[[23, 24]]
    figures = KeyFrameFigures()
    figures.add(
        [
            PersonFrame(
                k, landmarks_m, landmarks_m, landmarks_m if k % 4 == 2 else off, joints_m,
                joints_m + (0, 0.02, 0), 0.03, np.zeros(10),
            )
            for k in range(20)
        ],
        30.0,
    )  # fmt: skip
    # Ten of the twelve limbs are off, in three of four frames.
    assert figures.table_row("some").startswith("| some | 7.5 | 10.0 | 20.0 | 30.0 |")
