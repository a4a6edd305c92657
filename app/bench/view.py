"""Show the benchmark: progress on standard error, tables on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from app.bench.readme import floor_cells, ms
from app.bench.rows import Row

if TYPE_CHECKING:
    import rich.console
    import rich.status
    import rich.table

_EVERY_S = 10.0
_WIDTH = 150
"""The width of tables that are not shown on a terminal."""


class Progress:
    """Shows which row is being measured and how far it is. Use it in a ``with`` block.

    On a terminal it is a line that changes; elsewhere a line at each row's start and every ten
    seconds. Calling it with a few words updates it.

    Args:
        stream: Where to write; None for standard error.
        clock_s: A monotonic clock in seconds.
    """

    def __init__(
        self, stream: TextIO | None = None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock_s = clock_s
        self._next_s = 0.0
        self._row = ""
        self._status: rich.status.Status | None = None

    def __enter__(self) -> Progress:
        # A line that changes needs a terminal; a log file gets plain lines.
        if self._stream.isatty():
            from rich.console import Console

            self._status = Console(file=self._stream).status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def row(self, number: int, count: int, row_id: str) -> None:
        """Show that a row begins."""
        self._row = f"[{number}/{count}] {row_id}" if self._status is None else row_id
        if self._status is None:
            print(self._row, file=self._stream, flush=True)
            self._next_s = self._clock_s() + _EVERY_S

    def say(self, text: str) -> None:
        """Write a line that stays."""
        if self._status is not None:
            self._status.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def __call__(self, text: str) -> None:
        if self._status is not None:
            self._status.update(f"{self._row}: {text}")
        elif self._clock_s() >= self._next_s:
            self._next_s = self._clock_s() + _EVERY_S
            print(f"{self._row}: {text}", file=self._stream, flush=True)


def console_for(stream: TextIO) -> rich.console.Console:
    """Return a console; it writes plain text if the stream is no terminal."""
    from rich.console import Console

    width = None if stream.isatty() else _WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=True, markup=False)


def _table(*head: str, left: int = 1) -> rich.table.Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(*head, box=SIMPLE_HEAD)
    for column in table.columns[left:]:
        column.justify = "right"
    return table


def print_list(rows: Sequence[Row], reasons: Mapping[str, str | None], stream: TextIO) -> None:
    """Print every row, what it is, and why it cannot be measured on this machine.

    Args:
        rows: The rows.
        reasons: By row id, why it cannot be measured; None if it can.
        stream: Where to write.
    """
    table = _table("row", "what", "here", left=3)
    for row in rows:
        reason = reasons[row.id]
        table.add_row(row.id, row.name, "yes" if reason is None else f"not here: {reason}")
    console_for(stream).print(table)


def print_results(
    document: Mapping[str, Any], ids: Sequence[str], reasons: Mapping[str, str], stream: TextIO
) -> None:
    """Print rows of a document, their stages with their floors, and why others were not measured.

    Args:
        document: The document.
        ids: The ids of the rows.
        reasons: By row id, why it was not measured.
        stream: Where to write.
    """
    console = console_for(stream)
    rows = [row for name in ids for row in document["rows"] if row["id"] == name]
    latency = [row for row in rows if "streams" not in row]
    if rows or reasons:
        console.print(_totals(rows, ids, reasons))
    for row in rows:
        for note in row.get("notes", ()):
            console.print(f"  {row['id']}: {note}")
    for row in latency:
        table = _table(
            row["id"], "ms", "roofline floor", "kernels", "launch floor", "floor / ms", "bound by"
        )
        for stage, taken in row["stages_ms"].items():
            table.add_row(*floor_cells(row, stage, taken))
        console.print(table)


def _totals(
    rows: Sequence[Mapping[str, Any]], ids: Sequence[str], reasons: Mapping[str, str]
) -> rich.table.Table:
    table = _table(
        "row", "p50 ms", "p95 ms", "faster", "streams", "plan ms", "GPU MB", "4090 predicted",
        "weights", "engine",
    )  # fmt: skip
    table.columns[-1].justify = "left"
    for row in rows:
        table.add_row(
            row["id"],
            ms(row["total_ms_p50"]),
            ms(row["total_ms_p95"]),
            f"{row['speedup']:.1f}x" if row["speedup"] else "",
            str(row.get("streams", "")),
            ms(row["plan_ms"]),
            str(row.get("gpu_memory_mb") or ""),
            ms(row.get("predicted_rtx4090_ms")),
            row["weights"],
            row["engine"],
        )
    for name in ids:
        if name in reasons:
            table.add_row(name, *[""] * 8, f"not measured here: {reasons[name]}")
    return table
