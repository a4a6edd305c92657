"""Two passes as two estimators: the first changes nothing, the second gives back what was kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.body.load import load_body
from pipeline.core.frame import Frame, Window
from pipeline.core.stats import Stats
from pipeline.fitting.fitter import BodyFitter
from pipeline.fitting.solver import FitConfig
from pipeline.perception.base import Perceiver
from pipeline.runtime.estimator import DetectedWindow
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.runtime.refine import refine
from pipeline.runtime.track_store import TrackStore
from pipeline.runtime.two_passes import FirstPass, SecondPass
from pipeline.world.camera_pose import CameraPose
from tests.support.fits import windows_of_people

CAMERA = CameraPose(height_m=1.5, pitch_deg=3.0, roll_deg=0.0)
"""Given, so that parts of a clip are not joined by a floor that all of them show."""
PICTURE = np.zeros((720, 1280, 3), np.uint8)


@pytest.fixture(scope="module")
def fitter():
    # Without the lifter, which expects a perceiver's errors, not those of these people.
    return BodyFitter(load_body(), FitConfig(use_lifter=False))


class Scripted(Perceiver):
    """Finds the people that it is given, window by window."""

    def __init__(self, windows):
        self.windows = iter(windows)

    def decode(self, embedding, window):
        return next(self.windows), None


def seen(count, people=1, seed=3):
    """``count`` windows of people who move, with noise, as a perceiver reports them."""
    rng = np.random.default_rng(seed)
    out = []
    for number, window in enumerate(windows_of_people(load_body(), count, seed, people)):
        frames = []
        for k, frame in enumerate(window):
            by = np.float32([3 * (4 * number + k), 0])
            moved = [
                replace(
                    person,
                    roi=-1,
                    mask=None,
                    landmarks_px=person.landmarks_px
                    + by
                    + rng.normal(0, 2, (33, 2)).astype(np.float32),
                    box_px=person.box_px + np.tile(by, 2),
                )
                for person in frame.values()
            ]
            frames.append(moved)
        out.append(frames)
    return out


def windows_at(times, cuts=()):
    """Windows of four frames at these times; ``cuts`` are the windows that begin anew."""
    frames = [Frame(k, "clip", 0, float(t), PICTURE) for k, t in enumerate(times)]
    parts = [tuple(frames[k : k + 4]) for k in range(0, len(frames), 4)]
    return [Window(part, 0, k == 0 or k in cuts) for k, part in enumerate(parts)]


def passed(fitter, people, folder, times=None, cuts=(), store=None):
    """The first pass over windows of people: its bodies, its estimators and its store."""
    times = np.arange(4 * len(people)) / 30 if times is None else times
    estimator = KeypointEstimator(Scripted(people), fitter)
    store = store or TrackStore(folder)
    first = FirstPass(estimator, store)
    state, out = first.begin(), []
    for window in windows_at(times, cuts):
        out += first.fit(first.perceive([window], [state]), [state])[0]
    store.finish()
    return out, estimator, first, store


def second(estimator, store, frames):
    made, fitted = SecondPass(estimator, store), []
    for k in range(0, len(frames), 4):
        window = Window(tuple(frame for frame, _ in frames[k : k + 4]), 0, k == 0)
        (detected,) = made.perceive([window], [made.begin()])
        assert not any(detected.people)
        fitted += made.fit([detected], [None])[0]
    assert [frame for frame, _ in fitted] == [frame for frame, _ in frames]
    return [bodies for _, bodies in fitted]


def test_the_first_pass_gives_what_the_estimator_gives(fitter, tmp_path):
    people = seen(3, 2)
    kept, *_ = passed(fitter, people, tmp_path)
    estimator = KeypointEstimator(Scripted(people), fitter)
    state, plain = estimator.begin(), []
    for window in windows_at(np.arange(12) / 30):
        plain += estimator.fit(estimator.perceive([window], [state]), [state])[0]
    for (_, one), (_, other) in zip(kept, plain, strict=True):
        for name in ("track", "global_orient", "body_pose", "betas", "transl_m", "vertices_m"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_what_is_not_refined_is_the_first_pass_s_poses_in_the_track_s_shape(fitter, tmp_path):
    frames, estimator, _, store = passed(fitter, seen(3, 2), tmp_path)
    shapes = dict(zip(frames[-1][1].track.tolist(), frames[-1][1].betas))
    for (_, before), after in zip(frames, second(estimator, store, frames), strict=True):
        assert after.track.tolist() == before.track.tolist() == [1, 2]
        for name in ("body_pose", "global_orient", "transl_m"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        np.testing.assert_array_equal(after.betas, [shapes[t] for t in after.track.tolist()])
        values = (after.betas, after.global_orient, after.body_pose, after.transl_m)
        posed = fitter.body.forward(*(torch.from_numpy(value) for value in values))
        for name in ("joints_m", "landmarks_m", "vertices_m"):
            np.testing.assert_allclose(getattr(after, name), getattr(posed, name), atol=1e-5)
    # The frames of the last window had that shape already.
    last, again = frames[-1][1], second(estimator, store, frames[-1:])[0]
    np.testing.assert_allclose(again.vertices_m, last.vertices_m, atol=2e-4)
    np.testing.assert_allclose(again.joint_visibility, last.joint_visibility, atol=1e-3)
    store.close()


def test_a_refined_track_has_one_shape_and_less_jitter(fitter, tmp_path):
    frames, estimator, first, store = passed(fitter, seen(8, 2), tmp_path)
    stats, steps = Stats(), []
    ground = refine(store, estimator, first.interval_s, lambda *at: steps.append(at), stats, CAMERA)
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert stats.snapshot().stages_ms["refit"].count > 0
    assert ground.up_source == "given"
    after = second(estimator, store, frames)
    assert [b.track.tolist() for b in after] == [b.track.tolist() for _, b in frames]
    assert len(np.unique(np.concatenate([b.betas for b in after]), axis=0)) == 2

    def jitter(all_bodies):
        landmarks_m = np.array([bodies.landmarks_m for bodies in all_bodies])
        return float(np.linalg.norm(np.diff(landmarks_m, 2, axis=0), axis=-1).mean())

    assert jitter(after) < 0.5 * jitter([bodies for _, bodies in frames])
    for bodies in after:
        assert bodies.finite
        assert (bodies.score > 0.3).all()
    store.close()


def test_nothing_is_smoothed_over_a_cut(fitter, tmp_path):
    """A clip that is cut gives the bodies of its parts as if each were a clip."""
    parts = [seen(2, 1, 3), seen(3, 1, 8)]
    times = np.arange(20) / 30
    frames, estimator, first, store = passed(fitter, [*parts[0], *parts[1]], tmp_path, times, {2})
    refine(store, estimator, 1 / 30, pose=CAMERA)
    whole = second(estimator, store, frames)
    for part, people in zip((slice(0, 8), slice(8, 20)), parts):
        own, estimator, _, alone = passed(fitter, people, tmp_path, times[part])
        refine(alone, estimator, 1 / 30, pose=CAMERA)
        for one, other in zip(whole[part], second(estimator, alone, own), strict=True):
            np.testing.assert_allclose(one.landmarks_m, other.landmarks_m, atol=2e-4)
            np.testing.assert_allclose(one.betas, other.betas, atol=1e-3)
        alone.close()
    before, after = ({t for b in whole[p] for t in b.track.tolist()} for p in
                     (slice(0, 8), slice(8, 20)))  # fmt: skip
    assert not before & after
    store.close()


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_a_clip_of_a_few_frames_has_its_bodies(fitter, tmp_path, frames):
    people = seen(2)
    people = [people[0], people[1][: frames - 4]] if frames > 4 else [people[0][:frames]]
    found, estimator, first, store = passed(fitter, people, tmp_path, np.arange(frames) / 30)
    refine(store, estimator, first.interval_s)
    after = second(estimator, store, found)
    assert [b.track.tolist() for b in after] == [[1]] * frames
    assert all(b.finite for b in after)
    store.close()


def test_the_lifter_takes_tracks_of_any_length(tmp_path):
    lifting = BodyFitter(load_body())
    for frames in (1, 2, 3, 4):
        found, estimator, first, store = passed(
            lifting, [seen(1)[0][:frames]], tmp_path, np.arange(frames) / 30
        )
        refine(store, estimator, first.interval_s)
        assert all(b.finite for b in second(estimator, store, found))
        store.close()


def test_without_people_there_is_no_floor_and_no_body(fitter, tmp_path):
    frames, estimator, first, store = passed(fitter, [[[]] * 4] * 2, tmp_path)
    steps = []
    assert refine(store, estimator, first.interval_s, lambda *at: steps.append(at)) is None
    assert not steps
    for bodies in second(estimator, store, frames):
        assert len(bodies) == 0
        assert bodies.vertices_m.shape[1:] == (len(fitter.body.v_template), 3)
    store.close()


def test_frames_without_the_person_stay_without(fitter, tmp_path):
    people = seen(5)
    people[2] = [[]] * 4
    frames, estimator, first, store = passed(fitter, people, tmp_path)
    refine(store, estimator, first.interval_s, pose=CAMERA)
    after = second(estimator, store, frames)
    assert [len(b) for b in after] == [1] * 8 + [0] * 4 + [1] * 8
    assert len({t for b in after for t in b.track.tolist()}) == 1
    store.close()


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        (np.arange(8) / 24, 1 / 24),
        # As from a phone: the mean holds.
        (np.cumsum([0, 1, 2, 1, 3, 1, 2, 2]) / 60, 12 / 7 / 60),
        ([5.0], 1 / 30),
        ([2.0, 2.0, 2.0, 2.0], 1 / 30),
    ],
)
def test_the_interval_is_the_frames_mean(fitter, tmp_path, times, wanted):
    people = [[[]] * len(times[k : k + 4]) for k in range(0, len(times), 4)]
    _, _, first, store = passed(fitter, people, tmp_path, times)
    assert first.interval_s == pytest.approx(wanted)
    store.close()


def test_events_are_not_for_two_passes(fitter, tmp_path):
    _, estimator, _, store = passed(fitter, seen(1), tmp_path)
    made = SecondPass(estimator, store)
    made.warm_up(2)
    made.close()
    window = windows_at([0.0])[0]
    with pytest.raises(NotImplementedError, match="one pass"):
        made.fit_event(DetectedWindow(window, ({},)), [], 1, None)
    store.close()
