"""``view``: open a recording in 3D."""

from __future__ import annotations

from app.cli.flags import command
from app.cli.signals import stop_by_signal
from app.options import ViewOptions


def run(options: ViewOptions) -> int:
    """Show the recording until a signal comes; return the exit code."""
    from app.serve.view_command import run_command

    with stop_by_signal() as stop:
        code = run_command(options, stop.event)
    return stop.exit_code(code)


app = command("view", ViewOptions, run)
