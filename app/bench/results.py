"""Read, merge and write the benchmark's files; a file is replaced as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.user_file import reading

_ROOT = Path(__file__).parents[2]
_MEASURED_CODE = (
    "pipeline", "render", "app/bench/subject.py", "app/bench/measure.py", "app/bench/streams.py",
    "app/bench/footage.py", "app/bench/timers.py", "app/bench/plan.py", "app/bench/plan_nets.py",
    "app/bench/plan_people.py", "app/bench/pipelines.py",
    "app/bench/upstream_sam3d.py",
)  # fmt: skip
"""The code that a row runs. A change in it makes a row's fingerprint another one."""
_NOT_RUN = ("pipeline/events", "pipeline/capture")
_SAME_MACHINE = ("gpu", "driver", "cuda", "torch", "triton", "python", "cpu", "cores")
KEYS = ("hardware", "command", "rows")


def read(path: Path) -> dict[str, Any]:
    """Read a benchmark file.

    Returns:
        Its document; an empty one if there is no such file.

    Raises:
        ValueError: The file is not a benchmark's.
    """
    if not path.exists():
        return {"hardware": {}, "command": "", "rows": []}
    with reading(path, " is not a benchmark file"):
        document = json.loads(path.read_text(encoding="utf-8"))
    right = isinstance(document, dict) and set(document) == set(KEYS)
    right = right and isinstance(document["hardware"], dict) and isinstance(document["rows"], list)
    # Checked before anything is measured: another JSON file must not be written over.
    if not right or not all(isinstance(r, dict) and "id" in r for r in document["rows"]):
        raise ValueError(f"{path} is not a benchmark file: its keys are not {', '.join(KEYS)}")
    return document


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a benchmark file, as `write_text`."""
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: a reader sees the old or the new text, never a part of it.

    Raises:
        OSError: The file cannot be written; the old one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: a rename is atomic only within a file system.
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        # mkstemp makes files that only their owner may read.
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
    """Return a document with a new or replaced row and with all speed-ups computed again.

    Args:
        document: The document before.
        row: The new row.
        hardware: The machine that the new row was measured on. Older rows that were measured with
            another driver, torch or the like get a ``measured_on`` that says so.
        command: The command that was run.
        order: The ids of the rows in the table's order; unknown rows come last.
    """
    before = document["hardware"]
    changed = {k: before[k] for k in _SAME_MACHINE if k in before and before[k] != hardware.get(k)}
    rows = {}
    for old in document["rows"]:
        # A row's own note is older than the document's hardware, so it wins.
        note = {"measured_on": {**changed, **old.get("measured_on", {})}}
        rows[_what(old)] = {**old, **(note if note["measured_on"] else {})}
    rows[_what(row)] = dict(row)
    place = {name: k for k, name in enumerate(order)}
    ordered = sorted(
        rows.values(), key=lambda r: (place.get(r["id"], len(place)), r.get("people", 1))
    )
    _set_speedups(ordered)
    return {"hardware": dict(hardware), "command": command, "rows": ordered}


def _what(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a row measures: rows of other people or pictures stand beside it."""
    return row["id"], row.get("people"), row.get("size")


def _set_speedups(rows: Sequence[dict[str, Any]]) -> None:
    """Set how many times faster each row is than the first row that it names and that is there;
    None if there is none, or if their pictures, people or clips differ."""
    known = {_what(row): row for row in rows}
    for row in rows:
        alike = {name: (name, *_what(row)[1:]) for name in row.get("against", ())}
        measured = (name for name, what in alike.items() if what in known)
        row["speedup_over"] = next(measured, row.get("speedup_over", ""))
        other = known.get((row["speedup_over"], *_what(row)[1:]))
        row["speedup"] = None
        if other is None or "streams" in row or not row["total_ms_p50"]:
            continue
        # Other pictures take another time, so a ratio would mean nothing.
        if all(row.get(key) == other.get(key) for key in ("size", "people", "clip")):
            row["speedup"] = round(other["total_ms_p50"] / row["total_ms_p50"], 2)


def finished(document: Mapping[str, Any], row_id: str, fingerprint: str) -> bool:
    """Return whether a document has a row with this fingerprint, which need not be measured."""
    rows = (row for row in document["rows"] if row["id"] == row_id)
    return any(row.get("fingerprint") == fingerprint for row in rows)


def code_hash(root: Path = _ROOT) -> str:
    """Return a hash of all code and data that a row runs, names and contents."""
    digest = hashlib.sha256()
    for part in _MEASURED_CODE:
        place = root / part
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in files:
            name = file.relative_to(root).as_posix()
            # Names and contents, so that a file that is moved counts as a change too.
            if file.suffix in (".py", ".npz", ".cu") and not name.startswith(_NOT_RUN):
                digest.update(name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def fingerprint(*parts: Any) -> str:
    """Return a short hash of values; those that JSON cannot hold count as their text."""
    # Sorted, so that the order of settings does not change the hash.
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def same_machine(hardware: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a machine's description that a row's fingerprint depends on."""
    return {key: hardware.get(key) for key in _SAME_MACHINE}
