"""What the tests of `serve` share."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
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


@pytest.fixture(params=["here", "cluster"])
def serve_anywhere(request, serve, tmp_path) -> Iterator[Callable[..., Served]]:
    """Starts served hubs, in this process or in a cluster of two workers, and ends them."""
    if request.param == "here":
        yield serve
        return
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs ray")
    from tests.support.cluster import clustered, spec_of
    from tests.support.serving import served

    with contextlib.ExitStack() as stack:

        def start(token: str | None = None) -> Served:
            hub = stack.enter_context(clustered(spec_of(tmp_path)))
            return stack.enter_context(served(hub, tmp_path / "recordings", token))

        yield start


@pytest.fixture
def three_unfollowed(nobody, monkeypatch) -> None:
    """Every window shows three people who are not followed."""
    plain = nobody.perceive

    def perceive(windows, states):
        return [replace(detected, unfollowed=3) for detected in plain(windows, states)]

    monkeypatch.setattr(nobody, "perceive", perceive)
