"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(ready: Callable[[], bool], limit_s: float = 10.0, every_s: float = 0.02) -> None:
    """Return once ``ready()`` is true, looking every ``every_s``; fail after ``limit_s``."""
    end_s = time.monotonic() + limit_s
    while not ready():
        assert time.monotonic() < end_s
        time.sleep(every_s)
