"""How busy the GPU is, as NVIDIA's driver counts it for all processes together."""

from __future__ import annotations

import subprocess
import time
from statistics import mean
from types import TracebackType

import torch

_EVERY_MS = 100


class GpuBusy:
    """Samples the GPU's utilisation in a ``with`` block: the share of the time in which a kernel
    ran, whatever part of the chip it filled.

    Attributes:
        seconds: How long the block took.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begun_s = 0.0
        self._samples: list[float] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> GpuBusy:
        if torch.cuda.is_available():
            # By its own name: torch and the driver may number the GPUs differently.
            gpu = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
            words = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            try:
                self._process = subprocess.Popen(
                    ["nvidia-smi", "-i", gpu, *words, "-lms", str(_EVERY_MS)],
                    stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                )  # fmt: skip
            except OSError:
                # The driver's program is not everywhere; what is measured is valid without it.
                self._process = None
        self._begun_s = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.seconds = time.monotonic() - self._begun_s
        if self._process is not None:
            self._process.terminate()
            self._samples = percentages(self._process.communicate()[0])

    @property
    def busy_s(self) -> float | None:
        """For how many seconds of the block the GPU was busy; None where that is not known."""
        return self.seconds * mean(self._samples) / 100 if self._samples else None


def percentages(text: str) -> list[float]:
    """Return the numbers of lines of numbers; other lines say that a GPU counts nothing."""
    return [float(line) for line in text.split("\n") if line.strip().isdigit()]
