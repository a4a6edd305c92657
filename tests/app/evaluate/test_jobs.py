"""Work in several processes."""

from __future__ import annotations

import math

import pytest

from app.evaluate.jobs import run_jobs


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_work(jobs):
    assert run_jobs(math.sqrt, [9.0, 4.0, 1.0], jobs) == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_first_error_ends_the_work(jobs):
    with pytest.raises(ValueError, match="math domain|nonnegative"):
        run_jobs(math.sqrt, [1.0, -1.0, 4.0], jobs)
