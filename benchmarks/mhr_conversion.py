"""Measure how far SMPL bodies are from the MHR bodies that they are fitted to, and what it costs.

    python -m benchmarks.mhr_conversion [--device cuda] [--body FILE] [--runs 50]

The four MHR bodies are those that MHR's repository publishes as outputs of SAM 3D Body
(`tests.support.mhr`). Printed are mean distances in millimetres between the fitted body's skin and
theirs, both about their middles: for the points that the fit reads, and, with the free body, for as
many between them that it does not read. The stages:

- landmarks, start: the closed-form first guesses, before any step, from the landmarks or from the
  joints' rotations;
- landmarks only: the whole fit without the skin;
- 1, 2, 3, 12 steps: the fit with the skin, from the start.

Then the time of a window of four frames of one person, and of four, with and without the skin.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.renderers import hardware
from pipeline.body.load import load_body
from pipeline.body.mhr_surface import surface_table
from pipeline.body.model import BodyModel
from pipeline.core.frame import WINDOW_FRAMES
from pipeline.core.people import Bodies, Person
from pipeline.fitting.fitter import BodyFitter, FitMemory
from pipeline.fitting.solver import FitConfig
from tests.support.mhr import Published, published_bodies

_STEPS = (1, 2, 3, 12)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--body", type=Path, help="an SMPL file; default the free body")
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args(argv)
    body = load_body(options.body)
    published = published_bodies("surface_m" if options.body is None else "smpl_surface_m")
    print(f"{hardware()}; {options.device}; {len(published.people)} bodies, mean (each)")
    stages = {"landmarks": (0, False, True), "start": (0, True, True)}
    stages |= {"landmarks only": (FitConfig().cold_iterations, False, False)}
    stages |= {f"{steps} steps": (steps, True, True) for steps in _STEPS}
    for name, (steps, start, skin) in stages.items():
        config = FitConfig(iterations=steps, cold_iterations=steps)
        fitter = BodyFitter(body, config, options.device)
        people = [
            replace(
                person,
                start_rotations=person.start_rotations if start else None,
                surface_m=person.surface_m if skin else None,
            )
            for person in published.people
        ]
        print(f"{name:15s}", *_errors_mm(fitter, people, published, options.body is None))
    fitter = BodyFitter(body, device=options.device)
    for count in (1, 4):
        for skin in (False, True):
            times = _window_ms(fitter, published, count, skin, options.runs)
            print(
                f"{count} people, {'with' if skin else 'without'} the skin: p50 "
                f"{np.percentile(times, 50):.2f} ms, p95 {np.percentile(times, 95):.2f} ms a window"
            )


def _errors_mm(
    fitter: BodyFitter, people: Sequence[Person], published: Published, checked: bool
) -> list[str]:
    """The errors at the points of the fit, and between them."""
    own, between = [], []
    for k, person in enumerate(people):
        bodies = fitter.fit([{1: person}], published.intrinsics, FitMemory())[0]
        own.append(_apart_mm(bodies, _skin_of(fitter.body), published.people[k].surface_m))
        between.append(_apart_mm(bodies, published.check_vertices, published.check_m[k]))
    parts = [("fit", own)] + [("unseen", between)] * checked
    return [
        f"{name} {np.mean(mm):.1f} ({', '.join(f'{each:.1f}' for each in mm)})"
        for name, mm in parts
    ]


def _skin_of(body: BodyModel) -> np.ndarray:
    table = surface_table(body)
    if table is None:
        raise SystemExit(f"{body.name}: MHR's skin is mapped to the free body and SMPL's mesh only")
    return table.body_vertices


def _apart_mm(bodies: Bodies, vertices: np.ndarray, points_m: np.ndarray | None) -> float:
    assert points_m is not None
    own_m = bodies.vertices_m[0, vertices]
    difference_m = (own_m - own_m.mean(0)) - (points_m - points_m.mean(0))
    return 1e3 * float(np.linalg.norm(difference_m, axis=1).mean())


def _window_ms(
    fitter: BodyFitter, published: Published, count: int, skin: bool, runs: int
) -> list[float]:
    """The times of windows in a row, all people known from the window before."""
    people = [person if skin else replace(person, surface_m=None) for person in published.people]
    window = [dict(enumerate(people[:count]))] * WINDOW_FRAMES
    memory, times = FitMemory(), []
    # The first windows compile, capture and begin cold.
    for run in range(runs + 5):
        started = time.perf_counter()
        fitter.fit(window, published.intrinsics, memory)
        if run >= 5:
            times.append(1e3 * (time.perf_counter() - started))
    return times


if __name__ == "__main__":
    main()
