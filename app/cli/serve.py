"""``serve``: show sources live on a page."""

from __future__ import annotations

from app.cli.flags import command
from app.cli.signals import stop_by_signal
from app.cli.system import keep_memory_together
from app.config import Config, ConfigError
from app.options import ServeOptions
from app.run import check_rotation


def run(options: ServeOptions, config: Config) -> int:
    """Serve until a signal comes; return the exit code."""
    check_rotation(config.output)

    from app.serve.command import hub_here, run_command

    open_hub = hub_here
    if options.cluster is not None:
        from app.cluster.serving import hub_in_cluster

        open_hub = hub_in_cluster
    else:
        _check_alone(options)
    keep_memory_together()
    with stop_by_signal() as stop:
        code = run_command(options, config, stop.event, open_hub)
    return stop.exit_code(code)


def _check_alone(options: ServeOptions) -> None:
    """Raise ConfigError for an option that a cluster alone reads."""
    for name in ("workers", "max_streams_per_worker", "admit", "poses_to"):
        if getattr(options, name) != getattr(ServeOptions, name):
            raise ConfigError(f"--{name.replace('_', '-')}: needs --cluster")


app = command("serve", ServeOptions, run, profile=True)
