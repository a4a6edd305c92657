"""What the tests of `serve` share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.serving import NoPeople, Served

# tests.support.serving is imported late: it needs the extra "serve", and test_recorder.py does not.


@pytest.fixture(scope="module")
def nobody() -> NoPeople:
    from tests.support.serving import NoPeople

    return NoPeople()


@pytest.fixture
def serve(nobody, tmp_path) -> Iterator[Callable[..., Served]]:
    """Starts served hubs, with or without a token and a motion, and ends them."""
    from tests.support.serving import serving

    with contextlib.ExitStack() as stack:
        yield lambda token=None, motion=None: stack.enter_context(
            serving(nobody, tmp_path, token, motion)
        )
