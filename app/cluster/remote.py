"""Look at a cluster that serves from another process, drain a machine of it, or end it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from app.cluster import controller, ray_api
from app.cluster.ray_api import Gone, call, result
from app.cluster.table import Table
from app.config import ConfigError

_CALL_S = 20.0
_DRAIN_S = 60.0
"""How long a drain may go on without a source or a worker that leaves."""
_END_S = 60.0
"""The longest time that the controller takes to end all workers, with complete files."""


def end_cluster(handle: Any) -> None:
    """End a cluster by its controller: all sources, with complete files, and all workers."""
    with suppress(Gone):
        result(call(handle, "end"), _END_S)
    ray_api.kill(handle)


@contextmanager
def _serving(address: str) -> Iterator[Any]:
    """The controller of a cluster that serves, within a ``with`` block. Raises ConfigError."""
    with ray_api.connected(address, start=False):
        handle = ray_api.actor_named(controller.NAME)
        if handle is None:
            raise ConfigError("--cluster: nothing is served there")
        yield handle


def table_at(address: str) -> Table:
    """Return the sources and workers of a cluster that serves; see `ray_api.connected`.

    Raises:
        ConfigError: There is none at the address.
    """
    with _serving(address) as handle:
        found: Table = result(call(handle, "table"), _CALL_S)
        return found


def drain_at(address: str, node: str, on: bool, on_left: Callable[[int, int], None]) -> None:
    """Drain a machine of a cluster that serves, and wait until it has no worker any more.

    Args:
        address: As `ray_api.connected`.
        node: The beginning of the machine's id, or its name.
        on: Whether to drain it, or to let it have workers again.
        on_left: Called with the numbers of sources and workers that are still there.

    Raises:
        ConfigError: Nothing is served at the address.
        ValueError: There is no such machine, or there are several.
        RuntimeError: Sources find no other place.
    """
    with _serving(address) as handle:
        found = result(call(handle, "drain", node, on), _CALL_S)
        end_s, before = time.monotonic() + _DRAIN_S, (-1, -1)
        while on:
            there = [w for w in result(call(handle, "table"), _CALL_S).workers if w.node == found]
            left = sum(worker.streams for worker in there), len(there)
            if not there:
                return
            if left != before:
                on_left(*left)
                before, end_s = left, time.monotonic() + _DRAIN_S
            if time.monotonic() > end_s:
                raise RuntimeError(
                    f"{left[0]} sources are still on {node}: no other machine takes them"
                )
            time.sleep(0.5)


def stop_at(address: str) -> None:
    """End all that is served in a cluster. Raises ConfigError."""
    with _serving(address) as handle:
        end_cluster(handle)
