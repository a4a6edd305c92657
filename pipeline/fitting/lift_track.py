"""The lifter over a whole track, with the future known."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.core.frame import WINDOW_FRAMES
from pipeline.fitting.lifter import (
    CONTEXT,
    PERCEIVED_SHARE,
    LandmarkHistory,
    Lifter,
    corrected_by,
    from_hips,
)
from pipeline.fitting.solver import Observations

_BATCH = 64
"""Contexts of a track that the network reads at once."""


def lift_track(
    lifter: Lifter, observed: Observations, history: LandmarkHistory, interval_30hz: Tensor
) -> Observations:
    """Return a whole track's observations with world landmarks corrected from both sides of time.

    A frame is corrected in each of the four places that it takes at the end of a context, by the
    frames before it and, with time reversed, by those after it; the mean of the eight errs least.

    Args:
        lifter: The network.
        observed: One person's observations in T frames, (1, T, ...).
        history: The landmarks of the same frames.
        interval_30hz: (1,) the time between frames, in thirtieths of a second.
    """
    names = history.__dataclass_fields__
    back = LandmarkHistory(*(getattr(history, name).flip(1) for name in names))
    lifted, spread = _lifted_forward(lifter, history, interval_30hz)
    others = (part.flip(0) for part in _lifted_forward(lifter, back, interval_30hz))
    lifted, spread = (0.5 * (one + other)[None] for one, other in zip((lifted, spread), others))
    perceived = from_hips(observed.world_m)
    return corrected_by(observed, lifted + PERCEIVED_SHARE * (perceived - lifted), spread)


def _lifted_forward(
    lifter: Lifter, history: LandmarkHistory, interval_30hz: Tensor
) -> tuple[Tensor, Tensor]:
    """World landmarks (T, 33, 3) and standard deviations (T, 33, 2) of the T frames of one person,
    each the mean over its places at the end of a context."""
    frames = history.known.shape[1]
    names = history.__dataclass_fields__
    before = LandmarkHistory.none(1, history.known.device, CONTEXT - 1)
    padded = [torch.cat((getattr(before, name), getattr(history, name)), 1)[0] for name in names]
    starts = torch.arange(frames, device=history.known.device)
    places = starts[:, None] + torch.arange(CONTEXT, device=starts.device)
    found = [
        lifter(
            LandmarkHistory(*(part[at] for part in padded)),
            interval_30hz.expand(len(at)),
            WINDOW_FRAMES,
        )
        for at in places.split(_BATCH)
    ]
    sums = []
    for part in (torch.cat(parts) for parts in zip(*found)):
        total = part[:, -1].clone()
        for late in range(1, min(WINDOW_FRAMES, frames)):
            total[: frames - late] += part[late:, -1 - late]
        sums.append(total)
    # The last frames of a track have fewer places.
    count = (frames - starts).clamp_max(WINDOW_FRAMES)[:, None, None]
    return sums[0] / count, sums[1] / count
