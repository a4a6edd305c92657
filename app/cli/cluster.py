"""``cluster``: look at a cluster that serves, drain a machine of it, or end it."""

from __future__ import annotations

import sys

from cyclopts import App

from app.cli.flags import binder, command
from app.config import ConfigError
from app.options import ClusterOptions, DrainOptions
from pipeline.core.program import program


def status(options: ClusterOptions) -> int:
    """Print the workers and the sources of a cluster; return the exit code."""
    from app.cluster.remote import table_at

    table = table_at(options.address)
    for worker in table.workers:
        print(
            f"{worker.id:20} {worker.state:9} {worker.streams:4} sources  {worker.load:4.0%}  "
            f"{worker.device}  node {worker.node[:12]}"
        )
    for source in table.sources:
        where = source.worker or source.reason or "moving"
        print(f"{source.name:20} {where}  moves {source.moves}  failovers {source.failovers}")
    if table.trouble:
        print(f"trouble: {table.trouble}")
    return 0


def drain(options: DrainOptions) -> int:
    """Move a machine's sources away and end its workers; return the exit code."""
    from app.cluster.remote import drain_at

    try:
        drain_at(options.address, options.node, not options.undo, _print_left)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return 0


def _print_left(sources: int, workers: int) -> None:
    print(f"{sources} sources and {workers} workers are left", file=sys.stderr)


def stop(options: ClusterOptions) -> int:
    """End what a killed `serve --cluster` has left; return the exit code."""
    from app.cluster.remote import stop_at

    stop_at(options.address)
    return 0


app = App(
    name="cluster", usage=f"{program()} cluster [status | drain NODE | stop] --cluster ADDRESS"
)
# Without an action the workers and sources are listed.
app.default(binder("status", ClusterOptions, status))
app.command(
    command(
        "cluster status",
        ClusterOptions,
        status,
        help="Show the workers and the sources of a cluster that serves.",
    )
)
app.command(
    command(
        "cluster drain",
        DrainOptions,
        drain,
        help="Move a machine's sources to others and end its workers, so that it can be taken out.",
    )
)
app.command(
    command(
        "cluster stop",
        ClusterOptions,
        stop,
        help="End the sources and workers that a `serve --cluster` has left that was killed.",
    )
)
