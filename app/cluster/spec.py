"""What all workers of a cluster are made with, and how their sources are run there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from app.build import load, source_of
from app.config import Config
from app.options import WebhookOptions
from app.serve.served import is_live
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
        late_s: A worker that has not started after so long, in seconds, is named in a line.
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
    late_s: float = 240.0
    load: Callable[[Config], BodyEstimator] = load
    make_source: Callable[[Config, threading.Event], Source] = source_of


T = TypeVar("T")


def absolute(config: T) -> T:
    """Return a configuration whose paths mean the same in another working folder.

    Args:
        config: A configuration, or a section of one. A source that is a file here counts as a
            path.
    """
    changed: dict[str, Any] = {}
    for field in fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if isinstance(value, Path) and str(value) not in (os.devnull, "-"):
            changed[field.name] = value.absolute()
        elif is_dataclass(value) and not isinstance(value, type):
            changed[field.name] = absolute(value)
        elif field.name == "source" and value and Path(value).exists():
            changed[field.name] = str(Path(value).absolute())
    return replace(config, **changed)  # type: ignore[type-var]


def continued(config: Config, deaths: int = 1) -> Config:
    """Return how a source is run again whose worker has died.

    Args:
        config: How it was run.
        deaths: How many workers have died with it.

    Returns:
        A configuration with which a clip replaces what was written of it. Of a live source, which
        has no second time, the video that was written stays, and OUT.again1.mp4 begins.
    """
    output = config.output
    if not is_live(config.source):
        return replace(config, output=replace(output, existing="overwrite"))
    written = output.video
    if written is None:
        return config
    path = Path(written)
    stem = path.stem.removesuffix(f".again{deaths - 1}")
    again = path.with_name(f"{stem}.again{deaths}{path.suffix}")
    changed: dict[str, Any] = {"video": again}
    return replace(config, output=replace(output, **changed))
