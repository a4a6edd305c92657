"""Loops that numba compiles: all are there before the first frame."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from numba.core.caching import FunctionCache

import numba_loops as module
from numba_loops import compile_ahead, compiled
from pipeline.runtime.make import make_estimator
from tests.support.paths import ROOT, SAMPLE
from tests.support.windows import frames_of, windows_of


@pytest.fixture
def ahead(monkeypatch):
    loops = []
    monkeypatch.setattr(module, "_AHEAD", loops)
    return loops


def test_a_loop_is_compiled_for_its_types_alone_and_does_what_the_function_does(ahead):
    @compiled("f8(f4[::1], i8)")
    def scaled(values, by):
        total = 0.0
        for value in values:
            total += value / by
        return total

    assert not scaled.signatures
    compile_ahead()
    assert len(scaled.signatures) == 1
    assert scaled(np.arange(4, dtype=np.float32), 2) == 3.0
    # As numpy's arrays, and unlike Python's numbers.
    assert scaled(np.ones(1, np.float32), 0) == np.inf
    assert len(scaled.signatures) == 1


def test_a_loop_without_types_waits_for_its_first_call(ahead):
    @compiled()
    def double(value):
        return 2 * value

    compile_ahead()
    assert not double.signatures
    assert double(3) == 6


@pytest.mark.weights
def test_nothing_is_compiled_while_a_clip_runs():
    """A live picture would stop for half a second."""
    estimator = make_estimator(people=2, device="cpu")
    loops = [loop for loop, _ in module._AHEAD]
    before = {loop.py_func.__name__: set(loop.signatures) for loop in loops}
    assert len(before) >= 8
    assert all(before.values())
    state = estimator.begin()
    for window in windows_of(frames_of(SAMPLE, 24)):
        estimator.fit(estimator.perceive([window], [state]), [state])
    estimator.close()
    assert {loop.py_func.__name__: set(loop.signatures) for loop in loops} == before


@pytest.mark.parametrize("fails", ["_save_overload", "_load_overload"])
def test_a_cache_whose_disk_fails_costs_time_only(tmp_path, monkeypatch, fails):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(FunctionCache, fails, full)

    @compiled()
    def twice(x):
        return 2 * x

    assert isinstance(twice._cache, module._DiskCache)
    assert twice(21) == 42


MODULE = """
import numpy as np
from loop_helper import VALUES, half
from numba_loops import compiled

@compiled("f8(f8)")
def scaled(value):
    return half(value) + VALUES.sum()
"""
HELPER = """
import numpy as np
from numba_loops import compiled

VALUES = np.array([{0}.0])

@compiled()
def half(value):
    return value / {1}
"""


def test_compiled_code_that_is_kept_is_that_of_this_constant_and_this_helper(tmp_path):
    """Another version of the program may change what a loop calls, and not the loop's own file."""
    (tmp_path / "loop_user.py").write_text(MODULE)
    for values, by, from_disk in ((1, 2, 0), (1, 2, 1), (5, 2, 0), (5, 4, 0), (5, 4, 1)):
        (tmp_path / "loop_helper.py").write_text(HELPER.format(values, by))
        code = (
            "import loop_user as m; from numba_loops import compile_ahead;"
            "compile_ahead(); print(m.scaled(8.0), sum(m.scaled.stats.cache_hits.values()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        )  # fmt: skip
        answer, hits = done.stdout.split()
        assert (float(answer), int(hits)) == (8 / by + values, from_disk)
