"""What is made ready before the first source is served."""

from __future__ import annotations

from app.config import Config
from pipeline.runtime.estimator import BodyEstimator

_SOURCES = 16
"""Sources whose people may be fitted in one batch."""


def warm_up_for_many(estimator: BodyEstimator, config: Config, events: bool) -> None:
    """Make an estimator ready for all that sources may bring which are added while it works.

    That is many people in a batch, low latency, and events where they are searched for. Compiling
    and capturing take up to half a minute on a GPU, in which all sources would stand still.
    """
    estimator.warm_up(_SOURCES * config.perceive.people, events=events, low_latency=True)
