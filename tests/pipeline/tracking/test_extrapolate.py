"""Predicted bodies: laws of the damped trend, and which people are predicted when."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.body.load import load_body
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.fitting.fitter import BodyFitter
from pipeline.tracking.extrapolate import BASE_S, LONGEST_S, PLACE_S, TURN_S, Predictor

K = np.array([[1000.0, 0, 320], [0, 1000.0, 240], [0, 0, 1]])
IMAGE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def no_bodies(body):
    return BodyFitter(body).no_bodies()


def frame(number: int, pts_s: float, broken: bool = False) -> Frame:
    return Frame(number, "x", 0, pts_s, IMAGE, broken)


def posed(body, pose: np.ndarray, transl: np.ndarray, tracks=(1,)) -> Bodies:
    """Bodies of poses (P, 24, 3) at places (P, 3)."""
    import torch

    arrays = [np.zeros((len(pose), 10)), pose[:, 0], pose[:, 1:].reshape(len(pose), 69), transl]
    betas, orient, rest, place = (torch.tensor(each, dtype=torch.float32) for each in arrays)
    out = body.forward(betas, orient, rest, place)
    return Bodies(
        np.array(tracks), np.full(len(pose), 0.9, np.float32), orient.numpy(), rest.numpy(),
        betas.numpy(), place.numpy(), out.joints_m.numpy(), out.landmarks_m.numpy(),
        out.vertices_m.numpy(), np.full((len(pose), 24), 0.7, np.float32),
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), ahead_s=st.floats(0.0, 0.4), span_s=st.floats(0.02, 0.12))
def test_rotations_go_on_and_die_away(body, no_bodies, seed, ahead_s, span_s):
    """Against scipy: R exp(w T (1 - exp(-t / T))), w the body's angular velocity."""
    random = np.random.default_rng(seed)
    old = random.normal(0, 0.6, (1, 24, 3))
    change = random.normal(0, 0.2, (24, 3))
    new = (Rotation.from_rotvec(old[0]) * Rotation.from_rotvec(change)).as_rotvec()[None]
    place = np.array([[0.3, 0.2, 4.0]])
    predictor = Predictor(body, no_bodies)
    predictor.observe(frame(0, 0.0), posed(body, old, place), K)
    predictor.observe(frame(1, span_s), posed(body, new, place), K)
    got = predictor.predict(frame(2, span_s + ahead_s))
    share = TURN_S * (1 - np.exp(-ahead_s / TURN_S)) / span_s
    want = Rotation.from_rotvec(new[0]) * Rotation.from_rotvec(share * change)
    pose = np.concatenate([got.global_orient, got.body_pose], 1).reshape(24, 3)
    angle = (want.inv() * Rotation.from_rotvec(pose)).magnitude()
    assert angle.max() < 2e-3
    assert np.ptp(got.vertices_m[0], axis=0).max() > 0.5


@settings(max_examples=25, deadline=None)
@given(
    ray=st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)),
    speed=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    ahead_s=st.floats(0.0, 0.4),
)
def test_places_go_on_across_the_view_and_hold_their_distance(body, no_bodies, ray, speed, ahead_s):
    still, depths = np.zeros((1, 24, 3)), (3.0, 3.4)
    pelvis = posed(body, still, np.zeros((1, 3))).joints_m[0, 0]
    predictor = Predictor(body, no_bodies)
    for k, depth in enumerate(depths):
        at = np.array([*(np.array(ray) + k * BASE_S * np.array(speed)), 1.0]) * depth
        predictor.observe(frame(k, k * BASE_S), posed(body, still, at[None] - pelvis), K)
    got = predictor.predict(frame(2, BASE_S + ahead_s)).joints_m[0, 0]
    gone = PLACE_S * (1 - np.exp(-ahead_s / PLACE_S))
    want = np.array(ray) + (BASE_S + gone) * np.array(speed)
    np.testing.assert_allclose(got[:2] / got[2], want, atol=1e-5)
    assert got[2] == pytest.approx(depths[-1], abs=1e-5)


def test_a_still_body_stays_and_one_fit_is_enough(body, no_bodies):
    pose, place = np.full((1, 24, 3), 0.1), np.array([[0, 0, 3.0]])
    predictor = Predictor(body, no_bodies)
    assert len(predictor.predict(frame(0, 0.0))) == 0
    fit = posed(body, pose, place)
    for number in range(3):
        predictor.observe(frame(number, number / 30), fit, K)
        got = predictor.predict(frame(number + 5, (number + 5) / 30))
        np.testing.assert_allclose(got.vertices_m, fit.vertices_m, atol=1e-5)
        assert got.track.tolist() == [1]
        assert got.score.tolist() == fit.score.tolist()


def test_only_people_of_the_last_fit_are_predicted_and_not_for_long(body, no_bodies):
    two = posed(body, np.zeros((2, 24, 3)), np.array([[0, 0, 3.0], [1, 0, 3.0]]), (4, 7))
    one = posed(body, np.zeros((1, 24, 3)), np.array([[1, 0, 3.0]]), (7,))
    predictor = Predictor(body, no_bodies)
    predictor.observe(frame(0, 0.0), two, K)
    assert predictor.predict(frame(1, 0.1)).track.tolist() == [4, 7]
    predictor.observe(frame(1, 0.1), one, K)
    assert predictor.predict(frame(2, 0.2)).track.tolist() == [7]
    assert len(predictor.predict(frame(3, 0.1 + LONGEST_S + 0.01))) == 0


def test_no_body_is_carried_over_a_discontinuity(body, no_bodies):
    fit = posed(body, np.zeros((1, 24, 3)), np.array([[0, 0, 3.0]]))
    predictor = Predictor(body, no_bodies)
    predictor.observe(frame(8, 0.3), fit, K)
    assert len(predictor.predict(frame(9, 0.33))) == 1
    assert len(predictor.predict(frame(10, 0.37, broken=True))) == 0
    predictor.observe(frame(9, 0.33), fit, K)  # late, from before
    assert len(predictor.predict(frame(11, 0.4))) == 0
    predictor.observe(frame(10, 0.37), fit, K)
    assert len(predictor.predict(frame(12, 0.43))) == 1


def test_the_error_is_that_of_the_predictions(body, no_bodies):
    fit = posed(body, np.zeros((1, 24, 3)), np.array([[0, 0, 4.0]]))
    predictor = Predictor(body, no_bodies)
    assert predictor.error() is None
    predictor.observe(frame(0, 0.0), fit, K)
    predictor.predict(frame(1, 0.05))
    predictor.predict(frame(2, 0.1))
    predictor.observe(frame(1, 0.05), fit, K)
    error = predictor.error()
    assert error.count == 1
    assert error.p50_px < 1e-3
    assert error.ahead_p50_ms == pytest.approx(50.0)
    # Ten centimetres aside at about four metres, a thousand pixels of focal length.
    aside = posed(body, np.zeros((1, 24, 3)), np.array([[0.1, 0, 4.0]]))
    predictor.observe(frame(2, 0.1), aside, K)
    error = predictor.error()
    assert error.count == 2
    assert error.p50_px == pytest.approx(25.0 / 2, rel=0.05)
    predictor.observe(frame(3, 0.15), aside, K)  # never predicted
    assert predictor.error().count == 2


def test_predictions_are_not_kept_for_ever(body, no_bodies):
    fit = posed(body, np.zeros((1, 24, 3)), np.array([[0, 0, 4.0]]))
    predictor = Predictor(body, no_bodies)
    predictor.observe(frame(0, 0.0), fit, K)
    for number in range(1, 400):
        predictor.predict(frame(number, number / 1000))
    assert len(predictor._predicted) <= 64
