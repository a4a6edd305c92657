"""``events``: report throws as they happen."""

from __future__ import annotations

from app.cli.flags import command
from app.cli.signals import stop_by_signal
from app.cli.system import keep_memory_together
from app.config import Config
from app.options import EventsOptions


def run(options: EventsOptions, config: Config) -> int:
    """Watch the sources until they end or a signal comes; return the exit code."""
    from app.reports.command import run_command

    keep_memory_together()
    with stop_by_signal() as stop:
        code = run_command(options, config, stop.event)
    return stop.exit_code(code)


app = command("events", EventsOptions, run, profile=True)
