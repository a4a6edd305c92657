"""Recordings as `serve` leaves them in its folder."""

from __future__ import annotations

import json
from pathlib import Path

from app.outputs.jsonl import line_of
from app.serve.recorder import facts_of
from tests.support.bodies import bodies, frame, run_info

DATA = bytes(range(256)) * 4
"""What stands in the place of a video."""


def recorded(folder: Path, name: str = "door_20261127-093029", frames: int = 6) -> Path:
    """Write a recording's files as a `Recorder` does; return the file of its bodies."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.mp4").write_bytes(DATA)
    (folder / f"{name}.json").write_text(json.dumps(facts_of(run_info())))
    lines = folder / f"{name}.jsonl"
    rows = (line_of(run_info(), frame(k), bodies([1, 2][: k % 3])) for k in range(frames))
    lines.write_text("".join(f"{row}\n" for row in rows))
    return lines
