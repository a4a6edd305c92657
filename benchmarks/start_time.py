"""Measure how long the app takes from its call to the first drawn picture, phase by phase.

It starts a fresh process for each row, all with one folder of caches (engines, inductor, Triton)
that is empty before the first:

- first: nothing is compiled yet;
- second: all is compiled;
- trials, no trials: as the second, but cuDNN times its algorithms for all networks, or for none
  (`pipeline/gpu/conv_trials.py` decides otherwise).

Run it:

    python -m benchmarks.start_time

A folder of caches from before is used with ``--caches DIR``; then "first" is not first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SAMPLE = Path(__file__).parents[1] / "samples" / "pitch.mp4"
WINDOWS = 30
"""The windows after the first whose time is measured."""
ROWS = {"first": None, "second": None, "trials": True, "no trials": False}
"""Whether cuDNN times its algorithms; None leaves it to the engine."""


class Phases:
    """Names the time between marks.

    Args:
        begun_s: When the process was started, of ``time.time``.
    """

    def __init__(self, begun_s: float) -> None:
        self.begun_s = self._last_s = begun_s
        self.seconds: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """Add the time since the last mark to a phase."""
        now_s = time.time()
        self.seconds[name] = self.seconds.get(name, 0.0) + now_s - self._last_s
        self._last_s = now_s

    def built(self, name: str, done: int, of: int) -> None:
        """Take an engine's progress: the time before its start is of what came before."""
        self.mark("between engines" if done == 0 else name)


def measure(begun_s: float, caches: Path, trials: bool | None) -> dict[str, Any]:
    """Return the phases of this process's start in seconds, and what a window takes afterwards.

    Args:
        begun_s: When this process was started, of ``time.time``.
        caches: The folder of caches.
        trials: As in `ROWS`.
    """
    phases = Phases(begun_s)
    phases.mark("Python")
    # Before torch and Triton read them.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(caches / "inductor")
    os.environ["TRITON_CACHE_DIR"] = str(caches / "triton")

    import threading
    from dataclasses import replace

    import numpy as np
    import torch

    from app.body_renderer import BodyRenderer
    from app.build import estimator_settings, source_of
    from app.config import load_config
    from app.render_loop import renderer_name
    from pipeline.core.frame import WINDOW_FRAMES, Window
    from pipeline.gpu import engine
    from pipeline.runtime.make import make_estimator

    phases.mark("imports")
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
        phases.mark("CUDA context")
    if trials is not None:
        engine.trials_pay = lambda *_: trials  # type: ignore[assignment]
    config = load_config("default", {})
    config = replace(config, source=str(SAMPLE))
    source = source_of(config, threading.Event())
    source.open()
    frames = [frame for frame, _ in zip(source.frames(), range(WINDOW_FRAMES * (WINDOWS + 1)))]
    source.close()
    phases.mark("decoding")
    settings = estimator_settings(config)
    settings["engine"] = replace(settings["engine"], cache=caches)
    estimator = make_estimator(config.estimator, **settings, on_progress=phases.built)
    phases.mark("the rest of the estimator")
    renderer = BodyRenderer(renderer_name(config, estimator), config.render, estimator.body)
    state, took_ms = estimator.begin(), []
    for first in range(0, len(frames) - WINDOW_FRAMES + 1, WINDOW_FRAMES):
        window = Window(tuple(frames[first : first + WINDOW_FRAMES]), reset=first == 0)
        window_s = time.perf_counter()
        detected = estimator.perceive([window], [state])
        if first == 0:
            phases.mark("first window: perceive")
        fitted = estimator.fit(detected, [state])[0]
        if first == 0:
            phases.mark("first window: fit")
        on_device = renderer.together and fitted[0][0].on_device is not None
        images = [frame.on_device if on_device else frame.image for frame, _ in fitted]
        bodies = [bodies for _, bodies in fitted]
        list(renderer.draw(images, bodies, estimator.intrinsics(fitted[0][0])))
        if first == 0:
            phases.mark("first window: draw")
            total_s = time.time() - begun_s
        took_ms.append(1e3 * (time.perf_counter() - window_s))
    renderer.close()
    estimator.close()
    p50, p95 = np.percentile(took_ms[len(took_ms) // 3 :], (50, 95))
    return {
        "first picture, s": total_s,
        "phases, s": phases.seconds,
        "a window afterwards, ms": {"p50": float(p50), "p95": float(p95)},
        "slowest window after the first, ms": max(took_ms[1:]),
        "engines": estimator.reports,
        "trials": [json.loads(path.read_text()) for path in sorted(caches.glob("trials-*.json"))],
    }


def in_a_new_process(caches: Path, row: str) -> dict[str, Any]:
    """Return what `measure` does for a row, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.start_time", "--caches", str(caches)]
    command += ["--rows", row, "--begun", repr(time.time())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(row: str, found: dict[str, Any]) -> None:
    """Print a row's figures."""
    window = found["a window afterwards, ms"]
    print(
        f"{row}: first picture after {found['first picture, s']:.1f} s; a window afterwards "
        f"{window['p50']:.1f} ms (p95 {window['p95']:.1f}), the slowest but the first "
        f"{found['slowest window after the first, ms']:.0f}"
    )
    for name, seconds in found["phases, s"].items():
        print(f"    {seconds:7.2f} s  {name}")
    for line in found["engines"]:
        print(f"    {line}")
    for kept in found["trials"]:
        took = f"{1e3 * kept['with_s']:.3f} ms with trials, {1e3 * kept['without_s']:.3f} without"
        print(f"    a network's pass in eager: {took}")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--caches", type=Path, help="the folder of caches; a new one by default")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=["first", "second"])
    parser.add_argument("--begun", type=float, help="when this process was started")
    args = parser.parse_args()
    if args.begun is not None:
        print(json.dumps(measure(args.begun, args.caches, ROWS[args.rows[0]])))
        return
    with tempfile.TemporaryDirectory() as folder:
        for row in args.rows:
            show(row, in_a_new_process(args.caches or Path(folder), row))


if __name__ == "__main__":
    main()
