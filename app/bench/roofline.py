"""Floors: what a stage must cost on a machine, and from that a prediction for another machine.

A stage's *roofline floor* (Williams, Waterman, Patterson, Roofline, CACM 2009) is

    max(operations / ceiling, bytes / bandwidth) + bytes over the bus / the bus's rate

with the ceilings that `app.bench.ceilings` measured on the machine itself. Its *efficiency* is that
floor over the measured time. Small networks are not bound by either but by how fast kernels can
follow one another, so a stage has a second floor,

    launches = kernels * time from one small kernel's start to the next one's

where the profiler counts the kernels and the time is measured too, within a CUDA graph or without.

A time on another machine is predicted from the larger of the two floors on each of them:

    predicted = measured * max(roofline there, launches there) / max(roofline here, launches here)

A stage that is bound by work here scales as the ceilings do, until launches bind it there. One that
launches bind here costs as much there, until work binds it: the time from kernel to kernel is the
driver's and the host's and is taken to be the same. What no stage covers is not scaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Precision = Literal["fp16", "tf32", "fp32"]


@dataclass(frozen=True)
class Ceilings:
    """What a machine can do at most: products in TFLOP/s (0: cannot), copying within its memory
    in GB/s (read and written bytes both counted), copies from and to the host in GB/s (0: it is
    the host), and microseconds from one tiny kernel to the next, launched singly and in a graph.
    ``cache_bytes`` is its last-level cache."""

    fp16_tflops: float
    tf32_tflops: float
    fp32_tflops: float
    memory_gb_s: float
    up_gb_s: float = 0.0
    down_gb_s: float = 0.0
    launch_us: float = 0.0
    graph_launch_us: float = 0.0
    cache_bytes: int = 0

    def tflops(self, precision: Precision) -> float:
        """The ceiling for a precision; a machine without that unit computes in FP32."""
        return getattr(self, f"{precision}_tflops") or self.fp32_tflops


RTX_4090 = Ceilings(165.0, 83.0, 83.0, 1008.0, up_gb_s=25.0, down_gb_s=25.0)
"""The data sheet's (fp16 dense with fp32 accumulation, tf32 dense, fp32; 1.008 TB/s) and what PCIe
4 x16 typically moves. Nothing here was measured on one."""


@dataclass(frozen=True)
class Work:
    """What a stage must do at least, for one window: floating-point ``operations`` (a multiply
    and an add are two), ``memory_bytes`` read or written on the device, ``up_bytes`` and
    ``down_bytes`` over the bus, ``kernels`` launched (0: not counted)."""

    operations: float = 0.0
    memory_bytes: float = 0.0
    up_bytes: float = 0.0
    down_bytes: float = 0.0
    kernels: int = 0
    precision: Precision = "fp32"

    def __add__(self, other: Work) -> Work:
        """Both, in this one's precision."""
        return Work(
            self.operations + other.operations,
            self.memory_bytes + other.memory_bytes,
            self.up_bytes + other.up_bytes,
            self.down_bytes + other.down_bytes,
            self.kernels + other.kernels,
            self.precision,
        )


@dataclass(frozen=True)
class Floor:
    """A stage's floors in milliseconds, part by part."""

    compute_ms: float
    memory_ms: float
    transfer_ms: float
    launch_ms: float

    @property
    def roofline_ms(self) -> float:
        return max(self.compute_ms, self.memory_ms) + self.transfer_ms

    @property
    def larger_ms(self) -> float:
        return max(self.roofline_ms, self.launch_ms)

    @property
    def bound(self) -> str:
        """Which part the larger floor is mostly made of."""
        if self.launch_ms > self.roofline_ms:
            return "launches"
        parts = {n: getattr(self, f"{n}_ms") for n in ("compute", "memory", "transfer")}
        return max(parts, key=lambda name: parts[name])


def floor(work: Work, machine: Ceilings, graphs: bool) -> Floor:
    """The least that ``work`` costs on a machine, with or without CUDA graphs."""
    launch_us = machine.graph_launch_us if graphs else machine.launch_us
    return Floor(
        compute_ms=work.operations / (machine.tflops(work.precision) * 1e9),
        memory_ms=work.memory_bytes / (machine.memory_gb_s * 1e6),
        transfer_ms=_ms(work.up_bytes, machine.up_gb_s) + _ms(work.down_bytes, machine.down_gb_s),
        launch_ms=work.kernels * launch_us / 1e3,
    )


def _ms(size: float, gb_s: float) -> float:
    return size / (gb_s * 1e6) if gb_s else 0.0


def predict(measured_ms: float, here: Floor, there: Floor) -> float:
    """The time on another machine, as the module says. A stage without a floor is not scaled."""
    if here.larger_ms <= 0:
        return measured_ms
    return measured_ms * there.larger_ms / here.larger_ms


def predict_window(
    total_ms: float,
    stages_ms: Mapping[str, float],
    work: Mapping[str, Work],
    here: Ceilings,
    there: Ceilings,
    graphs: bool,
) -> dict[str, float]:
    """Milliseconds by stage on another machine, and their ``total`` with what no stage covers."""
    there = replace(there, launch_us=here.launch_us, graph_launch_us=here.graph_launch_us)
    out = {}
    for stage, taken in stages_ms.items():
        need = work.get(stage, Work())
        out[stage] = predict(taken, floor(need, here, graphs), floor(need, there, graphs))
    rest = max(total_ms - sum(stages_ms.values()), 0.0)
    return {**out, "total": sum(out.values()) + rest}
