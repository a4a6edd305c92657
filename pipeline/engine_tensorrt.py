"""TensorRT engines through torch-tensorrt, kept on disk.

Written against torch-tensorrt's documentation (2.6 to 2.11); see README for where it has run.
An engine fits one GPU model and one set of versions, so each file's name is a digest of all that it
depends on, and a file of another digest is never looked at.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def load_or_build(
    module: nn.Module, batch: Tensor, cache: Path | None
) -> tuple[Callable[..., Any], bool]:
    """A TensorRT engine of ``module`` for inputs shaped like ``batch``, and whether it came from
    the cache. Weights and computations keep the module's own precisions (explicit typing).

    A file that cannot be loaded is built again. Raises what torch-tensorrt raises.
    """
    import torch_tensorrt

    facts = fingerprint(module, batch)
    path = None if cache is None else cache / f"{digest(facts)}.ep"
    if path is not None and path.exists():
        try:
            return torch_tensorrt.load(str(path)).module(), True
        except Exception as error:  # of whatever kind: torch's, TensorRT's or the disk's
            print(f"{path.name}: cannot be used ({type(error).__name__}); it is built again")
    with torch.inference_mode(False), torch.no_grad():
        exported = torch.export.export(module, (batch.clone(),))
        engine = torch_tensorrt.dynamo.compile(
            exported,
            arg_inputs=[batch.clone()],
            use_explicit_typing=True,
            min_block_size=1,
            truncate_double=True,
            optimization_level=5,
        )
        if path is not None:
            _keep(torch_tensorrt, engine, batch, path, facts)
    return engine, False


def fingerprint(module: nn.Module, batch: Tensor) -> dict[str, Any]:
    """All that an engine depends on: the weights, the computation, shape and type of the input,
    the GPU, and the versions of what built it."""
    weights = hashlib.sha256()
    for name, value in sorted(
        {**dict(module.named_parameters()), **dict(module.named_buffers())}.items()
    ):
        weights.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        weights.update(value.detach().cpu().contiguous().numpy().tobytes())
    # The exported program names every operation with its shapes and types.
    program = str(torch.export.export(module, (batch.clone(),)).graph)
    gpu = torch.cuda.get_device_properties(batch.device) if batch.is_cuda else None
    return {
        "weights": weights.hexdigest(),
        "program": hashlib.sha256(program.encode()).hexdigest(),
        "input": [str(batch.dtype), *batch.shape],
        "gpu": None if gpu is None else [gpu.name, gpu.major, gpu.minor],
        "versions": {name: _version(name) for name in ("torch", "torch-tensorrt", "tensorrt")},
    }


def digest(facts: dict[str, Any]) -> str:
    """A short name for a fingerprint."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _keep(
    torch_tensorrt: Any, engine: Any, batch: Tensor, path: Path, facts: dict[str, Any]
) -> None:
    """Write an engine and what it was made of; complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".building-", suffix=".ep")
    os.close(handle)
    try:
        torch_tensorrt.save(engine, name, arg_inputs=[batch.clone()])
        path.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
