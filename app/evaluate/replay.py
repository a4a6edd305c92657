"""Run a clip through the app's own pipeline: every frame, without threads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from app.build import estimator_settings
from app.config import Config, ConfigError
from app.evaluate.given import substitute
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
    """One frame and its results.

    Attributes:
        id: The number of the frame.
        size: Its (height, width).
        intrinsics: K (3, 3) as the fit assumes it.
        people: The people by track as perceived, also if the fit was given parts of the truth.
        bodies: The fitted bodies.
        landmarks_px: The bodies' landmarks in the image (P, 33, 2), pixels; None for those that
            ``intrinsics`` give.
        to_world: The rotations (P, 3, 3) and offsets (P, 3), metres, from the camera's axes to the
            app's own world with z up; None where it knows no world.
    """

    id: int
    size: tuple[int, int]
    intrinsics: np.ndarray
    people: dict[int, Person]
    bodies: Bodies
    landmarks_px: np.ndarray | None = None
    to_world: tuple[np.ndarray, np.ndarray] | None = None


@dataclass
class Timing:
    """Milliseconds: of perception for each frame, and of the fit for each window; and the number of
    frames of each window."""

    perceive_ms: list[float] = field(default_factory=list)
    fit_ms: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)

    @property
    def fps(self) -> float:
        """Frames a second of perception and fit, one after the other; NaN before any window."""
        total_ms = sum(self.fit_ms) + sum(a * b for a, b in zip(self.perceive_ms, self.frames))
        return 1e3 * sum(self.frames) / total_ms if total_ms else float("nan")


def switches() -> dict[str, str]:
    """Return the parts of the fit that can be switched off: the name on the command line and the
    field of `FitConfig`."""
    names = [f.name for f in fields(FitConfig) if f.type in (bool, "bool")]
    short = {"hold_shape": "held-shape"}
    return {short.get(n, n.removeprefix("use_").replace("_", "-")): n for n in names}


def load_estimator(
    config: Config,
    without: Sequence[str] = (),
    focal_px: float | None = None,
    intrinsics: np.ndarray | None = None,
) -> BodyEstimator:
    """Load the estimator that a configuration describes.

    Args:
        config: The app's configuration.
        without: Parts of the fit to switch off, of `switches`.
        focal_px: The focal length in pixels; None for the configured one.
        intrinsics: K (3, 3) in pixels; None for a camera with square pixels and its centre in the
            image's middle.

    Raises:
        ConfigError: A part of the fit is unknown.
        WeightsError: A network's weights are missing.
    """
    known = switches()
    for name in without:
        if name not in known:
            raise ConfigError(f"--without {name}: one of {', '.join(sorted(known))}")
    settings = estimator_settings(config)
    fit = replace(settings["fit"], **{known[name]: False for name in without})
    if focal_px is not None:
        settings |= {"fov_deg": None, "focal_px": focal_px}
    settings["intrinsics"] = intrinsics
    return make_estimator(config.estimator, **{**settings, "fit": fit})


def mean_focal_px(intrinsics: np.ndarray) -> float:
    """Return the one focal length of K (3, 3), pixels: the geometric mean of both axes, which keeps
    areas."""
    return float(np.sqrt(intrinsics[0, 0] * intrinsics[1, 1]))


def replay(
    estimator: BodyEstimator,
    clip: str,
    config: Config,
    timing: Timing,
    truth: Truth | None = None,
    given: Sequence[str] = (),
) -> Iterator[Played]:
    """Run every frame of the configured part of a clip, in order.

    Args:
        estimator: The estimator.
        clip: The path of the clip.
        config: The app's configuration.
        timing: Is filled with the times of perception and fit.
        truth: The truth of the clip; None for none.
        given: Parts of the truth that replace what is perceived, before the fit.

    Yields:
        Every frame with its people and bodies.

    Raises:
        SourceError: The clip cannot be read.
        TruthError: The truth belongs to pictures of another size.
        ConfigError: The source is a live feed.
    """
    part = SourceOptions(
        start_s=config.capture.start_s,
        seconds=config.capture.seconds,
        track=config.capture.track,
    )
    # No wait ends a window early, so that a slow machine forms the same windows.
    source, windower = open_source(clip, part), Windower(max_wait_ms=float("inf"))
    source.open()
    # A live feed drops frames, so its numbers could not be those of the truth.
    if source.live:
        source.close()
        raise ConfigError(f"{clip}: a live feed; only a clip can be evaluated")
    state = estimator.begin()
    try:
        for frame in source.frames():
            if truth is not None:
                # At the first frame: a truth of another clip is reported before minutes of work.
                truth.check_clip(source.name, size=frame.size)
            for window in windower.add(frame):
                yield from _run_window(estimator, window, state, timing, truth, given)
        for window in windower.finish():
            yield from _run_window(estimator, window, state, timing, truth, given)
    finally:
        source.close()


def _run_window(
    estimator: BodyEstimator,
    window: Window,
    state: StreamState,
    timing: Timing,
    truth: Truth | None,
    given: Sequence[str],
) -> Iterator[Played]:
    begun = time.perf_counter()
    perceived = estimator.perceive([window], [state])[0]
    # Kept as perceived: they are compared too, also if the fit gets the truth's.
    all_people = perceived.people
    timing.frames.append(len(window.frames))
    timing.perceive_ms.append(1e3 * (time.perf_counter() - begun) / len(window.frames))
    if truth is not None and given:
        lens = estimator.intrinsics(window.key_frame)
        changed = tuple(
            substitute(people, frame.id, truth, given, lens)
            for people, frame in zip(all_people, window.frames)
        )
        perceived = replace(perceived, people=changed)
    begun = time.perf_counter()
    fitted = estimator.fit([perceived], [state])[0]
    timing.fit_ms.append(1e3 * (time.perf_counter() - begun))
    for (frame, bodies), people in zip(fitted, all_people):
        yield Played(frame.id, frame.size, estimator.intrinsics(frame), people, bodies)
