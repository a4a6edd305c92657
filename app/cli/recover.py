"""``recover``: the bodies of a run that was killed before it made its files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.flags import command
from app.cli.signals import unwind_by_signal
from app.config import OutputConfig
from app.options import RecoverOptions
from app.outputs.catalog import entries

if TYPE_CHECKING:
    from app.exports.outputs import ExportOutput
    from app.outputs.spool import ColumnSpool


def run(options: RecoverOptions) -> int:
    """Make the files of a killed run; return the exit code."""
    return recover(options.path)


app = command("recover", RecoverOptions, run)


def recover(given: Path) -> int:
    """Make the files of the rows that a killed run left.

    Args:
        given: The file or folder of an output, or the hidden folder of rows itself, which stays.

    Returns:
        The exit code.

    Raises:
        OutputError: There are no rows, the run still goes, or a file is in the way.
    """
    from app.outputs.base import OutputError
    from app.outputs.spool import ColumnSpool, is_written

    folder, older = _rows_of(given)
    # The rows of a running process are not complete, and it will write the file itself.
    if is_written(folder):
        raise OutputError(f"{folder}: that run is still going; its files come when it ends")
    columns = ColumnSpool.left_behind(folder)
    if not columns.rows:
        raise OutputError(f"{folder}: no whole row is left of that run")
    there = _in_the_way(columns, folder)
    # Nothing is written over: the file may be of a later run.
    if there is not None:
        raise OutputError(f"{there} is from a later run; rename it, then recover again")
    # A file that is half written is removed.
    try:
        with unwind_by_signal():
            paths = list(_save(columns, folder))
    except KeyError as error:
        raise OutputError(f"{folder}: not rows of a run: {error} is missing") from None
    for path in paths:
        print(f"wrote {path}")
    # The rows are left to the user to delete, once the file is checked.
    print(f"{columns.rows} rows; {folder} is not needed any more")
    for other in older:
        print(f"an earlier run left {other}: move these files away, then recover that")
    return 0


def _in_the_way(columns: ColumnSpool, folder: Path) -> Path | None:
    """Return a file of another run that the rows' files would replace, None without one."""
    from app.outputs.poses import TRACKS
    from app.outputs.reservation import is_empty

    if (export := _export_of(columns, folder)) is not None:
        return export.in_the_way()
    if columns.beside.name == TRACKS:
        return next(iter(sorted(folder.parent.glob("track_*.npz"))), None)
    # An empty file holds the name, which the killed run had taken.
    return columns.beside if columns.beside.exists() and not is_empty(columns.beside) else None


def _save(columns: ColumnSpool, folder: Path) -> Iterator[Path]:
    """Make the files of rows, and yield them."""
    from app.exports.outputs import recording_of
    from app.outputs.poses import TRACKS, save_tracks
    from app.outputs.world_columns import save_with_world

    if (export := _export_of(columns, folder)) is not None:
        yield from export.export(recording_of(columns))
        for warning in export.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    elif columns.beside.name == TRACKS:
        yield from save_tracks(columns, folder.parent)
    else:
        # The other file of rows, `--mhr`, has no joints of SMPL, and no world.
        if "joints_m" in columns.names:
            save_with_world(columns, columns.beside)
        else:
            columns.save(columns.beside)
        yield columns.beside


def _export_of(columns: ColumnSpool, folder: Path) -> ExportOutput | None:
    """Return the export that the rows are of, None for those of another output."""
    from app.outputs.base import OutputError

    if "export" not in columns.extra:
        return None
    name = str(columns.extra["export"])
    entry = next((each for each in entries() if each.exports and each.name == name), None)
    if entry is None:
        raise OutputError(f"{folder}: its rows are of an output that is not installed: {name!r}")
    path = folder.parent if entry.kind == "folder" else columns.beside
    # The killed run's settings are not known.
    output: ExportOutput = entry.make(path, OutputConfig())
    return output


def _rows_of(given: Path) -> tuple[Path, list[Path]]:
    """Return the newest folder of rows that a run left of an output, and those of earlier runs."""
    from app.outputs.base import OutputError

    if given.suffix == ".rows" and given.is_dir():
        return given, []
    found = sorted(set(_left_of(given)), key=lambda folder: folder.stat().st_mtime)
    if not found:
        raise OutputError(f"{given}: there are no rows of a killed run beside it")
    return found[-1], found[:-1]


def _left_of(given: Path) -> Iterator[Path]:
    """Yield the folders of rows of an output, and of those with its name and a number."""
    from app.outputs.poses import TRACKS

    # Escaped, because a file's name may hold `[` or `*`.
    name, stem, suffix = escape(given.name), escape(given.stem), escape(given.suffix)
    parent = given.parent
    yield from given.glob(f".{TRACKS}.*.rows")
    yield from parent.glob(f"{name}.[0-9]*/.{TRACKS}.*.rows")
    yield from parent.glob(f".{name}.*.rows")
    yield from parent.glob(f".{stem}.[0-9]*{suffix}.*.rows")
