"""Build TensorRT engines in processes of their own, several at a time.

A process takes an exported program from one file and writes the engine to another. So builds run
beside each other although torch's export and torch-tensorrt's conversion are not made for threads,
a build that crashes takes nothing with it, and all that the libraries print is in a file.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.gpu.tensorrt_install import Edition, import_torch_tensorrt

SETTINGS = {"use_explicit_typing": True, "min_block_size": 1, "truncate_double": True}
"""Arguments of `torch_tensorrt.dynamo.compile`. From 2.13 on only explicit typing exists."""

_MOST_AT_ONCE = 8
"""A build takes one to two gigabytes of host memory, and more for a large network."""
_POLL_S = 0.05


@dataclass(frozen=True)
class Build:
    """One engine to build, as files: the program to read, the engine and the log to write."""

    program: Path
    engine: Path
    log: Path


def build_all(
    builds: Sequence[Build], edition: Edition, on_done: Callable[[int, str | None], None]
) -> None:
    """Build engines, as many at a time as fit.

    Args:
        builds: What to build.
        edition: The edition that is installed.
        on_done: Called at the end of each build with its place among ``builds`` and why it failed,
            in one line; None where the engine is there. A build's log has all that it printed.
    """
    # Kernels that are timed beside other builds would be chosen by chance.
    at_once = 1 if edition.times_kernels else max(1, min(_MOST_AT_ONCE, (os.cpu_count() or 2) // 2))
    waiting = list(enumerate(builds))
    running: dict[int, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, build = waiting.pop(0)
                running[number] = _start(build)
            ended = [number for number, process in running.items() if process.poll() is not None]
            for number in ended:
                on_done(number, _failure(builds[number], running.pop(number).returncode))
            if not ended:
                time.sleep(_POLL_S)
    finally:
        # After an error or a signal they would build for a program that is gone.
        for process in running.values():
            process.kill()
            process.wait()


def _start(build: Build) -> subprocess.Popen[bytes]:
    # The same modules as here, however this program was started.
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    with build.log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", __name__, str(build.program), str(build.engine)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip


def _failure(build: Build, code: int) -> str | None:
    """Why a process that has ended built nothing, in one line; None if it did."""
    if code == 0 and build.engine.exists():
        return None
    lines = build.log.read_text(errors="replace").strip().splitlines()
    if code < 0 or not lines:
        return f"the build ended by signal {-code}" if code < 0 else "the build wrote no engine"
    return lines[-1].strip()


def main(program: str, engine: str) -> None:
    """Build the engine of one exported program.

    Args:
        program: The file of the program, with its example inputs.
        engine: The file to write.
    """
    torch_tensorrt = import_torch_tensorrt()
    exported = torch.export.load(program)
    inputs = list(exported.example_inputs[0])
    if inputs[0].is_cuda:
        torch.cuda.set_device(inputs[0].device)
    with torch.no_grad():
        compiled = torch_tensorrt.dynamo.compile(
            exported,
            arg_inputs=inputs,
            # Its default is one file for all users and processes of the machine.
            timing_cache_path=f"{engine}.timing",
            **SETTINGS,
        )
        torch_tensorrt.save(compiled, engine, arg_inputs=inputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
