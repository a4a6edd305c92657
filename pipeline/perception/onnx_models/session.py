"""ONNX files through ONNX Runtime. No other module of this project imports it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.core.user_file import reading
from pipeline.gpu.device import EngineOptions

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
MOST_THREADS = 4
"""More threads gain little on networks for one crop, and are missing elsewhere."""
MOST_NUMBERS = 1 << 26
"""More of them in an input are refused before memory is reserved for them."""
_DTYPES: dict[str, type[np.floating]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_ERROR = 3
"""ONNX Runtime's level of messages; warnings would reach the terminal from C++."""


class OnnxError(ValueError):
    """An ONNX file is missing, broken or of another interface. The message is one line."""


@dataclass(frozen=True)
class Port:
    """An input or output of a network.

    Attributes:
        name: Its name in the file.
        shape: Its sizes; None for one that the file leaves open.
        dtype: The type of its numbers.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: type[np.floating]


class OnnxModel:
    """A network from an ONNX file, as a function of batches. It belongs to one thread at a time.

    Args:
        path: The file.
        device: Where to compute.
        engine: On a GPU, "tensorrt" asks for ONNX Runtime's TensorRT, and everything else for CUDA.

    Attributes:
        path: As given.
        inputs: The network's inputs.
        outputs: Its outputs.
        metadata: What the exporter wrote into the file, by key.
        report: One line on what computes it.

    Raises:
        OnnxError: The file is not there, is no ONNX file, or ONNX Runtime cannot run it.
        RuntimeError: ONNX Runtime is not installed.
    """

    def __init__(self, path: Path, device: torch.device, engine: EngineOptions) -> None:
        runtime = onnxruntime()
        if not path.is_file():
            raise OnnxError(f"{path}: there is no such file; --model names an ONNX file")
        options = runtime.SessionOptions()
        options.log_severity_level = _ERROR
        options.intra_op_num_threads = threads()
        # Threads that spin while they wait would take the processor from the fit and the drawing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = providers(device, engine, runtime.get_available_providers())
        with reading(path, " is no network that ONNX Runtime can run", OnnxError):
            self._session = runtime.InferenceSession(str(path), options, providers=wanted)
            self.inputs = [_port(each) for each in self._session.get_inputs()]
            self.outputs = [_port(each) for each in self._session.get_outputs()]
            meta = self._session.get_modelmeta().custom_metadata_map
        for port in self.inputs:
            numbers = math.prod(n or 1 for n in port.shape)
            if numbers > MOST_NUMBERS:
                raise OnnxError(f"{path}: an input of {numbers} numbers, far more than crops have")
        self.path, self.metadata = path, dict(meta)
        self.report = _report(path, runtime.__version__, device, self._session.get_providers()[0])

    @property
    def batch(self) -> int | None:
        """The batch that the file is made for; None where it takes any."""
        return self.inputs[0].shape[0] if self.inputs and self.inputs[0].shape else None

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Return the outputs, float32, of a batch.

        A file that is made for a batch of its own is run as often as needed.

        Args:
            arrays: The inputs in the file's order, each (N, ...) with N of 1 or more.
        """
        count = len(arrays[0])
        step = self.batch or count
        parts = [self._run([a[k : k + step] for a in arrays], step) for k in range(0, count, step)]
        return [np.concatenate(each)[:count].astype(np.float32, copy=False) for each in zip(*parts)]

    def _run(self, arrays: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
        """The outputs of one batch, filled up to ``size`` with zeros."""
        feed = {}
        for port, array in zip(self.inputs, arrays, strict=True):
            missing = size - len(array)
            if missing:
                array = np.concatenate((array, np.zeros((missing, *array.shape[1:]), array.dtype)))
            feed[port.name] = np.ascontiguousarray(array, port.dtype)
        with reading(self.path, " cannot be run", OnnxError):
            return self._session.run(None, feed)


def onnxruntime() -> Any:
    """Import ONNX Runtime and return it.

    Raises:
        RuntimeError: It is not installed, or cannot be loaded.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeError(
            f"ONNX Runtime cannot be loaded ({error}); pip install 'bodystream[onnx]'"
        ) from error
    return onnxruntime


def threads() -> int:
    """Return how many threads a network gets on this machine's processor."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(usable or 1, MOST_THREADS))


def providers(device: torch.device, engine: EngineOptions, available: Sequence[str]) -> list[Any]:
    """Return what shall compute a network, the best first, of what ONNX Runtime has here.

    Args:
        device: Where to compute.
        engine: How a GPU computes.
        available: The names that ONNX Runtime reports.
    """
    wanted: list[Any] = [CPU]
    if device.type == "cuda" and CUDA in available:
        wanted.insert(0, CUDA)
        if engine.engine == "tensorrt" and TENSORRT in available:
            settings: dict[str, Any] = {"trt_fp16_enable": engine.half}
            if engine.cache is not None:
                settings["trt_engine_cache_enable"] = True
                settings["trt_engine_cache_path"] = str(engine.cache)
            wanted.insert(0, (TENSORRT, settings))
    return wanted


def _report(path: Path, version: str, device: torch.device, provider: str) -> str:
    where = provider.removesuffix("ExecutionProvider")
    line = f"{path.name}: ONNX Runtime {version}, {where}"
    if provider == CPU:
        line += f" ({threads()} threads)"
    if provider == CPU and device.type == "cuda":
        line += "; for the GPU install onnxruntime-gpu instead of onnxruntime"
    return line


def _port(each: Any) -> Port:
    if each.type not in _DTYPES:
        raise OnnxError(f"{each.name} holds {each.type}, not floating-point numbers")
    # Sizes that the file leaves open are names or None.
    shape = tuple(n if isinstance(n, int) and n > 0 else None for n in each.shape)
    return Port(each.name, shape, _DTYPES[each.type])
