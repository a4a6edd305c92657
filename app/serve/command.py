"""``serve`` with its options parsed."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from app.build import load
from app.config import Config, ConfigError
from app.garbage import leave_out_loaded
from app.options import ServeOptions
from app.reports.sinks import read_motion, webhook_of
from app.serve.source_hub import SourceHub
from app.serve.warm_up import warm_up_for_many
from pipeline.capture.addresses import STANDARD_INPUT
from pipeline.capture.open import check_there
from pipeline.events.motion import Motion


def name_and_source(text: str) -> tuple[str | None, str]:
    """Return the name, if any, and the source of [NAME=]SOURCE; a file's own name may hold an
    equals sign.

    Raises:
        ConfigError: It is of a file that is there, and the name has other characters.
    """
    name, _, source = text.partition("=")
    if not source or Path(text).exists():
        return None, text
    if re.fullmatch(r"[A-Za-z0-9._-]+", name):
        return name, source
    if Path(source).exists():
        raise ConfigError(f"{text}: a name has letters from a to z, digits, '.', '_' and '-' only")
    return None, text


def warn(line: str) -> None:
    """Print a line of warning."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


OpenHub = Callable[
    [ServeOptions, Config, Motion | None, threading.Event, list[BaseException]],
    AbstractContextManager[SourceHub],
]
"""Makes the hub: of the options, the configuration without a source, the motion of events, what
ends the command, and a list for the errors that end it."""


@contextmanager
def hub_here(
    options: ServeOptions,
    config: Config,
    motion: Motion | None,
    stop: threading.Event,
    faults: list[BaseException],
) -> Iterator[SourceHub]:
    """A hub in this process, within a ``with`` block; an `OpenHub`."""
    from app.serve.hub import Hub

    def ended(error: BaseException) -> None:
        faults.append(error)
        stop.set()

    with ExitStack() as stack:
        estimator = load(config)
        stack.callback(estimator.close)
        # Before the first source starts, so that its first frames do not wait for it.
        warm_up_for_many(estimator, config, events=motion is not None)
        leave_out_loaded()
        hook = None if options.webhook is None else webhook_of(stack, options)
        yield stack.enter_context(
            Hub(config, estimator, Path(options.folder), ended, motion, hook, warn)
        )


def run_command(
    options: ServeOptions, config: Config, stop: threading.Event, open_hub: OpenHub = hub_here
) -> int:
    """Serve until ``stop`` is set.

    Args:
        options: The command's own options.
        config: The profile with the flags over it.
        stop: Ends it; set here too where the server fails.
        open_hub: Makes the hub that runs the sources.

    Returns:
        The exit code.

    Raises:
        ConfigError: Options that do not go together, or a wrong address, token or motion.
        SourceNotFound: There is no such clip.
        WeightsError: A model's files are missing.
        OSError: The address cannot be listened on.
    """
    try:
        from app.serve.connection import listen
        from app.serve.poses_jobs import PosesJobs
        from app.serve.running import host_and_port, running, token_for
        from app.serve.web import create_app
    except ModuleNotFoundError as error:
        raise RuntimeError(f"serve needs {error.name}: pip install 'bodystream[serve]'") from None

    motion = read_motion("--motion", options.motion) if options.events else None
    if motion is not None and config.output.timing == "low-latency":
        raise ConfigError("--events: searches every frame; --low-latency leaves some out")
    if motion is None and options.webhook is not None:
        raise ConfigError("--webhook: needs --events, which it sends")
    sources = [name_and_source(source) for source in options.source]
    for _, address in sources:
        if address in STANDARD_INPUT:
            raise ConfigError("-: `serve` reads no standard input; `run -` does")
        # On the page its source would only say that it has ended, and the person who started the
        # server would not see it.
        check_there(address)
    host, port = host_and_port(options.address)
    token = token_for(host, options.token)
    # Bound before the models load, so that a port in use is reported at once. It listens only once
    # the sources exist; until then clients are refused instead of left to wait.
    listening = listen(host, port)
    faults: list[BaseException] = []

    try:
        # The page shows what the numbers in the corner would.
        plain = replace(config, source="", render=replace(config.render, hud=False))
        with ExitStack() as stack:
            hub = stack.enter_context(open_hub(options, plain, motion, stop, faults))
            # Stopped while it started: it may have no worker yet.
            if stop.is_set():
                return 0
            for name, address in sources:
                # Only the operator may name files of this machine; the API may not.
                hub.add(address, name, trusted=True)
            # Left before the hub closes: its sources must outlive the requests that use them.
            jobs = PosesJobs()
            app = create_app(hub, jobs, token)
            _, thread = stack.enter_context(running(app, listening))
            # Closed before the server, which would wait for their requests.
            stack.callback(jobs.close)
            # Woken now and then, to notice a server thread that failed.
            while not stop.wait(0.2) and thread.is_alive():
                pass
    finally:
        listening.close()
    if faults:
        raise faults[0]
    return 0
