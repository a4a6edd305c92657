"""Kernels are launched directly only where the JIT would launch the same compiled kernel."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton._C.libtriton import native_specialize_impl
from triton.backends.compiler import BaseBackend

import triton_launch
from triton_launch import DirectKernel, compiled_together

GPU = torch.cuda.is_available()
BUFFER = torch.zeros(64, dtype=torch.uint8)


class Compiled:
    """A double of a compiled kernel, which records its launches."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log

    function = packed_metadata = None

    def __getitem__(self, grid):
        return lambda *args: self.log.append((self, grid, args))

    def run(self, x, y, z, stream, function, metadata, of_launch, enter, leave, *args):
        assert (of_launch, enter, leave) == (None, None, None)
        self.log.append((self, (x, y, z), args))


class Jit(triton.JITFunction):
    """A double of a JIT's kernel ``(a, b, SIZE)``, which makes a compiled one for each of the JIT's
    own kinds of arguments."""

    def __init__(self) -> None:
        self.arg_names = ["a", "b", "SIZE"]
        self.compiled: dict[Any, Compiled] = {}
        self.log: list[Any] = []

    def run(self, *args, grid, warmup, **constants):
        kind = *map(specialized, args), str(constants)
        compiled = self.compiled.setdefault(kind, Compiled(self.log))
        if warmup:
            return compiled
        constants.pop("num_warps", None)
        compiled[(*grid, 1, 1)[:3]](*args, *constants.values())
        return compiled


def specialized(arg):
    return native_specialize_impl(BaseBackend, arg, False, True, True)


@pytest.fixture(autouse=True)
def a_version_that_is_known(monkeypatch):
    monkeypatch.setattr(triton_launch, "_is_known", lambda: True)


@pytest.fixture(autouse=True)
def a_stream_without_a_gpu(request, monkeypatch):
    if "gpu" not in request.keywords:
        monkeypatch.setattr(triton_launch, "_raw_stream", lambda device: 0)


tensors = st.builds(
    lambda offset, dtype: BUFFER[8 * offset :].view(dtype),
    st.integers(0, 3),
    st.sampled_from([torch.uint8, torch.float32, torch.int64]),
)
numbers = st.one_of(
    st.sampled_from([0, 1, 15, 16, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63 - 1]),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    tensors,
)
launches = st.tuples(tensors, numbers, st.sampled_from([1, True, 16]), st.sampled_from([4, 8]))


@settings(deadline=None)
@given(st.lists(launches, min_size=2, max_size=12))
def test_the_compiled_kernel_is_the_jits(calls):
    jit = Jit()
    kernel = DirectKernel(jit)
    for k, (a, b, size, warps) in enumerate(calls):
        kernel[2, k + 1](a, b, SIZE=size, num_warps=warps)
        compiled, grid, args = jit.log[-1]
        kind = specialized(a), specialized(b), str({"SIZE": size, "num_warps": warps})
        assert compiled is jit.compiled[kind]
        assert grid == (2, k + 1, 1)
        assert args[0] is a
        assert args[1] is b
        assert args[2] is size
    assert len(jit.log) == len(calls)


def test_the_jit_is_asked_once_for_a_kind(monkeypatch):
    jit = Jit()
    kernel = DirectKernel(jit)
    kernel[1,](BUFFER, 3, SIZE=4)
    monkeypatch.setattr(jit, "run", None)
    kernel[5, 1, 2](BUFFER[16:], 5, SIZE=4)
    assert [grid for _, grid, _ in jit.log] == [(1, 1, 1), (5, 1, 2)]


@pytest.mark.parametrize("hook", ["launch_enter_hook", "launch_exit_hook"])
@pytest.mark.parametrize("is_chain", [True, False])
def test_a_profilers_hooks_are_called(monkeypatch, hook, is_chain):
    jit = Jit()
    kernel = DirectKernel(jit)
    kernel[1,](BUFFER, 3, SIZE=4)
    if is_chain:
        monkeypatch.setattr(getattr(triton.knobs.runtime, hook), "calls", [print])
    else:
        monkeypatch.setattr(triton.knobs.runtime, hook, print)
    # Triton's own launch calls them.
    monkeypatch.delattr(Compiled, "run")
    kernel[5,](BUFFER, 3, SIZE=4)
    assert [grid for _, grid, _ in jit.log] == [(1, 1, 1), (5, 1, 1)]


def test_no_hook_at_all_is_none_to_call(monkeypatch):
    jit = Jit()
    kernel = DirectKernel(jit)
    kernel[1,](BUFFER, 3, SIZE=4)
    for hook in ("launch_enter_hook", "launch_exit_hook"):
        monkeypatch.setattr(triton.knobs.runtime, hook, None)
    kernel[5,](BUFFER, 3, SIZE=4)
    assert [grid for _, grid, _ in jit.log] == [(1, 1, 1), (5, 1, 1)]


@pytest.mark.gpu
def test_hooks_are_called_on_a_gpu():
    numbers, seen = torch.zeros(256, device="cuda"), []

    def note(metadata):
        seen.append(metadata.get()["name"])

    for _ in range(2):
        add[1,](numbers, 256, 1.0, BLOCK=256)
    triton.knobs.runtime.launch_enter_hook.add(note)
    try:
        add[1,](numbers, 256, 1.0, BLOCK=256)
    finally:
        triton.knobs.runtime.launch_enter_hook.remove(note)
    add[1,](numbers, 256, 1.0, BLOCK=256)
    assert seen == ["add"]
    assert numbers.tolist() == [4.0] * 256


def test_what_is_compiled_together_is_not_run_and_other_threads_go_on():
    jit = Jit()
    kernel = DirectKernel(jit)
    with compiled_together():
        kernel[1,](BUFFER, 3, SIZE=4)
        kernel[1,](BUFFER, 1, SIZE=4)
        assert len(jit.compiled) == 2
        assert not jit.log
        other = threading.Thread(target=lambda: kernel[2,](BUFFER, 3, SIZE=4))
        other.start()
        other.join()
        assert [grid for _, grid, _ in jit.log] == [(2, 1, 1)]
    kernel[3,](BUFFER, 3, SIZE=4)
    assert [grid for _, grid, _ in jit.log] == [(2, 1, 1), (3, 1, 1)]
    assert len(jit.compiled) == 2


def test_an_error_while_compiling_together_ends_it():
    jit = Jit()
    kernel = DirectKernel(jit)
    with pytest.raises(ValueError, match="such"), compiled_together():
        raise ValueError("such")
    kernel[1,](BUFFER, 3, SIZE=4)
    assert len(jit.log) == 1


@pytest.mark.parametrize(
    ("version", "known"), [("3.5.1", False), ("3.6.0", True), ("3.9.0+git1", True), ("4.0", False)]
)
def test_versions_whose_launches_are_known(monkeypatch, version, known):
    monkeypatch.undo()
    monkeypatch.setattr(triton, "__version__", version)
    monkeypatch.setattr(torch.version, "hip", None)
    assert triton_launch._is_known() is known


@DirectKernel
@triton.jit
def add(numbers, count, by, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    tl.store(numbers + at, tl.load(numbers + at, mask=inside) + by, mask=inside)


def test_each_launch_computes():
    """On a GPU the first launch of a kind compiles and the others are direct; without one all run
    in Triton's interpreter."""
    device = "cuda" if GPU else "cpu"
    for dtype in (torch.float32, torch.int64):
        whole = torch.zeros(100, dtype=dtype, device=device)
        for begin, count in ((0, 100), (0, 96), (1, 99), (4, 1), (0, 64), (3, 96)):
            for _ in range(2):
                expected = whole.clone()
                expected[begin : begin + count] += 3
                add[triton.cdiv(count, 16),](whole[begin:], count, 3, BLOCK=16)
                assert torch.equal(whole, expected)


@pytest.mark.gpu
def test_a_direct_launch_takes_less_time_than_the_jits():
    import time

    numbers = torch.zeros(256, device="cuda")

    timed: list[tuple[Any, list[float]]] = [(add, []), (add.jit, [])]
    # In turn, so that other work on the machine disturbs both alike.
    for _ in range(600):
        for kernel, each in timed:
            begun = time.thread_time()
            kernel[1,](numbers, 256, 1.0, BLOCK=256)
            each.append(time.thread_time() - begun)
        torch.cuda.synchronize()
    direct, by_jit = (sorted(each[300:])[150] for _, each in timed)
    assert direct < by_jit
