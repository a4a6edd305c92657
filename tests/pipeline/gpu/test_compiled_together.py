"""Kernels that are compiled side by side: none is run, all are there afterwards.

The compiler needs no GPU, so the fit's kernels are really compiled here, for a GPU that a double of
Triton's driver describes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest

pytest.importorskip("triton")

import triton
import triton.language as tl

import triton_launch
from triton_launch import DirectKernel, compiled_together

NAMES = """edges eliminate finish guess mesh motion network observe points pose poses regress
           remember solve system take"""


@DirectKernel
@triton.jit
def broken(out):
    tl.static_assert(False, "does not compile")
    tl.store(out, 0)


def compile_the_fit() -> None:
    """Runs in a process of its own, in which kernels are not interpreted."""
    import torch
    from triton.backends.compiler import GPUTarget
    from triton.backends.driver import DriverBase
    from triton.backends.nvidia.compiler import CUDABackend

    from pipeline.body.kinematics import Skeleton
    from pipeline.body.load import load_body
    from pipeline.fitting.fitter import _compile, example_row
    from pipeline.fitting.lifter import Lifter
    from pipeline.fitting.linearise_gpu import Linearizer
    from pipeline.fitting.solver import FitConfig
    from pipeline.fitting.window_gpu import WindowKernels
    from pipeline.fitting.window_step import WindowFit, new_memory

    class Driver(DriverBase):
        """That of a Hopper GPU, as far as compiling asks."""

        is_active = classmethod(lambda cls: True)
        map_python_to_cpp_type = get_active_torch_device = get_benchmarker = None
        get_current_device = get_current_stream = staticmethod(lambda *_: 0)
        get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))

    triton.runtime.driver.set_active(Driver())
    # What comes from the cache of another process passes no stage of the compiler.
    stages: list[int] = []
    make = CUDABackend.make_cubin

    def counted(self: Any, *arguments: Any) -> Any:
        stages.append(1)
        return make(self, *arguments)

    CUDABackend.make_cubin = counted
    compiled: Counter[str] = Counter()
    knobs = triton.knobs.runtime
    knobs.jit_post_compile_hook = lambda fn, **_: compiled.update([fn.name.rpartition(".")[2]])
    body, config = load_body(), FitConfig()
    skeleton, lifter = Skeleton.of(body, config.surface_points), Lifter.load(torch.device("cpu"))
    fit = WindowFit(
        body, skeleton, lifter, config, 4, 3, outlines=True,
        kernels=Linearizer(skeleton, config), parts=WindowKernels(body, skeleton, lifter, config),
    )  # fmt: skip
    rows = torch.from_numpy(example_row(fit))[None]
    memory = new_memory(config)
    before = rows.clone(), memory.clone()
    _compile(fit, rows, memory)
    assert torch.equal(rows, before[0])
    assert torch.equal(memory, before[1])
    print(*sorted(compiled))
    print(len(stages), flush=True)
    # In the last step the elimination differs; it has a kernel for ends and one for other frames.
    several = {name: count for name, count in compiled.items() if count > 1}
    assert several == {"eliminate": 4, "take": 4, "solve": 2}, compiled
    first = compiled.total()
    # All are there: a launch finds its kernel by the same key.
    _compile(fit, rows, memory)
    assert compiled.total() == first, "compiled again"
    # One that does not compile is left to its launch, and ends nothing.
    with compiled_together():
        broken[1,](rows)
    _compile(fit, rows, memory)
    assert compiled.total() == first
    with pytest.raises(triton.CompilationError):
        broken.jit.warmup(rows, grid=(1,))


@pytest.mark.slow
def test_kernels_are_there_after_one_pass_and_compiled_by_one_process(tmp_path):
    """Three processes that start together, as a cluster's workers; one of them is killed."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-m", "tests.pipeline.gpu.test_compiled_together"]
    running = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(3)
    ]
    try:
        # It holds locks from its first kernel on.
        while not list(tmp_path.glob("*/*.ttir")) and running[0].poll() is None:
            time.sleep(0.1)
        running[0].kill()
        ended = [process.communicate(timeout=250) for process in running[1:]]
    finally:
        for process in running:
            process.kill()
            process.communicate()
    counts = []
    for process, (out, errors) in zip(running[1:], ended):
        assert process.returncode == 0, errors[-2000:]
        names, count = out.strip().split("\n")
        assert names.split() == NAMES.split()
        counts.append(int(count))
    # Nothing twice: together they compiled no more kernels than there are.
    kernels = len(list(tmp_path.glob("*/*.cubin")))
    assert kernels >= len(NAMES.split())
    assert sum(counts) <= kernels


def test_a_kernel_is_compiled_where_nobody_can_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(triton_launch, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path / "cache"))
    with triton_launch._locked(1), triton_launch._locked(2):
        began = time.monotonic()
        with triton_launch._locked(1):
            assert time.monotonic() - began >= 0.2
    # Released: no wait.
    monkeypatch.setattr(triton_launch, "_PATIENCE_S", 1e6)
    with triton_launch._locked(1):
        pass
    # Where there can be no folder.
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path / "file" / "cache"))
    with triton_launch._locked(1):
        pass


if __name__ == "__main__":
    compile_the_fit()
