"""World landmarks whose error is stated: metric, in the camera's axes, and trusted so far."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.rotations import exp_so3
from pipeline.core.people import Person
from pipeline.fitting.fitter import BodyFitter, FitMemory
from pipeline.fitting.initialise import sized_by_depth
from pipeline.fitting.lifter import LandmarkHistory, Lifter, lift
from pipeline.fitting.observations import observe
from pipeline.fitting.solver import FitConfig
from tests.support.fits import K, farthest_mm, seen_as_people, some_pose, windows_of_people

CPU = torch.device("cpu")
SEEDS = st.integers(0, 10_000)


@pytest.fixture(scope="module")
def fitter(body):
    # Without masks, which these people do not have: a fifth of the work.
    return BodyFitter(body, FitConfig(use_mask=False))


def still_people(body, seed, sigma_m, betas=None, place=(0.3, 0.1, 4.5), turn=None):
    """Four frames of a random pose, perceived without error; their landmarks (33, 3) in metres."""
    generator = torch.Generator().manual_seed(seed)
    rotations = some_pose(generator, 1, 0.2)
    betas = 0.7 * torch.randn(1, 10, generator=generator) if betas is None else betas
    transl = torch.tensor([place])
    people, out = seen_as_people(body, rotations, transl, betas)
    landmarks_m = out.landmarks_m[0].numpy()
    if turn is not None:
        landmarks_m = landmarks_m @ turn.T
        people = [replace(people[0], landmarks_px=_pixels(landmarks_m))]
    return [as_metric(people[0], landmarks_m, sigma_m)] * 4, landmarks_m


def _pixels(points_m):
    return (points_m @ K.T)[:, :2].astype(np.float32) / points_m[:, 2:].astype(np.float32)


def as_metric(person: Person, landmarks_m: np.ndarray, sigma_m: float) -> Person:
    centred = landmarks_m - 0.5 * (landmarks_m[23] + landmarks_m[24])
    return replace(person, world_m=centred.astype(np.float32), world_sigma_m=sigma_m)


def fitted(fitter, people, windows=2):
    memory = FitMemory()
    for _ in range(windows):
        bodies = fitter.fit([{1: person} for person in people], K, memory)[-1]
    return bodies


def about_hips(landmarks_m):
    return landmarks_m - 0.5 * (landmarks_m[23] + landmarks_m[24])


def off_mm(bodies, landmarks_m):
    off = about_hips(bodies.landmarks_m[0]) - about_hips(landmarks_m)
    return 1e3 * np.linalg.norm(off, axis=-1).mean()


@settings(deadline=None, max_examples=4)
@given(SEEDS)
def test_true_joints_come_back(body, fitter, seed):
    people, landmarks_m = still_people(body, seed, 0.001)
    assert off_mm(fitted(fitter, people), landmarks_m) < 12


@settings(deadline=None, max_examples=3)
@given(SEEDS, st.sampled_from([-2.5, 2.5]))
def test_metric_joints_tell_a_persons_size(body, fitter, seed, build):
    """BlazePose's landmarks do not show it: they have one size for all people."""
    betas = torch.tensor([[build] + [0.0] * 9])
    people, landmarks_m = still_people(body, seed, 0.001, betas)

    def legs_m(points):
        return np.linalg.norm(points[[25, 26, 27, 28]] - points[[23, 24, 25, 26]], axis=-1).sum()

    got, mean = fitted(fitter, people).landmarks_m[0], legs_m(fitter.skeleton.rest[..., 0].numpy())
    assert abs(legs_m(landmarks_m) - mean) > 0.15
    assert legs_m(got) == pytest.approx(legs_m(landmarks_m), rel=0.03)


@settings(deadline=None, max_examples=2)
@given(SEEDS, st.floats(-0.35, 0.35))
def test_a_scene_turned_about_the_camera_gives_turned_bodies(body, fitter, seed, angle):
    turn = exp_so3(torch.tensor([[0.0, angle, 0.0]]))[0].numpy()
    straight, _ = still_people(body, seed, 0.005, place=(0.0, 0.0, 4.5))
    turned, _ = still_people(body, seed, 0.005, place=(0.0, 0.0, 4.5), turn=turn)
    one, other = (fitted(fitter, people).joints_m[0] for people in (straight, turned))
    off_m = np.linalg.norm((one - one[:1]) @ turn.T - (other - other[:1]), axis=-1)
    assert off_m.max() < 0.02


def test_a_row_holds_them_in_the_ray_frame(body):
    people, landmarks_m = still_people(body, 1, 0.02, place=(1.5, -0.5, 4.0))
    observed = observe([people], K, CPU)
    in_camera = observed.world_m[0, 0] @ observed.view[0, 0].T
    assert np.allclose(in_camera.numpy(), about_hips(landmarks_m), atol=1e-5)
    assert not np.allclose(observed.view[0, 0].numpy(), np.eye(3), atol=0.1)
    assert torch.equal(observed.world_sigma_m, torch.full((1, 4), 0.02))


@given(st.floats(0, 0.5))
def test_their_deviation_is_the_stated_one_and_the_models(body_seen, sigma_m):
    config = FitConfig()
    people = [replace(body_seen, world_sigma_m=sigma_m)]
    observed = observe([people], K, CPU, config)
    total_m = np.hypot(max(sigma_m, 1e-4), config.model_sigma_m)
    assert np.allclose(observed.world_spread_m.numpy(), total_m, rtol=1e-4)
    # The person is 4.5 m away, give or take its own depth.
    assert float(observed.image_spread) == pytest.approx(total_m / 4.5, rel=0.15)


@pytest.fixture(scope="module")
def body_seen(body):
    return still_people(body, 2, 0.01, place=(0.0, 0.0, 4.5))[0][0]


def test_without_a_stated_error_all_is_as_configured(body, body_seen):
    config = FitConfig()
    observed = observe([[replace(body_seen, world_sigma_m=None)]], K, CPU, config)
    across, _, along = observed.world_spread_m[0, 0, 0].tolist()
    assert (across, along) == pytest.approx((config.world_sigma_m, config.world_depth_sigma_m))
    assert torch.equal(observed.image_spread, config.image_sigma * observed.size)
    windows = windows_of_people(body, 2)
    results = []
    for model_sigma_m in (0.02, 0.5):
        other = BodyFitter(body, FitConfig(model_sigma_m=model_sigma_m))
        memory = FitMemory()
        results.append([other.fit(window, K, memory)[-1].vertices_m for window in windows])
    assert np.array_equal(*results)


def test_the_lifter_leaves_them_and_corrects_others(body):
    people, _ = still_people(body, 3, 0.02)
    people = [replace(person, visibility=person.visibility * 0.5) for person in people]
    observed = observe([people, [replace(p, world_sigma_m=None) for p in people]], K, CPU)
    history = LandmarkHistory.none(2, CPU).then(LandmarkHistory.of(observed))
    lifted = lift(Lifter.load(), observed, history, torch.ones(2))
    for name in ("world_m", "world_spread_m", "world_weight"):
        before, after = getattr(observed, name), getattr(lifted, name)
        assert torch.equal(before[0], after[0]), name
        assert not torch.equal(before[1], after[1]), name


def test_a_depth_map_sizes_only_what_is_not_metric(body):
    people, _ = still_people(body, 4, 0.02)
    far = [replace(person, root_depth_m=5.5) for person in people]
    observed = observe([far, [replace(p, world_sigma_m=None) for p in far]], K, CPU)
    sized = sized_by_depth(observed).world_m
    assert torch.equal(sized[0], observed.world_m[0])
    assert float((sized[1] / observed.world_m[1]).median()) > 1.1


def test_a_stated_error_beside_none_in_a_batch(body, fitter):
    (window,) = windows_of_people(body, 1)
    plain = [{1: replace(frame[1], mask=None)} for frame in window]
    metric, _ = still_people(body, 5, 0.02)
    both = fitter.fit([{**frame, 2: one} for frame, one in zip(plain, metric)], K, FitMemory())
    alone = fitter.fit(plain, K, FitMemory()), fitted(fitter, metric, 1)
    first = [replace_rows(bodies, 0) for bodies in both]
    assert farthest_mm([first], [alone[0]]) < 0.5
    assert np.abs(both[-1].vertices_m[1] - alone[1].vertices_m[0]).max() < 5e-4


def replace_rows(bodies, row):
    values = {name: getattr(bodies, name) for name in bodies.__dataclass_fields__}
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    return replace(bodies, **{name: array[row : row + 1] for name, array in arrays.items()})


@settings(deadline=None, max_examples=2)
@given(SEEDS)
def test_a_small_error_pulls_harder(body, fitter, seed):
    """A wrist that is six centimetres off in space and not in the picture."""
    left = []
    for sigma_m in (0.005, 0.3):
        people, _ = still_people(body, seed, sigma_m)
        moved = people[0].world_m.copy()
        moved[[15, 17, 19, 21], 2] += 0.06
        bodies = fitted(fitter, [replace(people[0], world_m=moved)] * 4)
        left.append(float(np.linalg.norm(about_hips(bodies.landmarks_m[0])[19] - moved[19])))
    assert left[0] < 0.02
    assert left[0] < left[1]


@pytest.mark.parametrize("first", [0.02, None])
def test_a_track_may_change_between_the_kinds(body, fitter, first):
    """The landmarks that are remembered are of one kind, so the lifter reads on."""
    metric, landmarks_m = still_people(body, 6, 0.02, torch.zeros(1, 10), (0.8, 0.2, 4.5))
    generator = torch.Generator().manual_seed(6)
    plain, _ = seen_as_people(
        body, some_pose(generator, 1, 0.2), torch.tensor([[0.8, 0.2, 4.5]]), torch.zeros(1, 10)
    )
    kinds = [metric, plain * 4] if first else [plain * 4, metric]
    memory = FitMemory()
    for people in (*kinds, *kinds):
        bodies = fitter.fit([{1: person} for person in people], K, memory)[-1]
        assert bodies.finite
        assert off_mm(bodies, landmarks_m) < 60
