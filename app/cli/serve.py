"""``serve``: show sources live on a page."""

from __future__ import annotations

from app.cli.flags import command
from app.cli.signals import stop_by_signal
from app.cli.system import keep_memory_together
from app.config import Config
from app.options import ServeOptions
from app.run import check_rotation


def run(options: ServeOptions, config: Config) -> int:
    """Serve until a signal comes; return the exit code."""
    check_rotation(config.output)

    from app.serve.command import run_command

    keep_memory_together()
    with stop_by_signal() as stop:
        code = run_command(options, config, stop.event)
    return stop.exit_code(code)


app = command("serve", ServeOptions, run, profile=True)
