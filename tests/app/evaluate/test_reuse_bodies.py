"""A key frame's body in its neighbours: which joints are prompted, the errors, the groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.evaluate import reuse_bodies
from app.evaluate.reuse_bodies import Neighbour, as_json, fastest, neighbours, put_in_place
from app.evaluate.truth import Truth
from pipeline.core.camera import project
from pipeline.core.skeleton import BLAZEPOSE_33, SMPL_24

LENS = np.array([[900.0, 0, 320], [0, 900.0, 240], [0, 0, 1]])
WRIST, HAND = SMPL_24.indices("left_wrist", "left_hand")
KNEE = SMPL_24.index("right_knee")
SPINE = SMPL_24.index("spine3")
WINDOW = range(4)


def some_truth(moves: np.ndarray) -> Truth:
    """A person in four frames: ``moves`` (4, 24, 3) are added to its joints. Landmarks are at the
    joints of their names, and elsewhere at the pelvis."""
    joints_m = np.random.default_rng(0).uniform(-0.8, 0.8, (24, 3)) + (0.3, 0, 4) + moves
    shared = [n for n in BLAZEPOSE_33.names if n in SMPL_24]
    landmarks_m = np.repeat(joints_m[:, :1], len(BLAZEPOSE_33), axis=1)
    landmarks_m[:, BLAZEPOSE_33.indices(*shared)] = joints_m[:, SMPL_24.indices(*shared)]
    return Truth(
        "made up", "render", np.arange(4), np.zeros(4, int), project(landmarks_m, LENS),
        np.ones((4, 33), bool), np.ones(4), np.ones(4, bool), intrinsics=LENS,
        landmarks_m=landmarks_m, joints_m=joints_m,
    )  # fmt: skip


def moved(joints: list[int], metres: float) -> np.ndarray:
    """Moves of joints upwards in the frame after the key frame."""
    moves = np.zeros((4, 24, 3))
    moves[3, joints, 1] = -metres
    return moves


def compared(truth: Truth, thrown: bool = False) -> list[Neighbour]:
    return list(neighbours(truth, WINDOW, 2, thrown=thrown))


@given(st.sets(st.integers(0, 21), max_size=4), st.integers(0, 99))
def test_chosen_joints_are_in_place_and_hands_follow(chosen, seed):
    before, after = np.random.default_rng(seed).normal(size=(2, 24, 3))
    placed = put_in_place(before, after, np.array(sorted(chosen), int))
    for joint in range(22):
        if SMPL_24.names[joint] not in ("left_foot", "right_foot"):
            wanted = after if joint in chosen else before
            assert np.allclose(placed[joint], wanted[joint])
    assert np.allclose(placed[HAND] - before[HAND], placed[WRIST] - before[WRIST])


@given(st.integers(0, 99))
def test_the_allowed_landmarks_that_moved_farthest_are_prompts(seed):
    random = np.random.default_rng(seed)
    moved_px, allowed = random.random(33), random.random(33) < random.random()
    chosen = fastest(moved_px, allowed).tolist()
    assert len(chosen) == min(4, allowed.sum())
    assert allowed[chosen].all()
    rest = set(np.flatnonzero(allowed)) - set(chosen)
    assert all(moved_px[chosen].min() >= moved_px[k] for k in rest)


def test_a_person_that_only_walks_costs_nothing():
    moves = np.zeros((4, 24, 3))
    moves[:, :, 0] = 0.1 * np.arange(4)[:, None]
    for one in compared(some_truth(moves)):
        assert np.allclose(one.errors_m, 0.0, atol=1e-9)
        assert one.motion > 0.01


def test_a_prompt_undoes_what_a_prompted_joint_moved_and_nothing_else():
    wrist = compared(some_truth(moved([WRIST, HAND], 0.12)))[-1]
    assert wrist.apart == 1
    assert wrist.errors_m.mean(1) == pytest.approx([0.12 * 2 / 24, 0.0, 0.0])
    # No landmark shows the spine.
    spine = compared(some_truth(moved([SPINE], 0.12)))[-1]
    assert spine.errors_m.mean(1) == pytest.approx([0.12 / 24] * 3)
    assert spine.motion == 0.0


def test_prompts_of_one_hand_leave_the_other_limbs_where_they_were():
    """A hand has four landmarks, and is faster than the rest."""
    truth = some_truth(moved([WRIST, HAND], 0.12) + moved([KNEE], 0.06))
    hand = BLAZEPOSE_33.indices("left_wrist", "left_pinky", "left_index", "left_thumb")
    truth.landmarks_px[3, hand] = truth.landmarks_px[2, hand] - (0, 50)
    (_, _, one) = compared(truth)
    assert one.errors_m[:, KNEE] == pytest.approx([0.06, 0.06, 0.0])
    assert one.errors_m[1:, WRIST] == pytest.approx(0.0)


def test_motion_is_the_fastest_visible_landmarks_in_parts_of_the_height():
    truth = some_truth(moved([WRIST, HAND], 0.12))
    place = BLAZEPOSE_33.index("left_wrist")
    steps = np.linalg.norm(truth.landmarks_px[3] - truth.landmarks_px[2], axis=1)
    height = np.ptp(truth.landmarks_px[3, :, 1])
    assert compared(truth)[-1].motion == pytest.approx(steps[place] / height)
    truth.visible[3, place] = False
    assert compared(truth)[-1].motion == 0.0


def test_neighbours_are_those_in_which_the_person_counts():
    truth = some_truth(np.zeros((4, 24, 3)))
    assert [one.apart for one in compared(truth)] == [2, 1, 1]
    truth.counted[0] = False
    assert [one.apart for one in compared(truth)] == [1, 1]
    assert not compared(replace(truth, person=np.array([1, 1, 0, 1])))


def test_every_neighbour_is_in_the_groups_it_belongs_to():
    errors_m = np.stack((np.full(24, 0.02), np.full(24, 0.01), np.zeros(24)))
    errors_m[0, WRIST] = 0.06
    found = [Neighbour(1, True, 0.015, errors_m), Neighbour(2, False, 0.5, 2 * errors_m)]
    rows = {(row["of"], row["way"]): row for row in as_json(found)}
    as_it_is, prompted, limbs = reuse_bodies.WAYS
    for heading, factor in {
        "one apart": 1, "two apart": 2, "about a release": 1,
        "0.01 to 0.02": 1, "0.08 to inf": 2, "below 0.03": 1,
    }.items():  # fmt: skip
        first = rows[heading, as_it_is]
        assert first["joints_mm"] == pytest.approx(factor * (20 + 40 / 24), abs=0.01)
        assert first["wrists_ankles_mm"] == pytest.approx(factor * 30)
        assert first["count"] == 1
        assert rows[heading, prompted]["joints_mm"] == pytest.approx(factor * 10)
        assert rows[heading, limbs]["joints_mm"] == 0
    assert ("0 to 0.01", as_it_is) not in rows


def test_a_truth_without_joints_is_refused():
    with pytest.raises(ValueError, match="made up has no joints"):
        compared(replace(some_truth(np.zeros((4, 24, 3))), joints_m=None))
