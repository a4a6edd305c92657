"""Measure the ceilings of this machine: its highest rates of computing, copying and launching."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from app.bench.roofline import Ceilings

_TRIES = 7
"""The best of this many measurements is taken: a ceiling is a rate that is never exceeded."""


def measure_ceilings(device: str) -> Ceilings:
    """Measure a device's ceilings.

    It takes about three seconds for a GPU and one for a CPU.

    Args:
        device: "cuda", or "cpu" for all cores together.
    """
    if device == "cuda":
        ceilings = _cuda()
        # The large buffers must not count as the first row's memory.
        torch.cuda.empty_cache()
        return ceilings
    threads = torch.get_num_threads()
    # The CPU's ceiling is that of all cores, however many the pipeline uses.
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        return _cpu()
    finally:
        torch.set_num_threads(threads)


def _cpu() -> Ceilings:
    a = torch.randn(1024, 1024)
    source = torch.ones(32 << 20, dtype=torch.uint8)
    target = torch.empty_like(source)
    product_s = _best_s(lambda: torch.mm(a, a))
    copy_s = _best_s(lambda: target.copy_(source))
    tflops = 2 * 1024**3 / product_s / 1e12
    return Ceilings(
        0.0, 0.0, tflops, 2 * len(source) / copy_s / 1e9, cache_bytes=_cpu_cache_bytes()
    )


def _best_s(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(_TRIES):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times)


def _cpu_cache_bytes() -> int:
    """Return the size of the first core's largest cache, from Linux's /sys; 0 on other systems."""
    sizes = [0]
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text[:-1].isdigit() and text[-1] in units:
            sizes.append(int(text[:-1]) * units[text[-1]])
    return max(sizes)


def _cuda() -> Ceilings:
    source = torch.ones(256 << 20, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    # Page-locked, as the frames are: other memory goes through the driver's own buffer.
    host = torch.empty(64 << 20, dtype=torch.uint8, pin_memory=True)
    part = target[: len(host)]
    copy_ms = _best_cuda_ms(lambda: target.copy_(source), 4)
    up_ms = _best_cuda_ms(lambda: part.copy_(host, non_blocking=True), 2)
    down_ms = _best_cuda_ms(lambda: host.copy_(part, non_blocking=True), 2)
    launch_us, graph_us = _launches_us()
    return Ceilings(
        _product_tflops(torch.float16, False),
        _product_tflops(torch.float32, True),
        _product_tflops(torch.float32, False),
        # A copy reads and writes each byte.
        2 * len(source) / copy_ms / 1e6,
        len(host) / up_ms / 1e6,
        len(host) / down_ms / 1e6,
        launch_us,
        graph_us,
        torch.cuda.get_device_properties(0).L2_cache_size,
    )


def _product_tflops(dtype: torch.dtype, tf32: bool) -> float:
    """Return the rate of products of square matrices of side 8192, TFLOP/s."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        a = torch.randn(8192, 8192, device="cuda").to(dtype)
        out = torch.empty_like(a)
        return 2 * 8192**3 / _best_cuda_ms(lambda: torch.mm(a, a, out=out), 4) / 1e9
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _best_cuda_ms(call: Callable[[], object], rounds: int) -> float:
    """Return the best mean of ``rounds`` calls in a row, in milliseconds by CUDA events."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    call()
    times = []
    for _ in range(_TRIES):
        begin.record()
        for _ in range(rounds):
            call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / rounds)
    return min(times)


def _launches_us(kernels: int = 500) -> tuple[float, float]:
    """Return the microseconds for each of many dependent small kernels, launched one by one and in
    a CUDA graph."""
    x = torch.zeros(256, device="cuda")

    def chain() -> None:
        for _ in range(kernels):
            # Each kernel depends on the one before, so none can overlap.
            x.add_(1.0)

    # Warmed up on another stream, as torch asks before a capture.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        chain()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    singly_ms = _best_cuda_ms(chain, 1)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        chain()
    return 1e3 * singly_ms / kernels, 1e3 * _best_cuda_ms(graph.replay, 1) / kernels
