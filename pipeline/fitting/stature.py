"""The stature of a shape, and shapes that are held to a given one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.body.model import BodyModel
from pipeline.fitting.solver import BETAS
from pipeline.fitting.track_solver import ShapePrior

SIGMA_M = 0.002
"""Standard deviation of a body's stature from a given one. Less than the error of a height that a
person knows, because it acts once against all frames of a track, whose errors are alike: with 5 mm
they won 19 mm of 2 m."""
LEAST_SIZE, MOST_SIZE = 0.7, 1.4
"""Bounds of the factor that perceived world landmarks are scaled by."""


@dataclass(frozen=True, eq=False)
class Stature:
    """The height of a body at rest as a linear function of its shape.

    It is the difference in y of two vertices, the highest and the lowest of the mean shape. Other
    vertices may be the outermost ones of a shape far from the mean; then the true extent is more:
    with the free body by up to 5 mm where the betas vary by 1, and 17 mm where they vary by 2.

    Attributes:
        mean_m: At betas 0, metres.
        per_beta_m: (10,) metres per unit of each beta.
    """

    mean_m: float
    per_beta_m: Tensor

    @classmethod
    def of(cls, body: BodyModel) -> Stature:
        """Return the stature of a body model, whose y axis is up at rest."""
        rest = body.v_template[:, 1]
        top, bottom = int(rest.argmax()), int(rest.argmin())
        per_beta = body.shapedirs[top, 1, :BETAS] - body.shapedirs[bottom, 1, :BETAS]
        return cls(float(rest[top] - rest[bottom]), per_beta)

    def of_shape(self, betas: Tensor) -> float:
        """Return the stature of a shape (10,) in metres."""
        return self.mean_m + float(self.per_beta_m @ betas)


@dataclass(frozen=True)
class GivenHeight:
    """A person's given height.

    Attributes:
        height_m: Metres.
        size: The factor that the person's perceived world landmarks are scaled by: the given height
            over that of the shape found without it.
    """

    height_m: float
    size: float


def given_height(stature: Stature, betas: Tensor, height_m: float) -> GivenHeight:
    """Return a given height with the size of world landmarks that goes with it.

    A perceiver's world landmarks show every person at a usual size, so a shape found from them
    tells little of the true one.

    Args:
        stature: That of the body model.
        betas: (10,) the shape found without the height.
        height_m: The given height, metres.
    """
    size = height_m / max(stature.of_shape(betas), 0.1)
    return GivenHeight(height_m, min(max(size, LEAST_SIZE), MOST_SIZE))


def held_to(prior: ShapePrior, stature: Stature, height_m: float) -> ShapePrior:
    """Return a prior of shapes with a row that holds the stature to a height.

    The row's residual is (stature - height) / `SIGMA_M`; a Gaussian prior and a linear row with
    Gaussian noise make a Gaussian again, whose mean and information are returned.

    Args:
        prior: What else is known of the shape.
        stature: That of the body model.
        height_m: Metres.
    """
    row = stature.per_beta_m.double() / SIGMA_M
    information = prior.information.double() + torch.outer(row, row)
    offset = (height_m - stature.mean_m) / SIGMA_M - row @ prior.betas.double()
    betas = prior.betas.double() + torch.linalg.solve(information, row * offset)
    return ShapePrior(betas.to(prior.betas.dtype), information.to(prior.information.dtype))
