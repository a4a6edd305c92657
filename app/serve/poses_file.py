"""The bodies of a served source's recording as files of other programs, made on request.

They are made in a child process: reading minutes of JSON would hold up the sources that are drawn.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from app.exports import bvh, gltf
from app.exports.recording import ExportError, read_recording
from app.outputs.poses import ROWS
from app.outputs.spool import ColumnSpool
from app.outputs.world_columns import GIVEN, save_with_world
from app.serve.recorder import FACTS, SCHEMA
from app.worker_process import WorkerProcess
from pipeline.core.user_file import read_text, reading
from pipeline.world.camera_pose import CameraPose

Kind = Literal["npz", "glb", "bvh"]
SUFFIX_OF: dict[Kind, str] = {"npz": ".npz", "glb": ".glb", "bvh": "_bvh.zip"}
"""How the files' names end. A BVH holds one person, so there is an archive of them."""
_LINES = 256
"""The lines that are turned into rows at once."""
_NICENESS = 10


_MEMORY_MB = 2048
"""What the child process may allocate, in MB."""
_IDLE_S = 0.05
"""How soon it is noticed that the file is not wanted any more."""


class TooLong(Exception):
    """Making a file takes longer than a request may."""


class Stopped(Exception):
    """The file is not wanted any more."""


def make_poses(lines: Path, kind: Kind, out: Path, limit_s: float, stop: threading.Event) -> None:
    """Write the bodies of a recording as a file, in a child process, and wait for it.

    Args:
        lines: The recording's file of bodies.
        kind: The format.
        out: The file to write.
        limit_s: How long it may take, in seconds.
        stop: Ends it when it is set.

    Raises:
        ExportError: There are no bodies in it, it cannot be read, or there is no room for the file;
            the message is one line.
        TooLong: It takes too long.
        Stopped: ``stop`` was set.
    """
    # The rows and the file take less than the lines, which are text.
    if shutil.disk_usage(out.parent).free < lines.stat().st_size:
        raise ExportError(f"{lines.name}: the server's disk for temporary files is full")
    process = WorkerProcess(_work, lines, kind, out)
    end_s = time.monotonic() + limit_s
    try:
        while not process.connection.poll(_IDLE_S):
            if stop.is_set():
                raise Stopped
            if time.monotonic() > end_s:
                raise TooLong
        reason = process.connection.recv()
    except (EOFError, ConnectionError):
        reason = f"{lines.name}: the process that read it has died; it may be too large"
    finally:
        # It has answered, or its answer is not wanted.
        process.kill()
    if reason:
        raise ExportError(reason)


def write_poses(lines: Path, kind: Kind, out: Path) -> None:
    """Write the bodies of a recording as a file.

    Raises:
        OSError: As `make_poses`; also where the file cannot be written.
    """
    if kind == "npz":
        write_npz(lines, out)
        return
    with TemporaryDirectory(dir=out.parent) as folder:
        npz = Path(folder) / f"{lines.stem}.npz"
        write_npz(lines, npz)
        recording = read_recording(npz)
        if kind == "glb":
            gltf.write(recording, out)
            return
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for track in recording.tracks:
                path = Path(folder) / f"{lines.stem}_track_{track.id:04d}.bvh"
                bvh.write(recording, track, path)
                archive.write(path, path.name)


def write_npz(lines: Path, out: Path) -> None:
    """Write a recording's lines as `--poses` writes a run.

    Raises:
        OSError: There are no bodies in it, it cannot be read, or the file cannot be written.
    """
    with closing(ColumnSpool(out, ROWS, _facts(lines.with_suffix(FACTS)))) as spool:
        with reading(lines, " is no recording of serve", ExportError):
            for bodies in _bodies(lines):
                spool.append({name: _column(name, bodies) for name in ROWS})
        if not spool.rows:
            raise ExportError(f"{lines.name}: it has no people")
        save_with_world(spool, out)


def _facts(path: Path) -> dict[str, np.ndarray | np.generic]:
    """Return what a recording's file of facts says, as `--poses` names it. Raises OSError."""
    with reading(path, " does not belong to a recording of serve", ExportError):
        facts = json.loads(read_text(path))
        if facts["schema"] != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        fps = facts["fps"]
        return {
            "intrinsics": np.array(facts["intrinsics"], np.float64).reshape(3, 3),
            "image_size": np.array(facts["image_size"], np.int64).reshape(2),
            "fps": np.float64(np.nan if fps is None else fps),
            "model": np.str_(facts["model"]),
            # Of a served source nothing is given.
            GIVEN: CameraPose().as_array(),
        }


def _bodies(lines: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield the bodies of some lines at a time, each with its frame and time."""
    with lines.open("rb") as file:
        # A recording that is being written may end in a piece of a line.
        whole = (line for line in file if line.endswith(b"\n"))
        while some := list(islice(whole, _LINES)):
            frames = map(json.loads, some)
            yield [
                {**body, "frame": frame["frame"], "pts_s": frame["pts_s"]}
                for frame in frames
                for body in frame["bodies"]
            ]


def _column(name: str, bodies: list[dict[str, Any]]) -> np.ndarray:
    dtype, shape = ROWS[name]
    return np.array([body[name] for body in bodies], dtype).reshape(len(bodies), *shape)


def _work(connection: Connection, lines: Path, kind: Kind, out: Path) -> None:
    """Write the file in the child process; send the reason why it cannot be, else ""."""
    # Here, because Windows has no such limits.
    from pipeline.core.process_limits import limit_process

    os.nice(_NICENESS)
    limit_process(_MEMORY_MB)
    try:
        write_poses(lines, kind, out)
        connection.send("")
    except OSError as error:
        connection.send(str(error))
    except MemoryError:
        connection.send(f"{lines.name}: too large for this format; its JSON lines have it all")
