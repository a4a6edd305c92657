"""The calibration benchmark's own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.calibration import best_curve, calibration
from pipeline.fitting.visibility import CALIBRATION


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.floats(0.0, 0.2))
def test_the_error_is_how_much_more_is_promised_than_kept(seed, boast):
    rng = np.random.default_rng(seed)
    kept_share = rng.uniform(0, 0.8, 20_000)
    kept = (rng.uniform(size=20_000) < kept_share).astype(float)
    error, rows = calibration(kept_share + boast, kept)
    assert error == pytest.approx(boast, abs=0.03)
    assert sum(count for count, _, _ in rows) == 20_000


def test_the_best_curve_is_the_one_that_made_the_data():
    rng = np.random.default_rng(0)
    seen = rng.uniform(0, 1, 50_000)
    right = rng.uniform(size=50_000) < np.interp(seen, *CALIBRATION)
    assert best_curve(seen, right.astype(float)) == pytest.approx(CALIBRATION[1], abs=0.03)
