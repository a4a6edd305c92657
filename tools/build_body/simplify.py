"""Make a mesh lighter: remove hidden faces, close holes, collapse edges.

It is used once, when the free body is made; all of it is deterministic.
"""

from __future__ import annotations

import heapq
from collections import Counter

import numpy as np
from numba import njit


@njit(cache=True)
def _depth_map(xy: np.ndarray, depth: np.ndarray, faces: np.ndarray, size: int) -> np.ndarray:
    """Return the nearest depth (size, size) of triangles with pixels ``xy`` (V, 2); larger values
    are nearer."""
    image = np.full((size, size), -np.inf)
    for a, b, c in faces:
        x0, y0, x1, y1, x2, y2 = xy[a, 0], xy[a, 1], xy[b, 0], xy[b, 1], xy[c, 0], xy[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-12:
            continue
        for y in range(
            max(0, int(np.ceil(min(y0, y1, y2)))), min(size - 1, int(max(y0, y1, y2))) + 1
        ):
            for x in range(
                max(0, int(np.ceil(min(x0, x1, x2)))), min(size - 1, int(max(x0, x1, x2))) + 1
            ):
                u = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / area
                v = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / area
                if u >= 0 and v >= 0 and u + v <= 1:
                    z = depth[a] + u * (depth[b] - depth[a]) + v * (depth[c] - depth[a])
                    image[y, x] = max(image[y, x], z)
    return image


def count_views(
    vertices: np.ndarray, faces: np.ndarray, views: int = 120, size: int = 700
) -> np.ndarray:
    """Count the directions from which each vertex is visible.

    Args:
        vertices: Vertices (V, 3).
        faces: Triangles (F, 3), int.
        views: The number of directions, evenly all around.
        size: The side of the depth buffer that decides, pixels.

    Returns:
        Counts (V,).
    """
    step = np.arange(views) + 0.5
    z = 1 - 2 * step / views
    around = np.pi * (1 + 5**0.5) * step
    ring = np.sqrt(1 - z * z)
    directions = np.stack([ring * np.cos(around), ring * np.sin(around), z], axis=1)
    centred = vertices - (vertices.max(0) + vertices.min(0)) / 2
    scale = (size / 2 - 2) / np.linalg.norm(centred, axis=1).max()
    seen = np.zeros(len(vertices), dtype=np.int64)
    for direction in directions:
        right = np.cross([0.0, 1.0, 0.0], direction)
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(direction, right), direction], axis=1)
        view = centred @ axes * scale
        xy = view[:, :2] + size / 2
        depth = _depth_map(xy, view[:, 2], faces, size)
        column, row = np.round(xy).astype(int).T
        # With a margin: between pixels, a vertex's own surface may be a little nearer.
        seen += view[:, 2] >= depth[row, column] - 1.5
    return seen


def largest_piece(faces: np.ndarray) -> np.ndarray:
    """Return the faces (F', 3) of the connected piece with the most faces."""
    label = np.arange(faces.max() + 1)
    while True:
        lowest = label[faces].min(axis=1)
        before = label.copy()
        np.minimum.at(label, faces.ravel(), np.repeat(lowest, 3))
        label = label[label]
        if (label == before).all():
            break
    piece = label[faces[:, 0]]
    return faces[piece == np.bincount(piece).argmax()]


def boundary_loops(faces: np.ndarray) -> list[list[int]]:
    """Return the closed loops of a mesh's open edges. Each has the order of a face that would fill
    the hole and starts at its lowest vertex number."""
    edges = {(int(a), int(b)) for f in faces for a, b in zip(f, np.roll(f, -1))}
    after: dict[int, list[int]] = {}
    for a, b in sorted(edges):
        if (b, a) not in edges:
            after.setdefault(b, []).append(a)
    loops = []
    while after:
        walk = [min(after)]
        while True:
            current = walk[-1]
            # In sorted order, so that the same mesh gives the same loops.
            onward = after[current].pop(0)
            if not after[current]:
                del after[current]
            # A vertex may belong to two loops; each is taken out as soon as it closes.
            if onward in walk:
                loop = walk[walk.index(onward) :]
                loops.append(loop)
                walk = walk[: walk.index(onward) + 1]
                if walk[-1] not in after:
                    break
            else:
                walk.append(onward)
    return loops


def close_loop(vertices: np.ndarray, loop: list[int], faces: np.ndarray) -> np.ndarray:
    """Return triangles (n - 2, 3) that fill a loop of n vertices, the shortest diagonals first. A
    diagonal is no edge of ``faces`` (F, 3), because an edge must not belong to three faces."""
    near = faces[np.isin(faces, loop).sum(axis=1) > 1]
    edges = {frozenset((int(a), int(b))) for f in near for a, b in zip(f, np.roll(f, -1))}
    left = list(loop)
    triangles: list[tuple[int, ...]] = []
    while len(left) > 3:
        ahead, behind = np.roll(left, -1), np.roll(left, 1)
        lengths = np.linalg.norm(vertices[ahead] - vertices[behind], axis=1)
        taken = [frozenset(pair) in edges for pair in zip(ahead.tolist(), behind.tolist())]
        lengths = np.where(taken, np.inf, lengths)
        ear = int(lengths.argmin())
        triangles.append((behind[ear], left[ear], ahead[ear]))
        del left[ear]
    triangles.append(tuple(left))
    return np.array(triangles)


def _plane_quadrics(points: np.ndarray, faces: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return, for each vertex, the quadric (V, 4, 4) of the squared distances to its faces' planes,
    weighted by area."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1)
    normal = normal / np.maximum(area, 1e-15)[:, None]
    plane = np.concatenate([normal, -(normal * a).sum(1, keepdims=True)], axis=1)
    quadric = area[:, None, None] * plane[:, :, None] * plane[:, None, :]
    total = np.zeros((len(points), 4, 4))
    for corner in range(3):
        np.add.at(total, faces[:, corner], quadric)
    return total * weight[:, None, None]


class _Collapser:
    """The state of one run of half-edge collapses (Garland and Heckbert, Surface simplification
    using quadric error metrics, 1997, restricted to existing vertices)."""

    def __init__(
        self, stances: np.ndarray, faces: np.ndarray, weight: np.ndarray, features: np.ndarray
    ) -> None:
        self.stances, self.features, self.weight = stances, features, weight
        self.quadrics = np.stack([_plane_quadrics(points, faces, weight) for points in stances])
        self.homogeneous = np.concatenate([stances, np.ones((*stances.shape[:2], 1))], axis=2)
        self.faces: dict[int, tuple[int, ...]] = {
            i: tuple(map(int, f)) for i, f in enumerate(faces)
        }
        self.around: dict[int, set[int]] = {}
        for number, face in self.faces.items():
            for vertex in face:
                self.around.setdefault(vertex, set()).add(number)
        edges = Counter(tuple(sorted((a, b))) for f in self.faces.values() for a, b in _edges(f))
        self.rim = {v for edge, count in edges.items() if count == 1 for v in edge}

    def neighbours(self, vertex: int) -> set[int]:
        return {v for face in self.around[vertex] for v in self.faces[face]} - {vertex}

    def cost(self, gone: int, kept: int) -> float:
        quadric = self.quadrics[:, gone] + self.quadrics[:, kept]
        place = self.homogeneous[:, kept]
        error = np.einsum("ci,cij,cj->", place, quadric, place) / len(place)
        apart = self.stances[:, gone] - self.stances[:, kept]
        # Short edges go first where all is flat, and edges across a change of skinning last.
        length = (apart * apart).sum() / len(apart)
        change = np.abs(self.features[gone] - self.features[kept]).sum()
        return float(error + self.weight[gone] * length * length * (0.02 + 0.3 * change * change))

    def allowed(self, gone: int, kept: int) -> bool:
        shared = self.neighbours(gone) & self.neighbours(kept)
        faces = self.around[gone] & self.around[kept]
        opposite = {v for face in faces for v in self.faces[face]} - {gone, kept}
        # The link condition: else the surface would pinch. The limit keeps fans from growing.
        if shared != opposite or len(self.neighbours(gone) | self.neighbours(kept)) > 12:
            return False
        # An open edge may only shrink along itself, so that both halves still meet.
        if gone in self.rim and (kept not in self.rim or len(faces) != 1):
            return False
        for number in self.around[gone] - faces:
            before = list(self.faces[number])
            after = [kept if v == gone else v for v in before]
            # In every shape: a triangle that is fine in one body may fold in another.
            for points in self.stances:
                if not _still_facing(points[before], points[after]):
                    return False
        return True

    def collapse(self, gone: int, kept: int) -> set[int]:
        # Sorted, so that the result does not depend on the order of a set.
        for number in sorted(self.around.pop(gone)):
            face = self.faces[number]
            if kept in face:
                for vertex in face:
                    if vertex != gone:
                        self.around[vertex].discard(number)
                del self.faces[number]
            else:
                self.faces[number] = tuple(kept if v == gone else v for v in face)
                self.around[kept].add(number)
        self.quadrics[:, kept] += self.quadrics[:, gone]
        return self.neighbours(kept) | {kept}


def _edges(face: tuple[int, ...]) -> zip[tuple[int, int]]:
    return zip(face, face[1:] + face[:1])


def _still_facing(before: np.ndarray, after: np.ndarray) -> bool:
    """Return whether a moved triangle still faces the same way and is not too thin."""
    old = np.cross(before[1] - before[0], before[2] - before[0])
    new = np.cross(after[1] - after[0], after[2] - after[0])
    size = np.linalg.norm(new)
    longest = max(((after[i] - after[i - 1]) ** 2).sum() for i in range(3))
    return bool(old @ new > 0.5 * np.linalg.norm(old) * size and size > 0.1 * longest)


def simplify(
    stances: np.ndarray,
    faces: np.ndarray,
    vertex_count: int,
    weight: np.ndarray,
    features: np.ndarray,
    fixed: np.ndarray,
) -> np.ndarray:
    """Collapse edges until a number of vertices is left. The remaining vertices do not move, and
    open edges stay open.

    Args:
        stances: The mesh in several shapes or poses (C, V, 3), all of which are preserved.
        faces: Triangles (F, 3), int.
        vertex_count: The number of vertices to leave.
        weight: Each vertex's importance (V,).
        features: Values (V, K), such as skinning weights, whose changes stay in place.
        fixed: Vertices (K,) that must stay.

    Returns:
        The remaining faces (F', 3), int, with the old vertex numbers.
    """
    mesh = _Collapser(stances, faces, weight, features)
    stamp = dict.fromkeys(mesh.around, 0)
    staying = set(fixed.tolist())
    heap = [
        (mesh.cost(gone, kept), gone, kept, 0, 0)
        for gone in sorted(mesh.around)
        for kept in sorted(mesh.neighbours(gone))
    ]
    heapq.heapify(heap)
    while len(mesh.around) > vertex_count and heap:
        _, gone, kept, gone_stamp, kept_stamp = heapq.heappop(heap)
        # Costs changed since: a newer entry for this pair is in the heap.
        if stamp.get(gone) != gone_stamp or stamp.get(kept) != kept_stamp:
            continue
        if gone in staying or not mesh.allowed(gone, kept):
            continue
        changed = mesh.collapse(gone, kept)
        del stamp[gone]
        for vertex in changed:
            stamp[vertex] += 1
        for a in sorted(changed):
            for b in sorted(mesh.neighbours(a)):
                heapq.heappush(heap, (mesh.cost(a, b), a, b, stamp[a], stamp[b]))
                if b not in changed:
                    heapq.heappush(heap, (mesh.cost(b, a), b, a, stamp[b], stamp[a]))
    return np.array([mesh.faces[number] for number in sorted(mesh.faces)])
