"""The sample renderer, imported as its command line runs it."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.support.paths import SAMPLES


@pytest.fixture(scope="session")
def maker():
    pytest.importorskip("anny")
    pytest.importorskip("numba")
    spec = importlib.util.spec_from_file_location("make_pitch", SAMPLES / "make_pitch.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_pitch"] = module
    spec.loader.exec_module(module)
    return module
