"""Loops that numba compiles, where numpy takes longer to begin than the loop takes to run.

They release the interpreter's lock and are single-threaded, so any thread may call them.

Used by `pipeline` and `render`; imports neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
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

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        # numba's own key knows the loop's file alone. Compiled code also holds constants and other
        # loops, of which another version of the program may have others.
        return (*super()._index_key(sig, codegen), _digest(self._py_func))


def _digest(function: Callable) -> str:
    """Return a digest of a loop's code, of the loops that it calls and of the constants in both."""
    code = function.__code__
    # A code object among the constants, such as a comprehension's, has an address in its text.
    constants = [getattr(each, "co_code", each) for each in code.co_consts]
    parts = [code.co_code, repr(constants).encode()]
    for name in code.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, np.ndarray):
            parts += [f"{name} {value.dtype} {value.shape}".encode(), value.tobytes()]
        elif isinstance(value, int | float | str):
            parts.append(f"{name} {value!r}".encode())
        elif (inner := getattr(value, "py_func", None)) is not None:
            parts.append(_digest(inner).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


_AHEAD: list[tuple[Any, str]] = []
"""Loops with the types that they are compiled for ahead."""


def compiled(types: str | None = None, **options: Any) -> Callable[[Callable], Any]:
    """Return a decorator of a function that numba compiles, at its first call for each kind of
    arguments.

    The compiled code is kept on disk where there is a place for it. A division by zero gives
    infinity or NaN, as with numpy's arrays, and comparisons with NaN keep their meaning.

    Args:
        types: The usual types, as numba's signature; `compile_ahead` compiles the loop for them.
        **options: Further ones of `numba.njit`, or others than these.
    """
    chosen = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy", **options}

    def decorate(function: Callable) -> Any:
        loop: Any = njit(**chosen)(function)
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
