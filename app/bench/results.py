"""The benchmark's files: read, merged row by row, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_MEASURED_CODE = (
    "pipeline", "render", "app/bench/subject.py", "app/bench/measure.py", "app/bench/streams.py",
    "app/bench/footage.py", "app/bench/timers.py", "app/bench/plan.py", "app/bench/plan_nets.py",
    "app/bench/plan_people.py", "app/bench/pipelines.py",
)  # fmt: skip
_NOT_RUN = ("pipeline/events", "pipeline/capture")
_SAME_MACHINE = ("gpu", "driver", "cuda", "torch", "triton", "python", "cpu", "cores")
KEYS = ("hardware", "command", "rows")


def read(path: Path) -> dict[str, Any]:
    """A benchmark file, or an empty one where there is none. Raises ValueError for another file."""
    if not path.exists():
        return {"hardware": {}, "command": "", "rows": []}
    try:
        document = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a benchmark file: {error}") from error
    right = isinstance(document, dict) and set(document) == set(KEYS)
    right = right and isinstance(document["hardware"], dict) and isinstance(document["rows"], list)
    if not right or not all(isinstance(r, dict) and "id" in r for r in document["rows"]):
        raise ValueError(f"{path} is not a benchmark file: its keys are not {', '.join(KEYS)}")
    return document


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a benchmark file, as `write_text`."""
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file by a new one at once: whoever reads it sees the old or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def merge(
    document: Mapping[str, Any],
    row: Mapping[str, Any],
    hardware: Mapping[str, Any],
    command: str,
    order: Sequence[str],
) -> dict[str, Any]:
    """The document with ``row`` in the place of its former self, rows in ``order`` and unknown
    ones after it, every speed-up anew. Rows kept from another driver, torch or the like say so in
    their own ``measured_on``."""
    before = document["hardware"]
    changed = {k: before[k] for k in _SAME_MACHINE if k in before and before[k] != hardware.get(k)}
    rows = {}
    for old in document["rows"]:
        # What a row says of itself is older, and stays.
        note = {"measured_on": {**changed, **old.get("measured_on", {})}}
        rows[old["id"]] = {**old, **(note if note["measured_on"] else {})}
    rows[row["id"]] = dict(row)
    place = {name: k for k, name in enumerate(order)}
    ordered = sorted(rows.values(), key=lambda r: place.get(r["id"], len(place)))
    _set_speedups(ordered)
    return {"hardware": dict(hardware), "command": command, "rows": ordered}


def _set_speedups(rows: Sequence[dict[str, Any]]) -> None:
    """How many times faster a row is than the row it names, None where either is not known. Only
    rows of the same picture size and people are compared."""
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        other = by_id.get(row.get("speedup_over", ""))
        row["speedup"] = None
        if other is None or "streams" in row or not row["total_ms_p50"]:
            continue
        if all(row.get(key) == other.get(key) for key in ("size", "people", "clip")):
            row["speedup"] = round(other["total_ms_p50"] / row["total_ms_p50"], 2)


def finished(document: Mapping[str, Any], row_id: str, fingerprint: str) -> bool:
    """Whether a row is there already, as this code and these settings would measure it."""
    rows = (row for row in document["rows"] if row["id"] == row_id)
    return any(row.get("fingerprint") == fingerprint for row in rows)


def code_hash(root: Path = _ROOT) -> str:
    """A hash of all source and data that a row runs."""
    digest = hashlib.sha256()
    for part in _MEASURED_CODE:
        place = root / part
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in files:
            name = file.relative_to(root).as_posix()
            if file.suffix in (".py", ".npz", ".cu") and not name.startswith(_NOT_RUN):
                digest.update(name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def fingerprint(*parts: Any) -> str:
    """A short hash of anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def same_machine(hardware: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``hardware`` that a row's fingerprint depends on."""
    return {key: hardware.get(key) for key in _SAME_MACHINE}
