"""A track's poses with its one shape, and what is known of a shape beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.fitting.solver import BETAS
from pipeline.fitting.window_step import SHAPE_LIMIT


@dataclass(frozen=True, eq=False)
class TrackPoses:
    """One person's bodies in T consecutive frames.

    Attributes:
        rotations: (T, 24, 3, 3) float32 local rotations, each joint against its parent.
        transl_m: (T, 3) float32 translations in metres, in camera axes.
        betas: (10,) float32 the one shape.
    """

    rotations: Tensor
    transl_m: Tensor
    betas: Tensor


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """What is known of a shape: its mean (10,) and its information (10, 10), the inverse of its
    covariance."""

    betas: Tensor
    information: Tensor


def combined(prior: ShapePrior, shapes: Sequence[ShapePrior]) -> Tensor:
    """The shape of a track whose parts show ``shapes``, each with the same prior in it."""
    information = prior.information.double()
    pull = information @ prior.betas.double()
    for shape in shapes:
        gained = shape.information.double()
        information = information + gained
        pull = pull + gained @ shape.betas.double()
    return limited(torch.linalg.solve(information, pull).float())


def limited(betas: Tensor) -> Tensor:
    return betas.clamp(-SHAPE_LIMIT, SHAPE_LIMIT)


def about(betas: Tensor) -> ShapePrior:
    """A shape as if it was known a little, so that what holds it changes it least."""
    return ShapePrior(betas, torch.eye(BETAS, device=betas.device))
