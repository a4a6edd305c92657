"""Which feet stand on the floor, exactly, from the drawn surface."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synth.person import Person
from synth.rig import Posed, Surface

FLOOR_M = 0.02
"""A foot touches the floor where its lowest part is no higher than this."""
STANDS_M = 0.005
"""It stands where that part moves less than this in the time of a frame."""
_LOWEST_M = 0.01
"""The lowest part: what is no higher than this over the lowest point."""


@dataclass(frozen=True, eq=False)
class Feet:
    """The drawn surfaces of a person's left and right foot, shoes included."""

    surfaces: tuple[Surface, Surface]

    @classmethod
    def of(cls, person: Person) -> Feet:
        names = [person.rig.names[number] for number in person.rig.driven]
        clothed = person.clothed
        surfaces = []
        for side in "LR":
            own = np.array([n.startswith(("foot.", "toe")) and n.endswith(side) for n in names])
            share = (own[clothed.numbers] * clothed.shares).sum(1)
            used = share > 0.5
            surfaces.append(
                Surface(clothed.rest[used], clothed.numbers[used], clothed.shares[used])
            )
        return cls((surfaces[0], surfaces[1]))

    def contact(self, before: Posed, at: Posed, after: Posed) -> np.ndarray:
        """Return which feet stand (2,), bool: left, right.

        Args:
            before: The body half a frame before.
            at: The body.
            after: The body half a frame after.
        """
        out = np.zeros(2, bool)
        for side, surface in enumerate(self.surfaces):
            height = surface.posed(at.transforms)[:, 1]
            lowest = height <= height.min() + _LOWEST_M
            moved = (surface.posed(after.transforms) - surface.posed(before.transforms))[lowest]
            far = float(np.linalg.norm(moved, axis=1).mean())
            out[side] = height.min() <= FLOOR_M and far < STANDS_M
        return out
