"""Loops that numba compiles, where numpy takes longer to begin than the loop takes to run.

They release the interpreter's lock and are single-threaded, so any thread may call them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache


class _DiskCache(FunctionCache):
    """numba's cache on disk, whose errors cost time only: the loop is compiled again."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with suppress(OSError):
            return super().load_overload(sig, target_context)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


_AHEAD: list[tuple[Any, str]] = []
"""Loops with the types that they are compiled for ahead."""


def compiled(types: str | None = None) -> Callable[[Callable], Any]:
    """Return a decorator of a function that numba compiles, at its first call for each kind of
    arguments.

    The compiled code is kept on disk where there is a place for it. A division by zero gives
    infinity or NaN, as with numpy's arrays.

    Args:
        types: The usual types, as numba's signature; `compile_ahead` compiles the loop for them.
    """

    def decorate(function: Callable) -> Any:
        # "contract" alone: comparisons with NaN keep their meaning.
        loop: Any = njit(nogil=True, fastmath={"contract"}, error_model="numpy")(function)
        # numba finds no folder to write to in a read-only installation without a home.
        with suppress(RuntimeError):
            loop._cache = _DiskCache(function)
        if types is not None:
            _AHEAD.append((loop, types))
        return loop

    return decorate


def compile_ahead() -> None:
    """Compile all loops of the modules that are loaded, or read them from disk.

    Otherwise a live picture would stop for half a second when a loop is first needed.
    """
    for loop, types in _AHEAD:
        loop.compile(types)
