"""Notes on the plan's rows besides their times: the kernels of attention, and the meshes."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from app.bench.footage import Player
from app.bench.plan import PlanPipeline
from app.bench.subject import run
from app.bench.timers import NoTimer

_ATTENTION = re.compile(r"attention|flash|fmha|softmax", re.IGNORECASE)
_MOST_NAMES = 3
_WINDOWS = 2


def attention_kernels(pipeline: PlanPipeline, player: Player, device: str) -> list[str]:
    """Return the names of the segmenter's attention kernels (operators on a CPU).

    Returns:
        Up to three names, those with the most calls first.

    Raises:
        RuntimeError: The profiler is not available.
    """
    window = player.window(0, 0)
    pipeline.embed(window)
    # Profiled in a second run: the first one compiles and captures its graph.
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        pipeline.embed(window)
        if device == "cuda":
            torch.cuda.synchronize()
    # On a CPU the operators themselves do the work.
    wanted = DeviceType.CUDA if device == "cuda" else DeviceType.CPU
    return names_of(e.name for e in recorded.events() if e.device_type == wanted)


def names_of(names: Any) -> list[str]:
    """Return the shortened names that contain a word for attention, the most frequent first."""
    counts = Counter(_short(name) for name in names if _ATTENTION.search(name))
    return [name for name, _ in counts.most_common(_MOST_NAMES)]


def _short(name: str) -> str:
    """Return a kernel's name without template arguments and return type."""
    # Template arguments make names of hundreds of letters.
    plain = name.removeprefix("void ")
    return re.split(r"[<(]", plain, maxsplit=1)[0][:100] or plain[:100]


def meshes(pipeline: PlanPipeline, player: Player) -> dict[tuple[int, int], np.ndarray]:
    """Return the meshes (V, 3), metres, of a new source's first windows, by frame and track."""
    state, out = pipeline.begin(), {}
    for index in range(_WINDOWS):
        run(pipeline, player.window(0, index), state, NoTimer())
        for frame, bodies in pipeline.last[0]:
            for track, vertices in zip(bodies.track, bodies.vertices_m):
                out[frame.id, int(track)] = vertices.copy()
    return out


def mesh_difference_mm(
    ours: dict[tuple[int, int], np.ndarray], theirs: dict[tuple[int, int], np.ndarray]
) -> float | None:
    """Return the mean distance of vertices over all meshes that both have, in millimetres; None if
    there are none."""
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return None
    return float(np.mean([np.linalg.norm(ours[k] - theirs[k], axis=1).mean() for k in both]) * 1e3)
