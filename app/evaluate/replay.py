"""A clip through the app's own pipeline, every frame, one thing after another."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch

from app.build import estimator_settings
from app.config import Config, ConfigError
from app.evaluate.given import put_in
from app.evaluate.truth import Truth
from pipeline.capture.base import SourceOptions
from pipeline.capture.open import open_source
from pipeline.core.frame import Window
from pipeline.core.people import Bodies, Person
from pipeline.fitting.solver import FitConfig
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.keypoint_estimator import StreamState
from pipeline.runtime.make import make_estimator
from pipeline.runtime.window import Windower


@dataclass(frozen=True, eq=False)
class Played:
    """One frame and what was made of it: ``people`` by track as perceived, also where the fit was
    given something else; ``intrinsics`` (3, 3) as the fit believes."""

    id: int
    size: tuple[int, int]
    intrinsics: np.ndarray
    people: dict[int, Person]
    bodies: Bodies


@dataclass
class Timing:
    """Milliseconds, of perception a frame, of the fit a window."""

    perceive_ms: list[float] = field(default_factory=list)
    fit_ms: list[float] = field(default_factory=list)


def switches() -> dict[str, str]:
    """What can be switched off in the fit: its name on the command line -> FitConfig's field."""
    names = [f.name for f in fields(FitConfig) if f.type in (bool, "bool")]
    short = {"hold_shape": "held-shape"}
    return {short.get(n, n.removeprefix("use_").replace("_", "-")): n for n in names}


def load_estimator(
    config: Config, without: Sequence[str] = (), focal_px: float | None = None
) -> BodyEstimator:
    """The pipeline that ``config`` describes; ``without`` parts of its fit, and with another focal
    length if one is given. Raises ConfigError for an unknown part, and as `make_estimator`."""
    known = switches()
    for name in without:
        if name not in known:
            raise ConfigError(f"--without {name}: one of {', '.join(sorted(known))}")
    settings = estimator_settings(config)
    fit = replace(settings["fit"], **{known[name]: False for name in without})
    if focal_px is not None:
        settings |= {"fov_deg": None, "focal_px": focal_px}
    return make_estimator(config.estimator, **{**settings, "fit": fit})


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch, as the live pipeline's fit has."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def replay(
    estimator: BodyEstimator,
    clip: str,
    config: Config,
    timing: Timing,
    truth: Truth | None = None,
    given: Sequence[str] = (),
) -> Iterator[Played]:
    """Every frame of the clip's chosen part, in order; ``given`` parts of ``truth`` go into the
    fit in place of what was perceived. Raises SourceError, TruthError."""
    part = SourceOptions(start_s=config.capture.start_s, seconds=config.capture.seconds)
    source, windower = open_source(clip, part), Windower(max_wait_ms=float("inf"))
    source.open()
    if source.live:
        source.close()
        raise ConfigError(f"{clip}: a live feed; only a clip can be evaluated")
    state = estimator.begin()
    try:
        for frame in source.frames():
            if truth is not None:
                truth.check_clip(source.name, size=frame.size)
            for window in windower.add(frame):
                yield from _one(estimator, window, state, timing, truth, given)
        for window in windower.finish():
            yield from _one(estimator, window, state, timing, truth, given)
    finally:
        source.close()


def _one(
    estimator: BodyEstimator,
    window: Window,
    state: StreamState,
    timing: Timing,
    truth: Truth | None,
    given: Sequence[str],
) -> Iterator[Played]:
    begun = time.perf_counter()
    perceived = estimator.perceive([window], [state])[0]
    seen = perceived.people
    timing.perceive_ms.append(1e3 * (time.perf_counter() - begun) / len(window.frames))
    if truth is not None and given:
        lens = estimator.intrinsics(window.key_frame)
        changed = tuple(
            put_in(people, frame.id, truth, given, lens)
            for people, frame in zip(seen, window.frames)
        )
        perceived = replace(perceived, people=changed)
    begun = time.perf_counter()
    fitted = estimator.fit([perceived], [state])[0]
    timing.fit_ms.append(1e3 * (time.perf_counter() - begun))
    for (frame, bodies), people in zip(fitted, seen):
        yield Played(frame.id, frame.size, estimator.intrinsics(frame), people, bodies)
