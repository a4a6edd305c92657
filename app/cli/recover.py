"""``recover``: the bodies of a run that was killed before it made its npz."""

from __future__ import annotations

from glob import escape
from pathlib import Path

from app.cli.flags import command
from app.cli.signals import unwind_by_signal
from app.options import RecoverOptions


def run(options: RecoverOptions) -> int:
    """Make the files of a killed run; return the exit code."""
    return recover(options.path)


app = command("recover", RecoverOptions, run)


def recover(given: Path) -> int:
    """Make the npz files of the rows that a killed run left.

    Args:
        given: OUT.npz, an AMASS folder, or the hidden folder of rows itself, which stays.

    Returns:
        The exit code.

    Raises:
        OutputError: There are no rows, the run still goes, or a file is in the way.
    """
    from app.outputs.base import OutputError
    from app.outputs.poses import TRACKS, save_tracks
    from app.outputs.spool import ColumnSpool, is_written

    folder, older = _rows_of(given)
    # The rows of a running process are not complete, and it will write the file itself.
    if is_written(folder):
        raise OutputError(f"{folder}: that run is still going; its files come when it ends")
    columns = ColumnSpool.left_behind(folder)
    if columns.beside.name == TRACKS:
        there = next(iter(sorted(folder.parent.glob("track_*.npz"))), None)
    else:
        there = columns.beside if columns.beside.exists() else None
    # Nothing is written over: the file may be of a later run.
    if there is not None:
        raise OutputError(f"{there} is there already; move it away first")
    # A file that is half written is removed.
    with unwind_by_signal():
        if columns.beside.name == TRACKS:
            paths = list(save_tracks(columns, folder.parent))
        else:
            columns.save(columns.beside)
            paths = [columns.beside]
    for path in paths:
        print(f"wrote {path}")
    # The rows are left to the user to delete, once the file is checked.
    print(f"{columns.rows} rows; {folder} is not needed any more")
    for other in older:
        print(f"an earlier run left {other}: move these files away, then recover that")
    return 0


def _rows_of(given: Path) -> tuple[Path, list[Path]]:
    """Return the newest folder of rows that a run left of an output, and those of earlier runs."""
    from app.outputs.base import OutputError
    from app.outputs.poses import TRACKS

    if given.suffix == ".rows" and given.is_dir():
        return given, []
    inside = given.is_dir()
    name, parent = (TRACKS, given) if inside else (given.name, given.parent)
    # Escaped, because a file's name may hold `[` or `*`.
    left = parent.glob(f".{escape(name)}.*.rows")
    found = sorted(left, key=lambda folder: folder.stat().st_mtime)
    if not found:
        raise OutputError(f"{given}: there are no rows of a killed run beside it")
    return found[-1], found[:-1]
