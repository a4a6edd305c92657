"""TensorRT engines through torch-tensorrt, cached on disk.

Written against torch-tensorrt's documentation and source (2.6 to 2.13); docs/learn/experimental.md
says where it has run. An engine fits one GPU model and one set of versions. So the name of each
file is a digest of all that the engine depends on, and a record beside it holds these facts and the
file's own digest: a damaged engine, or one made for something else, never reaches TensorRT.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

SETTINGS = {"use_explicit_typing": True, "min_block_size": 1, "truncate_double": True}
"""Arguments of `torch_tensorrt.dynamo.compile`. From 2.13 on only explicit typing exists."""


class BuiltEngine(NamedTuple):
    """An engine for one shape, whether it came from the cache, and a note for the report."""

    step: Callable[..., Any]
    from_cache: bool
    note: str | None = None


def load_or_build(module: nn.Module, batch: Sequence[Tensor], cache: Path | None) -> BuiltEngine:
    """Return a TensorRT engine of ``module`` for inputs shaped like ``batch``.

    Weights and computations keep the module's own precisions. A cached engine that is damaged or
    made for something else is built again, and an engine that cannot be cached is used all the
    same; the result's ``note`` says so.

    Args:
        module: The module, on its device.
        batch: Example inputs.
        cache: Folder of the cached engines; None: no cache. Loading an engine runs code in it, so
            the folder must be the user's own.

    Raises:
        Exception: Whatever torch-tensorrt raises when it cannot build the engine.
    """
    import torch_tensorrt

    with torch.inference_mode(False), torch.no_grad():
        inputs = tuple(t.clone() for t in batch)
        exported = torch.export.export(module, inputs)
        facts = fingerprint(exported, inputs)
        path = None if cache is None else cache / f"{digest(facts)}.pt2"
        note = None
        if path is not None and path.exists():
            # The record is checked before the engine is loaded, because loading runs code in it.
            note = _why_unusable(path, facts)
            if note is None:
                try:
                    return BuiltEngine(torch_tensorrt.load(str(path)).module(), True)
                except Exception as error:  # of any kind: torch's, TensorRT's or the disk's
                    note = f"could not be loaded ({type(error).__name__}) and was built again"
        engine = torch_tensorrt.dynamo.compile(exported, arg_inputs=list(inputs), **SETTINGS)
        if path is not None:
            try:
                _store(torch_tensorrt, engine, inputs, path, facts)
            except Exception as error:  # likewise; the engine itself works
                note = f"could not be kept: {(str(error).splitlines() or [repr(error)])[0]}"
    return BuiltEngine(engine, False, note and f"the TensorRT engine {note}")


def fingerprint(exported: ExportedProgram, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """Return all that an engine depends on.

    That is the weights, the computation, shapes and types of the inputs, the GPU, and the versions
    and settings of the compiler.
    """
    weights = hashlib.sha256()
    tensors = {**exported.state_dict, **exported.constants}
    for name, value in sorted(tensors.items()):
        if isinstance(value, Tensor):
            weights.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            weights.update(raw.numpy().tobytes())
    gpu = torch.cuda.get_device_properties(inputs[0].device) if inputs[0].is_cuda else None
    return {
        "weights": weights.hexdigest(),
        "program": hashlib.sha256(str(exported.graph).encode()).hexdigest(),
        "inputs": [[str(t.dtype), *t.shape] for t in inputs],
        "gpu": None if gpu is None else [gpu.name, gpu.major, gpu.minor],
        "versions": {name: _version(name) for name in ("torch", "torch-tensorrt", "tensorrt")},
        "settings": SETTINGS,
    }


def digest(facts: dict[str, Any]) -> str:
    """Return a short name for a fingerprint."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _why_unusable(path: Path, facts: dict[str, Any]) -> str | None:
    """Why a cached engine cannot be used, in words; None if it can."""
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return "had no record and was built again"
    if record == {**facts, "sha256": sha256}:
        return None
    return "was damaged or of something else and was built again"


def _store(
    torch_tensorrt: Any, engine: Any, inputs: Sequence[Tensor], path: Path, facts: dict[str, Any]
) -> None:
    """Write an engine, then its record, each complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the cache's own folder: a rename is atomic within one file system only.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as folder:
        built, record = Path(folder) / "engine.pt2", Path(folder) / "engine.json"
        torch_tensorrt.save(engine, str(built), arg_inputs=list(inputs))
        with built.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        record.write_text(json.dumps({**facts, "sha256": sha256}, indent=1) + "\n")
        # The engine before its record: an engine without one is never trusted.
        os.replace(built, path)
        os.replace(record, path.with_suffix(".json"))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
