"""Floors: the least time of a stage on a machine, and a prediction for another machine from them.

A stage's *roofline floor* (Williams, Waterman, Patterson, Roofline, CACM 2009) is

    max(operations / ceiling, bytes / bandwidth) + bytes over the bus / the bus's rate

with the ceilings that `app.bench.ceilings` measured on the machine itself. Its *efficiency* is that
floor over the measured time. Small networks are limited by neither, but by how fast kernels can
follow one another, so a stage has a second floor,

    launches = kernels * time from one small kernel's start to the next one's

The profiler counts the kernels; the time is measured, within a CUDA graph or without.

A time on another machine is predicted from the larger of the two floors on each of them:

    predicted = measured * max(roofline there, launches there) / max(roofline here, launches here)

A stage that is limited by work here scales as the ceilings do, until launches limit it there. A
stage that is limited by launches here takes as long there, until work limits it: the time from
kernel to kernel depends on driver and host and is assumed to be the same. Time outside all stages
is not scaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

Precision = Literal["fp16", "tf32", "fp32"]


@dataclass(frozen=True)
class Ceilings:
    """The highest rates of a machine.

    Attributes:
        fp16_tflops: Matrix products in FP16, TFLOP/s; 0 if the machine has no such unit.
        tf32_tflops: The same in TF32.
        fp32_tflops: The same in FP32.
        memory_gb_s: Copies within its memory, GB/s; bytes read and bytes written both count.
        up_gb_s: Copies from the host, GB/s; 0 if the machine is the host.
        down_gb_s: Copies to the host, GB/s; 0 if the machine is the host.
        launch_us: Microseconds from one tiny kernel to the next, launched one by one.
        graph_launch_us: The same in a CUDA graph.
        cache_bytes: The size of the last-level cache.
    """

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
        """Return the ceiling for a precision; a machine without that unit computes in FP32."""
        return getattr(self, f"{precision}_tflops") or self.fp32_tflops


RTX_4090 = Ceilings(165.0, 83.0, 83.0, 1008.0, up_gb_s=25.0, down_gb_s=25.0)
"""From the data sheet (fp16 dense with fp32 accumulation, tf32 dense, fp32; 1.008 TB/s), and the
typical rate of PCIe 4 x16. Nothing of it was measured."""


@dataclass(frozen=True)
class Work:
    """The least work of a stage for one window.

    Attributes:
        operations: Floating-point operations; a multiply and an add are two.
        memory_bytes: Bytes read or written on the device.
        up_bytes: Bytes copied from the host.
        down_bytes: Bytes copied to the host.
        kernels: Kernels launched; 0 if not counted.
        precision: The precision of the operations.
    """

    operations: float = 0.0
    memory_bytes: float = 0.0
    up_bytes: float = 0.0
    down_bytes: float = 0.0
    kernels: int = 0
    precision: Precision = "fp32"

    def __add__(self, other: Work) -> Work:
        """Return the sum of both, in this one's precision."""
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
    """The floors of a stage in milliseconds, by part."""

    compute_ms: float
    memory_ms: float
    transfer_ms: float
    launch_ms: float

    @property
    def roofline_ms(self) -> float:
        """The roofline floor: computing or memory, whichever is slower, and the bus."""
        return max(self.compute_ms, self.memory_ms) + self.transfer_ms

    @property
    def larger_ms(self) -> float:
        """The larger of the roofline floor and the launch floor."""
        return max(self.roofline_ms, self.launch_ms)

    @property
    def bound(self) -> str:
        """The part that the larger floor mostly consists of."""
        if self.launch_ms > self.roofline_ms:
            return "launches"
        parts = {n: getattr(self, f"{n}_ms") for n in ("compute", "memory", "transfer")}
        return max(parts, key=lambda name: parts[name])


def floor(work: Work, machine: Ceilings, graphs: bool) -> Floor:
    """Return the floors of a stage on a machine.

    Args:
        work: The least work of the stage.
        machine: The ceilings of the machine.
        graphs: Whether its kernels run in a CUDA graph.
    """
    # A graph launches its kernels without the host in between.
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
    """Return the predicted milliseconds of a stage on another machine, as the module describes. A
    stage without a floor is not scaled."""
    # Without a floor nothing is known about what limits the stage.
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
    """Predict the times of a window on another machine.

    Args:
        total_ms: The measured time of the window.
        stages_ms: The measured times of its stages.
        work: The least work of each stage.
        here: The ceilings of the machine that it was measured on.
        there: The ceilings of the other machine.
        graphs: Whether kernels run in CUDA graphs.

    Returns:
        Milliseconds by stage, and their ``total`` with the time outside all stages.
    """
    # Launches depend on driver and host, and no data sheet gives them.
    there = replace(there, launch_us=here.launch_us, graph_launch_us=here.graph_launch_us)
    out = {}
    for stage, measured_ms in stages_ms.items():
        least = work.get(stage, Work())
        out[stage] = predict(measured_ms, floor(least, here, graphs), floor(least, there, graphs))
    # Stages come from another pass, so their sum may exceed the total.
    rest = max(total_ms - sum(stages_ms.values()), 0.0)
    return {**out, "total": sum(out.values()) + rest}
