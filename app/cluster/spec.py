"""What all workers of a cluster are made with."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.build import load, source_of
from app.config import Config
from app.options import WebhookOptions
from pipeline.capture.base import Source
from pipeline.events.motion import Motion
from pipeline.runtime.estimator import BodyEstimator


@dataclass(frozen=True)
class ClusterSpec:
    """How a cluster serves its sources; pickled to every process of it.

    Attributes:
        config: How each source is read and drawn, without a source.
        folder: The folder of recordings on each worker's machine.
        motion: The motion whose events are detected, None for no events.
        webhook: Where events are sent, None for nowhere.
        workers: The number of workers; None: as many as the machines carry.
        most_streams: The most sources of a worker; None: as many as the measured cost allows.
        admit: What becomes of a source that does not fit: "refuse", or "slower" takes each n-th of
            its frames.
        lost_s: A worker that does not answer for so long, in seconds, counts as dead.
        load: Makes the estimator of a worker.
        make_source: Makes a source of its configuration, not yet opened.
    """

    config: Config
    folder: Path
    motion: Motion | None = None
    webhook: WebhookOptions | None = None
    workers: int | None = None
    most_streams: int | None = None
    admit: Literal["refuse", "slower"] = "refuse"
    lost_s: float = 3.0
    load: Callable[[Config], BodyEstimator] = load
    make_source: Callable[[Config, threading.Event], Source] = source_of
