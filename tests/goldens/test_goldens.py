"""A change of structure changes no number and no name."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.goldens import names
from tests.goldens.make import FIT, NAMES, fitted, windows_of

GOLDEN = json.loads(NAMES.read_text())


def test_the_fit_of_a_window_is_as_recorded():
    with np.load(FIT) as golden:
        joints = fitted(windows_of(dict(golden)))
        apart_mm = 1e3 * np.linalg.norm(joints - golden["joints_m"], axis=-1)
    assert apart_mm.max() < 0.05


@pytest.mark.parametrize("command", names.COMMANDS)
def test_no_flag_has_gone(command):
    assert set(GOLDEN["flags"][command]) <= set(names.flags(command))


def test_routes_are_as_recorded():
    pytest.importorskip("fastapi")
    assert names.routes() == GOLDEN["routes"]


def test_metrics_are_as_recorded():
    pytest.importorskip("prometheus_client")
    assert names.metrics() == GOLDEN["metrics"]


def test_columns_are_as_recorded():
    assert names.columns() == GOLDEN["columns"]
