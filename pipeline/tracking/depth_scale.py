"""From a depth map's units to the pelvis's distance in metres, aligned once for each source.

A network that estimates depth from one view is right up to a factor. The factor is the same from
frame to frame while the camera stays the same. It is found by comparing the map with bodies that
were fitted without it. After that the map tells how people stand to each other and how they move
along the view, and the bodies tell how far that is in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from pipeline.core.people import Bodies, Person

BEHIND_SURFACE_M = 0.12
"""How far the pelvis lies behind the surface of the hips that a camera sees, in metres."""
ENOUGH = 24
"""Bodies whose median is the scale: six windows of one person, with every frame measured. The
median tolerates a map that is read on something else now and then."""


@dataclass
class DepthScale:
    """The scale of one source's depth maps.

    It belongs to the fitting half of a source's state.

    Attributes:
        metres: Metres for each unit of the maps. Given, it is fixed (1.0 for metric maps). None
            means that `learn` finds it; until then no person gets a root depth.
    """

    metres: float | None = None
    _pairs: list[float] = field(default_factory=list)

    def place(self, people: Sequence[dict[int, Person]]) -> list[dict[int, Person]]:
        """Return the people, with ``root_depth_m`` where it is known.

        That is where a map measured the person, once the scale is known.

        Args:
            people: For each frame, the people by track id.
        """
        return [{t: self._placed(person) for t, person in frame.items()} for frame in people]

    def learn(self, people: Sequence[dict[int, Person]], bodies: Sequence[Bodies]) -> None:
        """Learn the scale from fitted bodies; does nothing once it is known.

        Args:
            people: For each frame, the people by track id, as they were given to `place`.
            bodies: For each frame, the bodies that were fitted to them.
        """
        if self.metres is not None:
            return
        for frame, fitted in zip(people, bodies):
            for track, joints in zip(fitted.track.tolist(), fitted.joints_m):
                depth = frame[track].map_depth
                # A map measures the surface, a body has the joint behind it.
                surface_m = float(joints[0, 2]) - BEHIND_SURFACE_M
                if depth is not None and depth > 0 and surface_m > 0:
                    self._pairs.append(surface_m / depth)
        if len(self._pairs) >= ENOUGH:
            self.metres = median(self._pairs)
            self._pairs.clear()

    def _placed(self, person: Person) -> Person:
        """The person with its root depth, where that is known."""
        depth = person.map_depth
        if depth is None or depth <= 0 or self.metres is None:
            return person
        return replace(person, root_depth_m=self.metres * depth + BEHIND_SURFACE_M)
