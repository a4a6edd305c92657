"""What a user may say of a camera's pose. Light to import: the settings are made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class CameraPose:
    """What is given of a camera's pose; None is not given.

    Attributes:
        height_m: The height of its centre above the floor, metres.
        pitch_deg: How far it looks down (positive) or up, degrees.
        roll_deg: How far its right side is lowered, degrees.
    """

    height_m: float | None = None
    pitch_deg: float | None = None
    roll_deg: float | None = None

    def as_array(self) -> np.ndarray:
        """Return (3,) float64 in the order of the attributes, NaN for None."""
        import numpy as np

        values = (self.height_m, self.pitch_deg, self.roll_deg)
        return np.array([np.nan if value is None else value for value in values])

    @classmethod
    def from_array(cls, values: np.ndarray) -> CameraPose:
        """Return the pose that `as_array` returned."""
        return cls(*(None if math.isnan(value) else float(value) for value in values))
