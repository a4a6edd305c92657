"""``serve`` with its options parsed."""

from __future__ import annotations

import re
import secrets
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from app.build import load
from app.config import Config, ConfigError
from app.options import ServeOptions
from app.reports.sinks import read_motion, webhook_of
from pipeline.capture.addresses import STANDARD_INPUT
from pipeline.capture.open import check_there

_END_S = 5.0
"""How long the web server may take to end its requests."""


def host_and_port(text: str) -> tuple[str, int]:
    """Return the host and port of [HOST:]PORT; the default host is this machine alone. Raises
    ConfigError."""
    # From the right, because an IPv6 address has colons of its own.
    host, _, port = text.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) >= 65536:
        raise ConfigError(f"{text}: give [HOST:]PORT, such as 8080 or 0.0.0.0:8080")
    return host.strip("[]") or "127.0.0.1", int(port)


def name_and_source(text: str) -> tuple[str | None, str]:
    """Return the name, if any, and the source of [NAME=]SOURCE; a file's own name may hold an
    equals sign."""
    name, _, source = text.partition("=")
    if source and re.fullmatch(r"[A-Za-z0-9._-]+", name) and not Path(text).exists():
        return name, source
    return None, text


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)


def run_command(options: ServeOptions, config: Config, stop: threading.Event) -> int:
    """Serve until ``stop`` is set.

    Args:
        options: The command's own options.
        config: The profile with the flags over it.
        stop: Ends it; set here too where the server fails.

    Returns:
        The exit code.

    Raises:
        ConfigError: Options that do not go together, or a wrong address, token or motion.
        SourceNotFound: There is no such clip.
        WeightsError: A model's files are missing.
        OSError: The address cannot be listened on.
    """
    try:
        from app.serve.connection import listen, server_of
        from app.serve.hub import Hub
        from app.serve.security import is_loopback
        from app.serve.token_auth import TokenAuth
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
    token = options.token
    # Other machines can reach this address, so it is never served without a token.
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
        print(f"token: {token}", file=sys.stderr)
    if token is not None:
        try:
            TokenAuth(token)
        except ValueError as error:
            raise ConfigError(f"--token: {error}") from None
    # Bound before the models load, so that a port in use is reported at once. It listens only once
    # the sources exist; until then clients are refused instead of left to wait.
    listening = listen(host, port)
    faults: list[BaseException] = []

    def ended(error: BaseException) -> None:
        faults.append(error)
        stop.set()

    estimator = load(config)
    if motion is not None:
        # Before the first source starts, so that its first frames do not wait for it.
        estimator.warm_up(config.perceive.people, events=True)
    try:
        # The page shows what the numbers in the corner would.
        plain = replace(config, source="", render=replace(config.render, hud=False))
        with ExitStack() as stack:
            hook = None if options.webhook is None else webhook_of(stack, options)
            hub = stack.enter_context(
                Hub(plain, estimator, Path(options.folder), ended, motion, hook, _warn)
            )  # fmt: skip
            for name, address in sources:
                # Only the operator may name files of this machine; the API may not.
                hub.add(address, name, trusted=True)
            server = server_of(create_app(hub, token))
            listening.listen()
            # In a thread of its own, because the main thread receives the signals that set `stop`.
            # A daemon, as its own threads then are: one may wait for a disk that never answers.
            run = partial(server.run, [listening])
            thread = threading.Thread(target=run, name="web", daemon=True)
            thread.start()
            shown = f"[{host}]" if ":" in host else host
            print(f"http://{shown}:{listening.getsockname()[1]}/", file=sys.stderr, flush=True)
            # Woken now and then, to notice a server thread that failed.
            while not stop.wait(0.2) and thread.is_alive():
                pass
            # Before the hub closes: its sources must outlive the requests that use them.
            server.should_exit = True
            thread.join(_END_S)
    finally:
        estimator.close()
        listening.close()
    if faults:
        raise faults[0]
    return 0
