"""The hub of `serve --cluster`, of the command's options."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.cluster import ray_api
from app.cluster.collector import PosesCollector
from app.cluster.hub import ClusterHub
from app.cluster.spec import ClusterSpec, absolute
from app.config import Config
from app.options import OUTBOX, ServeOptions, WebhookOptions, auto_or_number
from app.serve.command import warn
from app.serve.source_hub import SourceHub
from pipeline.events.motion import Motion


@contextmanager
def hub_in_cluster(
    options: ServeOptions,
    config: Config,
    motion: Motion | None,
    stop: threading.Event,
    faults: list[BaseException],
) -> Iterator[SourceHub]:
    """A hub whose sources run in the cluster of ``--cluster``, within a ``with`` block; an
    `app.serve.command.OpenHub`.

    Raises:
        ConfigError: There is no cluster at the address, or it serves with other settings.
        RuntimeError: Ray is missing, or no worker can start.
    """
    webhook = None
    if options.webhook is not None:
        # Without the page's token, which no worker needs.
        webhook = WebhookOptions(
            webhook=options.webhook,
            outbox=Path(options.outbox or OUTBOX).absolute(),
            webhook_secret=options.webhook_secret,
        )
    spec = ClusterSpec(
        absolute(config),
        # Absolute: a worker has a working folder of its own.
        Path(options.folder).absolute(),
        motion,
        webhook,
        auto_or_number(options.workers),
        auto_or_number(options.max_streams_per_worker),
        options.admit,
    )
    assert options.cluster is not None
    with ExitStack() as stack:
        stack.enter_context(ray_api.connected(options.cluster))
        hub = stack.enter_context(ClusterHub(spec, warn))
        hub.wait_until_ready(stop)
        if options.poses_to is not None:
            stack.enter_context(PosesCollector(hub, Path(options.poses_to), warn))
        yield hub
