"""What the tests of BlazePose share."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.weights import store as weights


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    """The weight files by name; skips the test where they are not installed."""
    try:
        return weights.find("blazepose")
    except weights.WeightsError as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.fixture(scope="module")
def person_detector_file() -> Path:
    """The second detector's file; skips the test where it is not installed."""
    try:
        (path,) = weights.find("person-detector").values()
    except weights.WeightsError as error:
        pytest.skip(str(error).splitlines()[0])
    return path
