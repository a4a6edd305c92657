"""``bench``: measure how long four frames take."""

from __future__ import annotations

from app.cli.flags import command
from app.options import BenchOptions


def run(options: BenchOptions) -> int:
    """Measure the rows; return the exit code."""
    from app.bench.command import run_command

    return run_command(options)


app = command(
    "bench",
    BenchOptions,
    run,
    epilogue="A row that is in the file already, measured by the same code with the same settings, "
    "is kept; an interrupted run keeps what was finished.",
)
