"""Builds the BlazePose perceiver that suits the device."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.perception.base import Perceiver, PerceiverOptions
from pipeline.perception.blazepose.perceiver import BlazePose
from pipeline.weights import store as weights


def make(options: PerceiverOptions) -> Perceiver:
    """Return BlazePose through LiteRT on a CPU, through torch on a GPU.

    Without the second detector's file it does without, and a line in its ``reports`` says so.

    Args:
        options: What to build it with.

    Raises:
        WeightsError: A model file is missing or is not the right one.
        RuntimeError: LiteRT, or the chosen engine, is not installed.
    """
    files = weights.find("blazepose", options.model_folder)
    found = weights.find_optional("person-detector", options.model_folder)
    made = _made(options, files, None if found is None else next(iter(found.values())))
    if found is None:
        made.reports = (*made.reports, weights.known("person-detector").missing)
    return made


def _made(options: PerceiverOptions, files: dict[str, Path], second: Path | None) -> Perceiver:
    """The perceiver of these model files; ``second`` is the second detector's, if it is there."""
    engine = options.engine
    if options.device.type == "cpu":
        return BlazePose(files, max_people=options.people, second=second, areas=options.areas)
    from pipeline.perception.blazepose.perceiver_gpu import BlazePoseTorch

    cache = engine.engines_folder
    # Inductor's default folder does not survive a restart, and compiling takes minutes.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    return BlazePoseTorch(
        files, options.people, options.device, second=second, areas=options.areas,
        engine=engine.engine, half=engine.half, graphs=engine.graphs, cache=cache,
        on_progress=options.on_progress,
    )  # fmt: skip
