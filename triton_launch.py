"""Launches of Triton kernels without the JIT's repeated work on the host, and kernels compiled side
by side.

At each launch Triton's JIT binds and classifies all arguments again and compares the globals that
the kernel reads: 20 to 40 µs, longer than most kernels here run. `DirectKernel` keeps what the JIT
compiled and launches that, as Triton's tutorial "Fused Softmax" does, but for the calls of launch
hooks where there are none. Of several processes that start together, as a cluster's workers, one
compiles a kernel and the others read it from Triton's cache.

Used by `pipeline` and `render`; imports neither.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

import torch
import triton
from torch import Tensor

_KNOWN_VERSIONS = (3, 6), (4, 0)
"""From the first on, up to the second, a compiled kernel takes all parameters in their order."""
_LOCKS = 256
"""Files that are locked while a kernel is compiled; kernels that share one wait for each other."""
_PATIENCE_S = 120.0
"""A kernel that another process has not compiled by then is compiled here too."""


class DirectKernel:
    """A Triton kernel that the JIT compiles for each kind of arguments and that is launched without
    it from then on. Decorates a `triton.jit` function, whose launches are written as before.

    A kind is all that the JIT makes a kernel of its own for: the types of the arguments, whether
    pointers and integers divide by 16, integers that are 1, the constants and options, the GPU. In
    Triton's interpreter, on a GPU that is not NVIDIA's, and with a version of Triton that is not
    known, each launch goes through the JIT. Triton's run-time settings are read at the first launch
    of a kind only. Any thread may launch.

    Args:
        kernel: The function. Its first argument is a tensor on the current GPU; its constants are
            given as keywords, all of them.

    Attributes:
        jit: The function.
    """

    def __init__(self, kernel: Any) -> None:
        self.jit = kernel
        self._compiled: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}
        self._is_known = isinstance(kernel, triton.JITFunction) and _is_known()

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """Return the launch of a grid."""
        return partial(self._launch, grid)

    def _launch(self, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
        if _here.compiles_only and isinstance(self.jit, triton.JITFunction):
            self.jit.warmup(*args, grid=grid, **constants)
            return
        kinds = [_KINDS.get(type(arg), _unknown)(arg) for arg in args] if self._is_known else [None]
        if None in kinds:
            self.jit[grid](*args, **constants)
            return
        # True equals 1, but is another constant.
        types = map(type, constants.values())
        kind = (args[0].get_device(), *kinds, *constants.items(), *types)
        found = self._compiled.get(kind)
        if found is None:
            compiled = self.jit[grid](*args, **constants)
            # Of a kernel that another thread still compiled, the JIT returns a future.
            compiled = getattr(compiled, "result", lambda: compiled)()
            rest = self.jit.arg_names[len(args) :]
            # None where a hook of the JIT has left the launch out.
            if compiled is not None:
                self._compiled[kind] = compiled, tuple(constants[name] for name in rest)
            return
        compiled, rest = found
        x, y, z = (*grid, 1, 1)[:3]
        runtime = triton.knobs.runtime
        hooks = runtime.launch_enter_hook, runtime.launch_exit_hook
        # A chain of calls, or what a program has put in its place: a function, or None.
        if any(getattr(hook, "calls", hook) for hook in hooks):
            compiled[x, y, z](*args, *rest)
            return
        # What that comes to for hooks that call nothing. `run` comes first: it loads the kernel.
        run = compiled.run
        stream = _raw_stream(kind[0])
        run(
            x, y, z, stream, compiled.function, compiled.packed_metadata, None, None, None,
            *args, *rest,
        )  # fmt: skip


_raw_stream = getattr(
    torch._C,
    "_cuda_getCurrentRawStream",
    lambda device: torch.cuda.current_stream(device).cuda_stream,
)
"""The address of a GPU's current stream, as Triton's driver asks for it."""


class _Here(threading.local):
    """What is set for one thread.

    Attributes:
        compiles_only: Whether launches compile their kernel and do not run it.
    """

    compiles_only = False


_here = _Here()


@contextmanager
def compiled_together() -> Iterator[None]:
    """Compile all kernels that this thread launches in the block side by side, and run none.

    The block ends when all are compiled; Triton's compiler lets go of Python's lock for nearly all
    of its work. What the launches would write is left as it is, so the block must not look at it:
    it is for work that is to be captured as a CUDA graph, which looks at nothing on the host.
    A kernel that does not compile raises at its next launch. Triton's interpreter, and a Triton
    from before 3.5, run the kernels as ever.
    """
    if not hasattr(triton, "AsyncCompileMode"):
        yield
        return
    with (
        # The cores that this process may use, which in a container are fewer than the machine's.
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        # An error would leave Triton 3.6 in this mode for good.
        _once_a_machine()(pool, ignore_errors=True),
    ):
        _here.compiles_only = True
        try:
            yield
        finally:
            _here.compiles_only = False


def _once_a_machine() -> Any:
    """Triton's mode of compiling side by side, each kernel in one process at a time."""

    class OnceAMachine(triton.AsyncCompileMode):
        def submit(self, key: Any, compile_fn: Callable[[], Any], *rest: Any) -> Any:
            def compiled() -> Any:
                # The second process finds the kernel in Triton's cache, which is read first.
                with _locked(zlib.crc32(str(key).encode()) % _LOCKS):
                    return compile_fn()

            return super().submit(key, compiled, *rest)

    return OnceAMachine


@contextmanager
def _locked(number: int) -> Iterator[None]:
    """Hold one of `_LOCKS` locks beside Triton's cache. It ends with the process, however that
    ends. Where there are no locks, or one is held for too long, do without."""
    try:
        folder = Path(triton.knobs.cache.dir) / "bodystream-locks"
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / str(number)).open("wb")
    except OSError:
        # Triton itself says what is wrong with its folder.
        yield
        return
    with file:
        end = time.monotonic() + _PATIENCE_S
        while fcntl is not None and time.monotonic() < end:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        yield


def _is_known() -> bool:
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    oldest, too_new = _KNOWN_VERSIONS
    return oldest <= version < too_new and torch.version.hip is None


def _of_tensor(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tensor.data_ptr() % 16 == 0


def _of_int(number: int) -> tuple[Any, ...]:
    # 32 bits, 64 bits, or 64 bits without a sign.
    width = (-(2**31) <= number < 2**31, number < 2**63)
    return width, number == 1, number % 16 == 0


def _of_float(number: float) -> tuple[Any, ...]:
    return (float,)


def _unknown(value: Any) -> None:
    return None


_KINDS: dict[type, Callable[[Any], tuple[Any, ...] | None]] = {
    Tensor: _of_tensor,
    int: _of_int,
    float: _of_float,
}
