"""What the tests of the fit share."""

from __future__ import annotations

import pytest

from pipeline.body.load import load_body
from pipeline.body.model import BodyModel


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return load_body()
