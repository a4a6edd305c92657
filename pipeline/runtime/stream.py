"""The pipeline in one call, for programs of your own.

from bodystream import stream

with stream("clip.mp4") as run:
    for frame, bodies in run:
        print(frame.id, bodies.track, bodies.joints_m.shape)
"""

from __future__ import annotations

import threading
from typing import Any

from pipeline.capture.base import SourceOptions
from pipeline.capture.open import open_source
from pipeline.core.stats import Stats
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.make import make_estimator
from pipeline.runtime.runner import Runner


def stream(
    source: str,
    options: SourceOptions | None = None,
    *,
    estimator: BodyEstimator | str = "keypoints",
    stop: threading.Event | None = None,
    stats: Stats | None = None,
    **settings: Any,
) -> Runner:
    """Return a `Runner` over a source; a ``with`` block starts and ends it.

    Args:
        source: A clip's path, an address, a camera, as `open_source` takes it.
        options: How the source is read.
        estimator: One that exists already, or the name of one to make, which the runner closes.
        stop: Ends the run from outside when it is set.
        stats: Counters to use instead of the runner's own.
        **settings: `EstimatorOptions`' fields, for an estimator that is made here.

    Raises:
        SourceError: The source is none that can be read.
        WeightsError, ValueError, RuntimeError: The estimator cannot be made.
    """
    opened = open_source(source, options, stop=stop)
    made_here = isinstance(estimator, str)
    if isinstance(estimator, str):
        estimator = make_estimator(estimator, **settings)
    return Runner(opened, estimator, stats=stats, close_estimator=made_here)
