"""The lifter's laws: mirrors, unknown frames, batches; and that it reduces the error."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.fitting.lifter import CONTEXT, MIRRORED, LandmarkHistory, Lifter, _evened
from tests.support.paths import SAMPLES

FLIP = torch.tensor([-1.0, 1.0, 1.0])
LIMBS = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]


@pytest.fixture(scope="module")
def lifter():
    return Lifter.load()


def some_people(seed, people=2, frames=CONTEXT):
    draw = torch.Generator().manual_seed(seed)
    return LandmarkHistory(
        0.1 * torch.randn(people, frames, 33, 2, generator=draw),
        torch.rand(people, frames, 33, generator=draw),
        0.3 * torch.randn(people, frames, 33, 3, generator=draw),
        torch.ones(people, frames),
    )


def changed(history, **parts):
    return LandmarkHistory(
        **{f.name: parts.get(f.name, getattr(history, f.name)) for f in fields(history)}
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_mirrored_history_has_a_mirrored_answer(lifter, seed):
    history = some_people(seed)
    reflected = changed(
        history,
        rays=history.rays[:, :, MIRRORED] * FLIP[:2],
        visible=history.visible[:, :, MIRRORED],
        world_m=history.world_m[:, :, MIRRORED] * FLIP,
    )
    where, spread = lifter(history, torch.ones(2), 4)
    other, other_spread = lifter(reflected, torch.ones(2), 4)
    torch.testing.assert_close(other[:, :, MIRRORED] * FLIP, where, atol=1e-5, rtol=0)
    torch.testing.assert_close(other_spread[:, :, MIRRORED], spread, atol=1e-5, rtol=0)


def test_what_an_unknown_frame_holds_does_not_matter(lifter):
    history = some_people(4)
    known = history.known.clone()
    known[:, :7] = 0.0
    known[0, 13] = 0.0
    hidden = (known == 0)[..., None, None]
    filled = changed(
        history,
        known=known,
        rays=torch.where(hidden, 7.0, history.rays),
        world_m=torch.where(hidden, -3.0, history.world_m),
    )
    one = lifter(changed(history, known=known), torch.ones(2), 4)
    two = lifter(filled, torch.ones(2), 4)
    shown = known[:, -4:] > 0
    for before, after in zip(one, two):
        torch.testing.assert_close(before[shown], after[shown], atol=1e-5, rtol=0)


def test_other_people_change_nothing(lifter):
    history = some_people(5, people=5)
    together, _ = lifter(history, torch.ones(5), 4)
    for k in range(5):
        one = LandmarkHistory.stacked([history.person(k)])
        torch.testing.assert_close(lifter(one, torch.ones(1), 4)[0][0], together[k])


def test_a_shift_of_the_image_changes_nothing(lifter):
    history = some_people(6)
    where, spread = lifter(history, torch.ones(2), 4)
    assert where.shape == (2, 4, 33, 3)
    assert spread.shape == (2, 4, 33, 2)
    assert bool((spread > 0).all())
    hips = where[:, :, 23:25].mean(2)
    torch.testing.assert_close(hips, torch.zeros_like(hips), atol=1e-6, rtol=0)
    moved = changed(history, rays=history.rays + torch.tensor([0.3, -0.2]))
    torch.testing.assert_close(lifter(moved, torch.ones(2), 4)[0], where, atol=1e-5, rtol=0)


def test_a_history_keeps_the_last_frames():
    first, second = some_people(7), some_people(8, frames=4)
    both = first.then(second)
    assert both.known.shape == (2, CONTEXT)
    torch.testing.assert_close(both.world_m[:, -4:], second.world_m)
    torch.testing.assert_close(both.rays[:, :-4], first.rays[:, 4:])


@pytest.mark.slow
@pytest.mark.weights
def test_it_errs_less_than_the_perceiver_on_the_sample():
    from app.evaluate import evaluate

    report = evaluate(SAMPLES / "pitch.mp4", SAMPLES / "pitch_truth.npz")
    alone = evaluate(SAMPLES / "pitch.mp4", SAMPLES / "pitch_truth.npz", without=("lifter",))
    assert report.row("mpjpe_mm").ratio < 0.92
    assert report.row("mpjpe_mm").mesh < alone.row("mpjpe_mm").mesh
    assert np.isfinite(report.row("pa_mpjpe_mm").ratio)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_corrections_of_a_still_window_are_alike_and_of_a_moving_one_stay(seed):
    random = torch.Generator().manual_seed(seed)
    change = torch.randn(2, 4, 33, 3, generator=random)
    perceived = torch.randn(2, 1, 33, 3, generator=random).expand(2, 4, 33, 3).clone()
    perceived[1] += 0.05 * torch.arange(4.0)[:, None, None]
    still, moving = _evened(change, perceived)
    assert torch.allclose(still, change[0].mean(0, keepdim=True).expand_as(still), atol=1e-5)
    assert torch.allclose(moving, change[1])
