"""The estimator's memory: people who come back keep their shape, and nothing grows without end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.body.load import load_body
from pipeline.core.camera import default_intrinsics
from pipeline.core.frame import Frame, Window
from pipeline.fitting.fitter import BodyFitter
from pipeline.perception.base import Perceiver
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from tests.support.fits import windows_of_people


class Scripted(Perceiver):
    """Finds the people that it is given, window by window."""

    def __init__(self, windows):
        self.windows = iter(windows)

    def decode(self, embedding, window):
        return next(self.windows), None


def fitted(estimator, state, number):
    """The bodies of the window that begins with this frame, at 30 frames a second."""
    frames = [Frame(k, "s", 0, k / 30, np.zeros((720, 1280, 3), np.uint8))
              for k in range(number, number + 4)]  # fmt: skip
    detected = estimator.perceive([Window(tuple(frames), 0, number == 0)], [state])
    return [bodies for _, bodies in estimator.fit(detected, [state])[0]]


def test_a_person_who_comes_back_keeps_the_shape_and_one_who_does_not_is_forgotten():
    body = load_body()
    there = [
        tuple(replace(person, roi=-1) for person in frame.values())
        for frame in windows_of_people(body, 1)[0]
    ]
    empty = [()] * 4
    estimator = KeypointEstimator(Scripted([*[there] * 8, empty, there, empty]), BodyFitter(body))
    state = estimator.begin()
    for window in range(8):
        before = fitted(estimator, state, 4 * window)[-1]
    fitted(estimator, state, 33)
    back = fitted(estimator, state, 90)[0]
    assert back.track.tolist() == before.track.tolist() == [1]
    np.testing.assert_allclose(back.betas, before.betas, atol=0.3)
    assert np.abs(back.vertices_m - before.vertices_m).max() < 0.1
    fitted(estimator, state, 600)
    assert not state.fits.tracks
    assert not state.tracker.tracks


def test_a_calibrated_camera_s_centre_moves_the_picture_and_not_the_bodies():
    body, shift = load_body(), np.array([37.0, -21.0], np.float32)
    lens = default_intrinsics(720, 1280)
    moved_lens = lens.copy()
    moved_lens[:2, 2] += shift
    people = windows_of_people(body, 1)[0]
    found = []
    for by, camera in ((np.float32([0, 0]), None), (shift, moved_lens)):
        window = tuple(
            [
                replace(
                    person,
                    roi=-1,
                    mask=None,
                    landmarks_px=person.landmarks_px + by,
                    box_px=person.box_px + np.tile(by, 2),
                )
                for person in frame.values()
            ]
            for frame in people
        )
        estimator = KeypointEstimator(Scripted([window]), BodyFitter(body), intrinsics=camera)
        found.append(fitted(estimator, estimator.begin(), 0)[-1])
    frame = Frame(0, "s", 0, 0.0, np.zeros((720, 1280, 3), np.uint8))
    assert estimator.intrinsics(frame) is moved_lens
    np.testing.assert_allclose(found[1].joints_m, found[0].joints_m, atol=2e-3)


def test_graphs_are_captured_for_the_skin_that_the_perceiver_brings():
    asked = []

    class Recorded(BodyFitter):
        def warm_up(self, people, *, surface=False, frames=4):
            asked.append((people, surface, frames))

        def warm_up_events(self, *, surface=False):
            asked.append(("events", surface, 4))

    fitter = Recorded(load_body())
    for has_skin in (False, True):
        perceiver = Scripted([])
        perceiver.has_skin = has_skin
        KeypointEstimator(perceiver, fitter).warm_up(2, events=True)
    assert asked == [(2, False, 4), ("events", False, 4), (2, True, 4), ("events", True, 4)]
    asked.clear()
    KeypointEstimator(perceiver, fitter).warm_up(2, low_latency=True)
    assert asked == [(2, True, 4), (2, True, 1)]
