"""``evaluate``: compare a clip's bodies with a truth."""

from __future__ import annotations

from app.cli.flags import command
from app.cli.signals import unwind_by_signal
from app.config import Config
from app.options import EvaluateOptions


def run(options: EvaluateOptions, config: Config) -> int:
    """Evaluate one clip or many; return the exit code."""
    from app.evaluate.suite import run_command

    # Its processes end with it.
    with unwind_by_signal():
        return run_command(options, config)


app = command("evaluate", EvaluateOptions, run, profile=True)
