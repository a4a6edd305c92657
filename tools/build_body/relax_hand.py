"""Relax the left hand of the free body: fingers together and slightly curled.

The body has no finger bones. A finger is found on the mesh instead, by the distance along the
surface from its tip, and is bent like a cable: at its knuckles, each bend spread over a short
stretch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.transform import Rotation

from tools.build_body.fairing import edges_of, smooth_step

_JOINTS = (0.08, 0.45, 0.75)
"""Where a finger bends, as shares of its length from the web to the tip."""
_BEND_DEG = (6.0, 13.0, 9.0)
_SPREAD = 0.18
"""Half the stretch over which a bend is spread, as a share of the length."""
_THUMB_IN_DEG = 4.0
_ROOT = 0.3
"""Half the stretch about the web over which a finger begins to turn, as a share of its length."""
_KNUCKLES = 0.77
"""Width of the closed hand at the knuckles, as a share of the spread hand's."""
_TOUCH = 0.78
"""Distance of neighbouring fingertips, as a share of their knuckles'."""
_WIDER = 1.6
"""Fingers become wider by this, so that they touch."""


@dataclass(frozen=True, eq=False)
class Finger:
    """A finger: its vertices' places ``along`` it (V,), 0 at the web and 1 at the tip, negative
    below the web and minus infinity for other parts; its vertices about the ``web`` and near the
    ``tip``."""

    along: np.ndarray
    web: np.ndarray
    tip: np.ndarray


def find_fingers(vertices: np.ndarray, faces: np.ndarray, hand: np.ndarray) -> list[Finger]:
    """Return the five fingers of a hand, thumb first, then from the index to the little finger.

    Args:
        vertices: The body at rest (V, 3), with the palm down and the thumb ahead (+z).
        faces: Triangles (F, 3).
        hand: The hand's vertices (V,) bool.
    """
    a, b = edges_of(faces).T
    inside = hand[a] & hand[b]
    a, b = a[inside], b[inside]
    length = np.linalg.norm(vertices[a] - vertices[b], axis=1)
    graph = sp.csr_matrix((length, (a, b)), (len(vertices),) * 2)
    tips = sorted(_tips(graph, vertices, hand), key=lambda tip: -vertices[tip, 2])
    distance = dijkstra(graph, directed=False, indices=tips)
    owner = np.where(hand, distance.argmin(axis=0), -1)
    fingers = []
    for finger in range(5):
        own = owner == finger
        # A finger ends at its web, the place nearest to the tip where another part begins.
        border = np.concatenate([a[own[a] & ~own[b]], b[own[b] & ~own[a]]])
        along = np.where(own, 1 - distance[finger] / distance[finger, border].min(), -np.inf)
        fingers.append(
            Finger(along, np.flatnonzero(np.abs(along) < 0.12), np.flatnonzero(along > 0.75))
        )
    return fingers


def _tips(graph: sp.csr_matrix, vertices: np.ndarray, hand: np.ndarray) -> list[int]:
    """The five fingertips: each is the vertex of the hand that lies farthest along the surface from
    the wrist and from the tips before it."""
    numbers = np.flatnonzero(hand)
    chosen = [int(numbers[vertices[numbers, 0].argmin()])]
    for _ in range(5):
        nearest = dijkstra(graph, directed=False, indices=chosen).min(axis=0)
        chosen.append(int(numbers[nearest[numbers].argmax()]))
    return chosen[1:]


def relax(vertices: np.ndarray, wrist: np.ndarray, fingers: list[Finger]) -> np.ndarray:
    """Return the body's vertices (V, 3) with the hand relaxed.

    Args:
        vertices: The body at rest (V, 3).
        wrist: The wrist joint (3,).
        fingers: As `find_fingers` returns them.
    """
    webs, bones = _bones(vertices, fingers)
    across = _unit(webs[4] - webs[1])
    ahead = bones[1:].mean(axis=0)
    ahead = _unit(ahead - (ahead @ across) * across)
    # The spread hand becomes narrower from the wrist to the knuckles.
    reach = (webs[2] - wrist) @ ahead
    beside = (vertices - webs[2]) @ across
    hand = np.any([np.isfinite(finger.along) for finger in fingers], axis=0)
    narrow = (1 - _KNUCKLES) * hand * smooth_step((vertices - wrist) @ ahead, 0, reach)
    out = vertices - np.outer(narrow * beside, across)
    webs, bones = _bones(out, fingers)
    # Out of the back of the hand; a turn about it goes from `ahead` to `across`.
    back = np.cross(ahead, across)
    posed = out.copy()
    for number, (finger, web, bone) in enumerate(zip(fingers, webs, bones)):
        now = np.arctan2(bone @ across, bone @ ahead)
        if number == 0:
            wanted, bent = now + np.radians(_THUMB_IN_DEG), out
        else:
            # Nearly parallel: tips close a little more than knuckles.
            gap = (web - webs[2]) @ across
            wanted = np.arctan2((_TOUCH - 1) * gap, bone @ ahead)
            bent = _curl(_widen(out, web, bone, across), finger, web, bone, np.cross(back, bone))
        turned = _about(bent, web, _turn(back, wanted - now))
        share = smooth_step(finger.along, -_ROOT, _ROOT)[:, None]
        posed += share * (turned - out)
    return posed


def _bones(vertices: np.ndarray, fingers: list[Finger]) -> tuple[np.ndarray, np.ndarray]:
    """The middle of each finger's root (5, 3), and the way from there to its tip (5, 3)."""
    webs = np.array([vertices[finger.web].mean(axis=0) for finger in fingers])
    tips = np.array([vertices[finger.tip].mean(axis=0) for finger in fingers])
    return webs, tips - webs


def _widen(
    vertices: np.ndarray, web: np.ndarray, bone: np.ndarray, across: np.ndarray
) -> np.ndarray:
    """The vertices farther from a finger's bone, to its sides."""
    offset = vertices - web
    offset = offset - np.outer(offset @ bone / (bone @ bone), bone)
    return vertices + (_WIDER - 1) * np.outer(offset @ across, across)


def _curl(
    vertices: np.ndarray, finger: Finger, web: np.ndarray, bone: np.ndarray, axis: np.ndarray
) -> np.ndarray:
    """The vertices bent about an axis at a finger's joints, the outermost joint first, so that
    every joint is still where it was when its turn comes."""
    out = vertices
    for place, degrees in reversed(list(zip(_JOINTS, _BEND_DEG))):
        pivot = web + place * bone
        share = smooth_step(finger.along, place - _SPREAD, place + _SPREAD)[:, None]
        out = out + share * (_about(out, pivot, _turn(axis, np.radians(degrees))) - out)
    return out


def _about(points: np.ndarray, pivot: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    return (points - pivot) @ rotation.T + pivot


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _turn(axis: np.ndarray, angle: float) -> np.ndarray:
    """The rotation (3, 3) about an axis (3,) by an angle in radians."""
    return Rotation.from_rotvec(_unit(axis) * angle).as_matrix()
