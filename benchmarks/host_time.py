"""``python -m benchmarks.host_time``: the host's own time for a window on the GPU's way.

The networks and the fit run once, on the CPU, and their answers are kept. Then the same windows run
again with these answers in place of the networks and the fit, so that only the host's Python is
left: the rules, the tables for the GPU, the reading of answers, the tracker, the fit's rows and
bodies. Launches and copies are not in these figures; a GPU adds them. The clock is the thread's
own, so that other load on the machine disturbs it little.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from app.bench.footage import Player, load_frames
from benchmarks.renderers import hardware
from pipeline.body.load import load_body
from pipeline.core.frame import Frame, Window
from pipeline.fitting.fitter import BodyFitter, Kind
from pipeline.fitting.window_step import WindowFit
from pipeline.perception.blazepose.perceiver_gpu import BlazePoseTorch
from pipeline.perception.blazepose.queries import LandmarkQuery
from pipeline.perception.blazepose.resample_gpu import describe
from pipeline.runtime.keypoint_estimator import KeypointEstimator
from pipeline.weights import store as weights

SIZE = (1920, 1080)
STAGES = ("perceive", "track", "fit")
NETWORKS = ("_detector", "_landmarker", "_person_detector")


class Tape:
    """Results of functions of batches, which are given again without computing.

    Attributes:
        replaying: Whether they are given again; else they are kept.
        spent_s: The time that giving them again has taken, in seconds.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, Any], list[tuple[torch.Tensor, ...]]] = defaultdict(list)
        self._calls: Counter[Any] = Counter()
        self._window, self.replaying, self.spent_s = 0, False, 0.0

    def now_s(self) -> float:
        """The time in seconds, without what the kept results took."""
        return time.thread_time() - self.spent_s

    def begin(self, window: int, replaying: bool) -> None:
        """Go to a window."""
        self._window, self.replaying = window, replaying
        self._calls.clear()

    def call(self, name: Any, function: Any, *batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a function's results, or the kept ones for as many sources as the batch has."""
        kept = self._kept[self._window, name]
        if not self.replaying:
            kept.append(tuple(out.clone() for out in function(*batch)))
            return kept[-1]
        begun_s = time.thread_time()
        # A batch too large for one call is cut into parts, which have the same results.
        results = kept[min(self._calls[name], len(kept) - 1)]
        self._calls[name] += 1
        times = len(batch[0]) // len(results[0])
        given = tuple(out.repeat(times, *[1] * (out.dim() - 1)) for out in results)
        self.spent_s += time.thread_time() - begun_s
        return given


class HostPerceiver(BlazePoseTorch):
    """BlazePose as on a GPU, with recorded answers.

    Attributes:
        done_s: When the last windows were perceived, in the tape's seconds.
    """

    def __init__(self, people: int, tape: Tape) -> None:
        (second,) = weights.find("person-detector").values()
        super().__init__(
            weights.find("blazepose"), people, "cpu", second=second, engine="eager", graphs=False,
            buckets=(1, 4),
        )  # fmt: skip
        self._tape, self.done_s = tape, 0.0
        for name in NETWORKS:
            setattr(self, name, partial(tape.call, name, getattr(self, name)))

    def perceive_many(self, windows: Any, memories: Any) -> Any:
        found = super().perceive_many(windows, memories)
        self.done_s = self._tape.now_s()
        return found

    def _views_of(
        self, engine: Any, wanted: Sequence[Any], side: int, scale: float, offset: float
    ) -> torch.Tensor:
        if not self._tape.replaying:
            return super()._views_of(engine, wanted, side, scale, offset)
        rows = [describe(frame.on_device, plan, mirrored) for frame, plan, mirrored in wanted]
        return torch.tensor(np.array(rows))

    def _painted(self, query: LandmarkQuery, mask: Any) -> torch.Tensor:
        view = super()._painted(query, mask)
        return view.flatten()[0] if self._tape.replaying else view


class RecordedFit(WindowFit):
    """A window's fit that takes the rows of a GPU and has recorded results."""

    def __init__(self, tape: Tape, kind: Kind, *arguments: Any) -> None:
        super().__init__(*arguments, kind.frames, kind.steps, outlines=True)
        self._tape, self._kind = tape, kind

    def __call__(self, rows: torch.Tensor, memory: torch.Tensor) -> Any:
        return self._tape.call(self._kind, super().__call__, rows, memory)


class HostFitter(BodyFitter):
    """The fitter with the GPU's rows and recorded results."""

    def __init__(self, tape: Tape) -> None:
        super().__init__(load_body())
        self._tape = tape

    def _fit(self, kind: Kind) -> WindowFit:
        if kind not in self._fits:
            self._fits[kind] = RecordedFit(
                self._tape, kind, self.body, self.skeleton, self.lifter, self.config
            )
        return self._fits[kind]


class Host:
    """Sources that show the same clip at the same time.

    Args:
        windows: The windows of one source.
        people: The most people to follow.
    """

    def __init__(self, windows: Sequence[Window], people: int) -> None:
        self._tape = Tape()
        self.perceiver = HostPerceiver(people, self._tape)
        self.estimator = KeypointEstimator(self.perceiver, HostFitter(self._tape))
        self._windows = windows
        self.people = 0
        self._run(1, replaying=False)

    def measure(self, sources: int, skipped: int) -> np.ndarray:
        """Return the microseconds a window, (windows, 3), of perceive, track and fit.

        Args:
            sources: How many sources have a window at the same time.
            skipped: How many of the first windows to leave out.
        """
        return self._run(sources, replaying=True)[skipped:]

    def _run(self, sources: int, replaying: bool) -> np.ndarray:
        states = [self.estimator.begin() for _ in range(sources)]
        times_s = []
        for k, window in enumerate(self._windows):
            self._tape.begin(k, replaying)
            begun_s = self._tape.now_s()
            self.perceiver.done_s = begun_s
            detected = self.estimator.perceive([window] * sources, states)
            tracked_s = self._tape.now_s()
            fitted = self.estimator.fit(detected, states)
            done_s = self._tape.now_s()
            perceived_s = self.perceiver.done_s
            self.people = max(len(bodies) for _, bodies in fitted[0])
            times_s.append((perceived_s - begun_s, tracked_s - perceived_s, done_s - tracked_s))
        return np.array(times_s) / sources * 1e6


def windows_of(people: int, count: int) -> list[Window]:
    """Return windows of the shipped sample with its person repeated, also as tensors."""
    player = Player(load_frames(None, SIZE, people, 4 * count))
    return [_on_device(player.window(0, k)) for k in range(count)]


def _on_device(window: Window) -> Window:
    frames = [
        Frame(f.id, f.source, 0, f.pts_s, f.image, on_device=torch.from_numpy(f.image))
        for f in window.frames
    ]
    return Window(tuple(frames))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host_time", description=__doc__)
    parser.add_argument("--people", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--sources", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--skip", type=int, default=4, help="first windows that are left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true", help="show where the time goes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{hardware()}; microseconds a window, median (p95)")
    print(f"{'people':>6} {'sources':>7} " + " ".join(f"{s:>17}" for s in (*STAGES, "all")))
    for people in options.people:
        host = Host(windows_of(people, options.windows), people)
        for sources in options.sources:
            profile = cProfile.Profile()
            rounds = max(1, options.rounds if sources < 16 else 2)
            if options.profile:
                profile.enable()
            times = np.concatenate([host.measure(sources, options.skip) for _ in range(rounds)])
            profile.disable()
            times = np.c_[times, times.sum(1)]
            p50, p95 = np.quantile(times, (0.5, 0.95), axis=0)
            cells = " ".join(f"{a:>9.0f} ({b:>5.0f})" for a, b in zip(p50, p95))
            print(f"{host.people:>6} {sources:>7} {cells}", flush=True)
            if options.profile:
                pstats.Stats(profile).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
