"""Describe the machine that figures are measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch


def describe() -> dict[str, Any]:
    """Return GPU, driver, CUDA, torch, triton, Python, CPU and memory; None for what is missing."""
    # The cores that this process may use, which in a container are fewer than the machine has.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.is_available()
    return {
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "gpu_memory_gb": _gb(torch.cuda.get_device_properties(0).total_memory) if gpu else None,
        "driver": _driver() if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
        "torch": torch.__version__,
        "triton": _version("triton"),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores": cores,
        "memory_gb": _gb(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
    }


def summary() -> str:
    """Return the machine in one line, such as "NVIDIA H100; Intel Xeon, 8 cores; torch 2.9"."""
    machine = describe()
    parts = [machine["gpu"], f"{machine['cpu']}, {machine['cores']} cores"]
    return "; ".join([part for part in parts if part] + [f"torch {machine['torch']}"])


def cpu_name() -> str:
    """Return the processor's name, as the system reports it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def file_name(hardware: dict[str, Any]) -> str:
    """Return the name of a machine's file: its GPU's name, or ``cpu-`` and its processor's."""
    name = hardware["gpu"] or f"cpu {hardware['cpu']}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".json"


def _gb(size: int) -> float:
    return round(size / 2**30, 1)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    """Return the NVIDIA driver's version, as ``nvidia-smi`` reports it; None without that tool."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        # With a timeout: on a machine whose driver is broken, nvidia-smi can hang.
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    # The first line: all GPUs of a machine share one driver.
    return lines[0] if done.returncode == 0 and lines else None
