"""The lifter over a track: against a loop over contexts, and laws of mirrors and of time."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.fitting.lift_track import lift_track
from pipeline.fitting.lifter import (
    CONTEXT,
    MIRRORED,
    PERCEIVED_SHARE,
    LandmarkHistory,
    Lifter,
    from_hips,
)
from pipeline.fitting.solver import Observations
from tests.support.fits import random_problem

SEEDS = st.integers(0, 10_000)
FLIP = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def lifter():
    return Lifter.load()


def a_track(seed, frames, absent=()):
    """The observations of one person in some frames, and their landmarks as the lifter reads
    them."""
    generator = torch.Generator().manual_seed(seed)

    def smooth(*shape):
        steps = torch.randn(frames, *shape, generator=generator).cumsum(0) / 8
        return (steps + torch.randn(1, *shape, generator=generator))[None]

    present = torch.ones(1, frames)
    present[:, list(absent)] = 0.0
    known = present[..., None, None]
    one, _, _ = random_problem(seed, 1, 1)
    spread = {
        f.name: getattr(one, f.name).expand(1, frames, *getattr(one, f.name).shape[2:])
        for f in fields(one)
    }
    observed = Observations(**spread)
    observed = replace(
        observed,
        world_m=0.2 * smooth(33, 3) * known,
        visible=smooth(33).sigmoid() * known[..., 0],
        present=present,
        world_known=present,
    )
    history = LandmarkHistory(0.1 * smooth(33, 2) * known, observed.visible, observed.world_m,
                              present)  # fmt: skip
    return observed, history


def turned_back(value):
    """Observations or histories with time reversed."""
    return replace(value, **{f.name: getattr(value, f.name).flip(1) for f in fields(value)})


def one_way(lifter, history, interval):
    """Each frame's mean over the contexts that have it among their last four, one by one."""
    frames, none = history.known.shape[1], LandmarkHistory.none(1, torch.device("cpu"))
    found = [[] for _ in range(frames)]
    for end in range(frames):
        upto = LandmarkHistory(*(getattr(history, f.name)[:, : end + 1] for f in fields(history)))
        lifted, spread = lifter(none.then(upto), interval, 4)
        for k in range(4):
            if end - 3 + k >= 0:
                found[end - 3 + k].append((lifted[0, k], spread[0, k]))
    return [torch.stack([sum(x) / len(x) for x in column]) for column in
            zip(*(zip(*each) for each in found))]  # fmt: skip


def reference(lifter, observed, history, interval):
    """World landmarks (T, 33, 3) and spreads (T, 33, 2), slow and obvious."""
    ahead = one_way(lifter, history, interval)
    back = [part.flip(0) for part in one_way(lifter, turned_back(history), interval)]
    lifted, spread = (0.5 * (a + b) for a, b in zip(ahead, back))
    perceived = from_hips(observed.world_m[0])
    return (1 - PERCEIVED_SHARE) * lifted + PERCEIVED_SHARE * perceived, spread


def assert_same(some, others, atol=2e-5):
    for f in fields(some):
        torch.testing.assert_close(
            getattr(some, f.name), getattr(others, f.name), atol=atol, rtol=0, msg=f.name
        )


@settings(max_examples=12)
@example(seed=0, frames=1, interval=1.0)
@example(seed=0, frames=2, interval=1.0)
@example(seed=0, frames=3, interval=1.0)
@given(seed=SEEDS, frames=st.integers(1, 40), interval=st.sampled_from([0.5, 1.0, 1.2]))
def test_a_track_is_lifted_as_context_by_context(lifter, seed, frames, interval):
    absent = [k for k in (seed % 37,) if 0 < k < frames - 1]
    observed, history = a_track(seed, frames, absent)
    at = torch.tensor([interval])
    found = lift_track(lifter, observed, history, at)
    lifted, spread = reference(lifter, observed, history, at)
    seen = observed.present[0] > 0
    torch.testing.assert_close(found.world_m[0][seen], lifted[seen], atol=2e-5, rtol=0)
    across, along = spread.unbind(-1)
    wanted = torch.stack((across, across, along), -1)
    torch.testing.assert_close(found.world_spread_m[0][seen], wanted[seen], atol=2e-5, rtol=0)


def test_more_frames_than_are_read_at_once(lifter):
    observed, history = a_track(9, 150, [70])
    found = lift_track(lifter, observed, history, torch.ones(1))
    lifted, _ = reference(lifter, observed, history, torch.ones(1))
    seen = observed.present[0] > 0
    torch.testing.assert_close(found.world_m[0][seen], lifted[seen], atol=2e-5, rtol=0)


@settings(max_examples=8)
@given(seed=SEEDS, frames=st.integers(1, 40))
def test_time_reversed_the_answer_is_reversed(lifter, seed, frames):
    observed, history = a_track(seed, frames)
    found = lift_track(lifter, observed, history, torch.ones(1))
    back = lift_track(lifter, turned_back(observed), turned_back(history), torch.ones(1))
    assert_same(turned_back(back), found)


@settings(max_examples=8)
@given(seed=SEEDS, frames=st.integers(1, 40))
def test_a_mirrored_person_has_a_mirrored_answer(lifter, seed, frames):
    observed, history = a_track(seed, frames)
    world_m, visible = observed.world_m[:, :, MIRRORED] * FLIP, observed.visible[:, :, MIRRORED]
    other = LandmarkHistory(
        history.rays[:, :, MIRRORED] * FLIP[:2], visible, world_m, history.known
    )
    found = lift_track(lifter, observed, history, torch.ones(1))
    mirrored = lift_track(
        lifter, replace(observed, world_m=world_m, visible=visible), other, torch.ones(1)
    )
    for name, flip in (("world_m", FLIP), ("world_spread_m", FLIP.abs()), ("world_weight", 1.0)):
        value = getattr(mirrored, name)[:, :, MIRRORED] * flip
        torch.testing.assert_close(value, getattr(found, name), atol=2e-5, rtol=0)


@settings(max_examples=8)
@given(seed=SEEDS, frames=st.integers(3, 40), gap=st.integers(1, 30))
def test_a_gap_has_no_weight_and_what_it_holds_does_not_matter(lifter, seed, frames, gap):
    """At high frame rates a gap of half a second is longer than a context."""
    absent = range(1, min(1 + gap, frames - 1))
    observed, history = a_track(seed, frames, absent)
    found = lift_track(lifter, observed, history, torch.ones(1))
    for f in fields(found):
        assert getattr(found, f.name).isfinite().all(), f.name
    assert not found.world_weight[:, list(absent)].any()
    filled = LandmarkHistory(*(getattr(history, f.name).clone() for f in fields(history)))
    for part in (filled.rays, filled.visible, filled.world_m):
        part[:, list(absent)] = 0.7
    other = lift_track(lifter, observed, filled, torch.ones(1))
    seen = observed.present[0] > 0
    torch.testing.assert_close(other.world_m[0][seen], found.world_m[0][seen], atol=2e-5, rtol=0)


def test_frames_beyond_a_context_do_not_reach(lifter):
    """A frame reads fifteen frames each way and the three that share its contexts."""
    observed, history = a_track(5, 60)
    found = lift_track(lifter, observed, history, torch.ones(1))
    changed = LandmarkHistory(*(getattr(history, f.name).clone() for f in fields(history)))
    changed.world_m[:, 50:] += 0.3
    other = lift_track(lifter, observed, changed, torch.ones(1))
    apart = (other.world_m - found.world_m).abs().amax((0, 2, 3))
    assert float(apart[: 51 - CONTEXT].max()) == 0.0
    assert float(apart[45:50].min()) > 0.0


def test_landmarks_that_are_metric_or_flat_stay(lifter):
    observed, history = a_track(6, 20)
    metric = replace(observed, world_sigma_m=torch.full((1, 20), 0.02))
    flat = replace(observed, world_known=torch.zeros(1, 20))
    for kept in (metric, flat):
        found = lift_track(lifter, kept, history, torch.ones(1))
        assert torch.equal(found.world_m, kept.world_m)
    assert not found.world_weight.any()
