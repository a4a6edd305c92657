"""From a depth map's units to the pelvis's distance in metres, aligned once a source.

A network that estimates depth from one view is right up to a factor, which is the same from frame
to frame while the camera stays what it is. The factor is found where the map meets bodies fitted
without it: then the map says how people stand to each other and how they move along the view, and
the bodies say how far that is in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from pipeline.core.people import Bodies, Person

BEHIND_SURFACE_M = 0.12
"""How far the pelvis lies behind what a camera sees of the hips."""
ENOUGH = 24
"""Bodies that a scale is the median of: six windows of one person, every frame measured."""


@dataclass
class DepthScale:
    """Metres a unit of one source's depth maps. ``metres`` is the scale where it is known before
    (1.0: the maps are metric); None has it found, and until then nobody has a root depth.

    Belongs to the fitting half of a source's state.
    """

    metres: float | None = None
    _pairs: list[float] = field(default_factory=list)

    def place(self, people: Sequence[dict[int, Person]]) -> list[dict[int, Person]]:
        """The people of each frame by track, with the root's depth where a map measured them."""
        return [{t: self._placed(person) for t, person in frame.items()} for frame in people]

    def learn(self, people: Sequence[dict[int, Person]], bodies: Sequence[Bodies]) -> None:
        """Bodies that were fitted, frame by frame, to what `place` made of ``people``."""
        if self.metres is not None:
            return
        for frame, fitted in zip(people, bodies):
            for track, joints in zip(fitted.track.tolist(), fitted.joints_m):
                seen = frame[track].map_depth
                surface_m = float(joints[0, 2]) - BEHIND_SURFACE_M
                if seen is not None and seen > 0 and surface_m > 0:
                    self._pairs.append(surface_m / seen)
        if len(self._pairs) >= ENOUGH:
            self.metres = median(self._pairs)
            self._pairs.clear()

    def _placed(self, person: Person) -> Person:
        seen = person.map_depth
        if seen is None or seen <= 0 or self.metres is None:
            return person
        return replace(person, root_depth_m=self.metres * seen + BEHIND_SURFACE_M)
