"""TensorRT engines through torch-tensorrt, built side by side and cached on disk.

An engine fits one GPU model, one edition and one set of versions. So the name of each file is a
digest of all that the engine depends on, and a record beside it holds these facts and the file's
own digest: a damaged engine, or one made for something else, never reaches TensorRT.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from pipeline.gpu.tensorrt_build import SETTINGS, Build, build_all
from pipeline.gpu.tensorrt_install import (
    Edition,
    TensorrtError,
    import_torch_tensorrt,
    installed,
    versions,
)

_BUILDING = ".building-"
Program = tuple[nn.Module, Sequence[Tensor]]
"""A module on its device, and example inputs of the shapes that its engine is for."""


class BuiltEngine(NamedTuple):
    """An engine for one shape, whether it came from the cache, and a note for the report."""

    step: Callable[..., Any]
    from_cache: bool
    note: str | None = None


def load_or_build(
    programs: Sequence[Program],
    cache: Path | None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[BuiltEngine | Exception]:
    """Return TensorRT engines of several programs, those that are not cached built side by side.

    Weights and computations keep the modules' own precisions. A cached engine that is damaged or
    made for something else is built again, and an engine that cannot be kept is used all the same;
    its ``note`` says so.

    Args:
        programs: Modules with example inputs.
        cache: Folder of the cached engines; None: no cache. Loading an engine runs code in it, so
            the folder must be the user's own.
        on_progress: Called with the engines built and the engines to build.

    Returns:
        For each program its engine, or the error that stopped its build.

    Raises:
        TensorrtError: TensorRT is not installed or does not fit this torch.
    """
    edition, torch_tensorrt = installed(), import_torch_tensorrt()
    results: list[BuiltEngine | Exception | None] = [None] * len(programs)
    with _working_folder(cache) as (work, unkept):
        builds: dict[int, tuple[Build, _Place]] = {}
        for number, program in enumerate(programs):
            try:
                exported = _exported(program)
                facts = fingerprint(exported, edition)
                place = _Place(None if unkept else cache, facts, unkept)
                found = place.load(torch_tensorrt)
                if found is None:
                    build = _files(work, number)
                    with _quiet():
                        torch.export.save(exported, build.program)
                    builds[number] = build, place
                results[number] = found
            except Exception as error:  # of any kind: torch's, TensorRT's or the disk's
                results[number] = error
        numbers = list(builds)
        ended = 0

        def keep(which: int, reason: str | None) -> None:
            # At once: a program that is stopped while others are built keeps what is done.
            nonlocal ended
            build, place = builds[numbers[which]]
            results[numbers[which]] = place.keep(torch_tensorrt, build, reason)
            ended += 1
            on_progress(ended, len(numbers))

        if numbers:
            on_progress(0, len(numbers))
        build_all([builds[number][0] for number in numbers], edition, keep)
    return [result for result in results if result is not None]


class _Place:
    """Where one engine is kept: its file, its record, and why it was not found."""

    def __init__(self, cache: Path | None, facts: dict[str, Any], note: str | None) -> None:
        self.cache, self.facts, self.note = cache, facts, note
        self.name = digest(facts)

    def load(self, torch_tensorrt: Any) -> BuiltEngine | None:
        """Return the cached engine; None where there is none that can be used."""
        path = self._path()
        if path is None or not path.exists():
            return None
        # The record is checked before the engine is loaded, because loading runs code in it.
        self.note = _why_unusable(path, self.facts)
        if self.note is None:
            try:
                return BuiltEngine(_loaded(torch_tensorrt, path), True)
            except Exception as error:  # of any kind: torch's, TensorRT's or the disk's
                self.note = f"could not be loaded ({type(error).__name__}) and was built again"
        return None

    def keep(
        self, torch_tensorrt: Any, build: Build, reason: str | None
    ) -> BuiltEngine | Exception:
        """Return a built engine, moved to the cache; the error of a build that failed."""
        if reason is not None:
            return TensorrtError(f"{reason}; all that the build said is in {self._log(build)}")
        path = self._path()
        try:
            # Loaded before it is kept: an engine that cannot be loaded is not worth a place.
            step = _loaded(torch_tensorrt, build.engine)
            if path is not None:
                _store(build.engine, path, self.facts)
        except Exception as error:  # of any kind: torch's, TensorRT's or the disk's
            return error
        return BuiltEngine(step, False, self.note and f"the TensorRT engine {self.note}")

    def _path(self) -> Path | None:
        return None if self.cache is None else self.cache / f"{self.name}.pt2"

    def _log(self, build: Build) -> Path:
        """Return where the log of a failed build stays."""
        folder = self.cache or Path(tempfile.mkdtemp(prefix="bodystream-tensorrt-"))
        return Path(shutil.copy(build.log, folder / f"{self.name}.log"))


def fingerprint(exported: ExportedProgram, edition: Edition) -> dict[str, Any]:
    """Return all that an engine depends on.

    That is the weights, the computation, shapes and types of the inputs, the GPU, the edition of
    TensorRT, and the versions and settings of the compiler.
    """
    inputs = exported.example_inputs[0]
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
        "edition": edition.package,
        "versions": versions(edition),
        "settings": SETTINGS,
    }


def digest(facts: dict[str, Any]) -> str:
    """Return a short name for a fingerprint."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _exported(program: Program) -> ExportedProgram:
    module, batch = program
    with torch.inference_mode(False), torch.no_grad(), _quiet():
        return torch.export.export(module, tuple(t.clone() for t in batch))


def _loaded(torch_tensorrt: Any, path: Path) -> Callable[..., Any]:
    with torch.inference_mode(False), torch.no_grad(), _quiet():
        return torch_tensorrt.load(str(path)).module()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of torch's export about itself: its file reader and its trees."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _files(work: Path, number: int) -> Build:
    return Build(work / f"{number}.program.pt2", work / f"{number}.pt2", work / f"{number}.log")


@contextlib.contextmanager
def _working_folder(cache: Path | None) -> Iterator[tuple[Path, str | None]]:
    """A folder for builds, and why engines cannot be kept in the cache.

    It is in the cache, whose lock is held meanwhile: of several processes that need the same
    engines, one builds them and the others load them.
    """
    with contextlib.ExitStack() as stack:
        folder, unkept = cache, None
        if cache is not None:
            try:
                cache.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((cache / ".lock").open("wb"))
                # Some network file systems have no locks; then each process builds for itself.
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    _remove_abandoned(cache)
            except OSError as error:
                folder, unkept = None, f"could not be kept: {error.strerror or error}"
        # In the cache's own folder, because a rename is atomic within one file system only.
        work = tempfile.TemporaryDirectory(dir=folder, prefix=_BUILDING)
        yield Path(stack.enter_context(work)), unkept


def _remove_abandoned(cache: Path) -> None:
    """Remove the folders of builds whose program was killed; nothing is built while we hold the
    lock."""
    for folder in cache.glob(f"{_BUILDING}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _why_unusable(path: Path, facts: dict[str, Any]) -> str | None:
    """Why a cached engine cannot be used, in words; None if it can."""
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        sha256 = _sha256(path)
    except (OSError, ValueError):
        return "had no record and was built again"
    if record == {**facts, "sha256": sha256}:
        return None
    return "was damaged or of something else and was built again"


def _store(built: Path, path: Path, facts: dict[str, Any]) -> None:
    """Move an engine to its place, then write its record, each complete or not at all."""
    record = built.with_suffix(".json")
    record.write_text(json.dumps({**facts, "sha256": _sha256(built)}, indent=1) + "\n")
    # The engine before its record: an engine without one is never trusted.
    os.replace(built, path)
    os.replace(record, path.with_suffix(".json"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
