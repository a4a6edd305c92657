"""Builds the BlazePose perceiver that suits the device."""

from __future__ import annotations

import os

from pipeline.perception.base import Perceiver, PerceiverOptions
from pipeline.perception.blazepose.perceiver import BlazePose
from pipeline.weights import store as weights


def make(options: PerceiverOptions) -> Perceiver:
    """Return BlazePose through LiteRT on a CPU, through torch on a GPU.

    Args:
        options: What to build it with.

    Raises:
        WeightsError: A model file is missing or is not the right one.
        RuntimeError: LiteRT, or the chosen engine, is not installed.
    """
    files, engine = weights.find("blazepose", options.model_folder), options.engine
    found = weights.find_optional("person-detector", options.model_folder)
    second = None if found is None else next(iter(found.values()))
    if options.device.type == "cpu":
        return BlazePose(files, max_people=options.people, second=second, areas=options.areas)
    from pipeline.perception.blazepose.perceiver_gpu import BlazePoseTorch

    cache = engine.cache or weights.cache_folder() / "engines"
    # Inductor's default folder does not survive a restart, and compiling takes minutes.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    return BlazePoseTorch(
        files, options.people, options.device, second=second, areas=options.areas,
        engine=engine.engine, half=engine.half, graphs=engine.graphs, cache=cache,
        on_progress=options.on_progress,
    )  # fmt: skip
