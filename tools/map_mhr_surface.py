"""Find which points of an MHR body's skin are the free body's vertices.

    python -m tools.map_mhr_surface MHR [--leave-out 2]

MHR is a checkout of https://github.com/facebookresearch/MHR (Apache-2.0), of which
``tools/mhr_smpl_conversion`` is read: MHR's mesh at rest, four bodies that SAM 3D Body saw, and
where SMPL's vertices lie on MHR's mesh. In about two minutes it writes
``pipeline/body/mhr_surface.npz`` and, for the tests, ``tests/pipeline/fitting/mhr_outputs.npz``.

1. The free body is fitted to the mesh at rest: closest points whose normals agree, again and again
   (Besl and McKay, A method for registration of 3-D shapes, 1992). They are the first map.
2. It is fitted to all meshes by the map, with the fit's own residual
   (`pipeline.fitting.solver.surface_rows`). On each, the closest points to the fitted vertices say
   where on MHR's mesh at rest these vertices should lie. Their mean over the meshes and both sides,
   smoothed over the body, is the next map. This repeats until it stands still.

Without step 2 the body's skin slides over MHR's as joints bend, by 13 mm instead of 9.
``--leave-out`` makes the map without one of the four bodies, prints how far the fitted body's skin
is from that one's, and writes nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from torch import Tensor

from pipeline.body.kinematics import (
    Skeleton,
    forward_kinematics,
    reduce_points,
    spread_vertices,
    vertex_normals,
)
from pipeline.body.load import load_body
from pipeline.body.mhr_surface import MHR_SURFACE, SurfaceTable
from pipeline.body.model import BodyModel
from pipeline.body.rotations import exp_so3, log_so3
from pipeline.core.npz import read_npz
from pipeline.core.skeleton import JOINT_NAMES, SMPL_24
from pipeline.fitting.solver import FitConfig, Observations, TemporalPrior, solve_window
from pipeline.sam3d.people import SMPL_JOINTS
from tools.build_body.relax_hand import find_fingers

TEST_BODIES = Path("tests/pipeline/fitting/mhr_outputs.npz")
POINTS = 256
"""Points of the table. As many again, between them, are kept for the tests."""
_CM = 0.01
_NORMAL_M = 0.05
"""Normals that differ by a radian count like points so far apart."""
_NEIGHBOURS = 24
_STIFFNESS = 0.3
"""How much a vertex's shift keeps to its neighbours' against its own closest points."""
_ROUNDS = 16
_SKIN_ONLY = FitConfig(use_world=False, use_mask=False, use_depth=False, use_smoothness=False)
_FIRM = 1e4
"""The weight of the skin in the fits, 1/m^2: far above that of the pose prior."""
_CAMERA = np.diag([1.0, -1.0, -1.0])
"""From MHR's axes, y up and z to the camera, to the camera's."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles that are asked for their closest points.

    Attributes:
        vertices: (V, 3) metres.
        faces: (F, 3).
        normals: (F, 3) unit vectors.
        tree: Of the triangles' centres and normals.
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    tree: cKDTree

    @classmethod
    def of(cls, vertices: np.ndarray, faces: np.ndarray) -> Mesh:
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        normals = np.cross(b - a, c - a)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
        centres = np.hstack(((a + b + c) / 3, _NORMAL_M * normals))
        return cls(vertices, faces, normals, cKDTree(centres))

    def closest(
        self, points: np.ndarray, normals: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the closest places to points (N, 3) where the normals (N, 3) are alike.

        Triangles' corners (N, 3), the corners' shares (N, 3), the cosine between normals (N,).
        """
        _, near = self.tree.query(np.hstack((points, _NORMAL_M * normals)), _NEIGHBOURS)
        corners = self.faces[near]
        shares = closest_shares(points[:, None], self.vertices[corners])
        places = (shares[..., None] * self.vertices[corners]).sum(-2)
        turned = self.normals[near] - normals[:, None]
        apart = ((places - points[:, None]) ** 2).sum(-1)
        apart += 0.2 * _NORMAL_M**2 * (turned**2).sum(-1)
        best = np.arange(len(points)), apart.argmin(1)
        cosine = (self.normals[near[best]] * normals).sum(-1)
        return corners[best], shares[best], cosine


def closest_shares(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the corners' shares (..., 3) of the points of triangles (..., 3, 3) closest to
    ``points`` (..., 3)."""
    a, b, c = (triangles[..., k, :] for k in range(3))
    normal = np.cross(b - a, c - a)
    area = (normal**2).sum(-1).clip(1e-30)
    v = (np.cross(points - a, c - a) * normal).sum(-1) / area
    w = (np.cross(b - a, points - a) * normal).sum(-1) / area
    shares = np.stack((1 - v - w, v, w), -1)
    outside = (shares < 0).any(-1)
    nearest = np.full(outside.shape, np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, edge = triangles[..., i, :], triangles[..., j, :] - triangles[..., i, :]
        along = ((points - start) * edge).sum(-1) / (edge**2).sum(-1).clip(1e-30)
        along = along.clip(0, 1)
        apart = ((start + along[..., None] * edge - points) ** 2).sum(-1)
        use = outside & (apart < nearest)
        nearest = np.where(use, apart, nearest)
        on_edge = np.zeros_like(shares)
        on_edge[..., i], on_edge[..., j] = 1 - along, along
        shares[use] = on_edge[use]
    return shares


class Mapper:
    """Maps the free body's vertices to MHR's mesh.

    Args:
        body: The free body.
        rest: MHR's mesh at rest.
        seen: MHR's mesh in other shapes and poses, in the camera's axes.
    """

    def __init__(self, body: BodyModel, rest: Mesh, seen: Sequence[Mesh]) -> None:
        self.body, self.meshes = body, (rest, *seen)
        template = body.v_template
        self.mirror = cKDTree(template).query(template.numpy() * [-1, 1, 1])[1]
        weights = dict(zip(JOINT_NAMES, body.weights.numpy().T))
        hand = weights["left_hand"] + weights["left_wrist"] > 0.5
        fingers = find_fingers(template.numpy().astype(np.float64), body.faces, hand)
        finger = np.max([finger.along for finger in fingers], 0) > 0
        # MHR's fingers bend and SMPL's do not.
        self.skin = np.flatnonzero(~(finger | finger[self.mirror]))
        self.chosen = self.skin[spread_vertices(template[self.skin], 2 * POINTS).numpy()]
        pick = torch.eye(len(template))[self.chosen]
        skeleton = Skeleton.of(body, 8)
        skin = reduce_points(body, pick - pick.mean(0), skeleton.below)
        self.skeleton = replace(skeleton, skin=skin)
        edges = np.concatenate([body.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
        edges = np.unique(np.sort(edges, 1), axis=0)
        rows, ones = np.arange(len(edges)), np.ones(len(edges))
        ends = (np.r_[rows, rows], np.r_[edges[:, 0], edges[:, 1]])
        difference = sparse.csr_matrix((np.r_[ones, -ones], ends), (len(edges), len(template)))
        self._laplacian = difference.T @ difference

    def first_map(self) -> np.ndarray:
        """Return where on MHR's mesh at rest the vertices lie, (V, 3), by step 1."""
        rest = self.meshes[0]
        rotations = torch.eye(3).repeat(len(SMPL_24), 1, 1)
        # MHR rests with the arms halfway down and the legs a little apart.
        for joint, angle in (("left_shoulder", -0.75), ("right_shoulder", 0.75)):
            rotations[JOINT_NAMES.index(joint)] = exp_so3(torch.tensor([0.0, 0.0, angle]))
        for joint, angle in (("left_hip", 0.1), ("right_hip", -0.1)):
            rotations[JOINT_NAMES.index(joint)] = exp_so3(torch.tensor([0.0, 0.0, angle]))
        state = rotations[None, None], torch.zeros(1, 10)
        middle = rest.vertices.mean(0)
        for weight in (1e2, 1e4):
            for _ in range(20):
                vertices = self.posed(*state)[0]
                vertices = vertices - vertices.mean(0) + middle
                places = self._closest(rest, vertices)[0]
                middle = middle + (places - vertices)[self.skin].mean(0)
                state = self._fit(places[None, self.chosen], state[0], weight, 2)
        return places

    def refine(self, places: np.ndarray) -> np.ndarray:
        """Return the map (V, 3) after step 2."""
        first, rest = places, self.meshes[0]
        state = self.fit_all(places)
        for _ in range(_ROUNDS):
            corners, shares = self.table(places)
            total, count = np.zeros_like(places), np.zeros(len(places))
            state = self._fit(self._targets(corners, shares), state[0], _FIRM, 4)
            for mesh, vertices in zip(self.meshes, self.posed(*state)):
                target = _at(mesh, corners, shares)
                shifted = vertices + (target - vertices)[self.chosen].mean(0)
                _, near, weight = self._closest_at_rest(mesh, shifted)
                for side, own in ((1, slice(None)), (-1, self.mirror)):
                    total += (weight[:, None] * near * [side, 1, 1])[own]
                    count += weight[own]
            mean = total / count.clip(1e-9)[:, None]
            # A vertex that moves that far has met another part of the body.
            sure = np.where(np.linalg.norm(mean - places, axis=1) < 0.06, count, 0)
            sure /= 2 * len(self.meshes)
            system = _STIFFNESS * self._laplacian + sparse.diags(sure + 1e-6)
            places = first + splu(system.tocsc()).solve(sure[:, None] * (mean - first))
            places = _at(rest, *self.table(places))
        return places

    def table(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return corners (V, 3) and shares (V, 3) of the places on MHR's mesh at rest."""
        corners, shares, _ = self.meshes[0].closest(places, _normals(places, self.body))
        return corners, shares

    def fit_all(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return rotations (N, 1, 24, 3, 3) and shapes (N, 10) fitted to all meshes."""
        count = len(self.meshes)
        rotations = torch.eye(3).repeat(count, 1, len(SMPL_24), 1, 1)
        rotations[1:, :, 0] = torch.from_numpy(_CAMERA).float()
        targets = self._targets(*self.table(places))
        # The pose prior leads at first, which finds the way from a far start.
        for weight in (10.0, 100.0, 1000.0, _FIRM):
            rotations, betas = self._fit(targets, rotations, weight, 30)
        return rotations, betas

    def _targets(self, corners: np.ndarray, shares: np.ndarray) -> np.ndarray:
        chosen = corners[self.chosen], shares[self.chosen]
        return np.stack([_at(mesh, *chosen) for mesh in self.meshes])

    def _fit(
        self, targets: np.ndarray, rotations: Tensor, weight: float, steps: int
    ) -> tuple[Tensor, Tensor]:
        """Return rotations and shapes fitted to targets (N, K, 3) of the chosen vertices."""
        surface = torch.from_numpy(targets - targets.mean(1, keepdims=True)).float()[:, None]
        count = len(surface)
        nothing = torch.zeros(count, 1)
        points = torch.zeros(count, 1, 33, 3)
        observed = Observations(
            image=points[..., :2], visible=points[..., 0], world_m=points,
            world_spread_m=points + 1, world_weight=points[..., 0],
            view=torch.eye(3).expand(count, 1, 3, 3), present=nothing + 1, size=nothing + 1,
            edge=nothing, edge_from=nothing, masked=nothing,
            root_depth_m=nothing, world_known=nothing, world_sigma_m=nothing,
            image_spread=nothing + 1, surface_m=surface, surface_weight=nothing + weight,
        )  # fmt: skip
        # Shapes always begin at the mean: they are nearly linear, so one step finds them.
        past = TemporalPrior(
            rotations.expand(-1, 2, -1, -1, -1), torch.zeros(count, 2, 3), torch.zeros(count, 2),
            torch.zeros(count, 10), torch.eye(10).expand(count, 10, 10), torch.ones(count),
        )  # fmt: skip
        away = torch.tensor([0.0, 0.0, 4.0]).expand(count, 1, 3)
        out = solve_window(self.skeleton, observed, past, rotations, away, _SKIN_ONLY, steps)
        return out.rotations, out.betas

    def posed(self, rotations: Tensor, betas: Tensor) -> np.ndarray:
        """Return the bodies' vertices (N, V, 3) in metres, at no place in particular."""
        turns = log_so3(rotations[:, 0])
        out = self.body(betas, turns[:, 0], turns[:, 1:].flatten(1), torch.zeros(len(turns), 3))
        return out.vertices_m.numpy().astype(np.float64)

    def _closest(self, mesh: Mesh, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        corners, shares, cosine = mesh.closest(vertices, _normals(vertices, self.body))
        return _at(mesh, corners, shares), cosine

    def _closest_at_rest(
        self, mesh: Mesh, vertices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The closest points (V, 3), the same points at rest, and whether they can be trusted."""
        corners, shares, cosine = mesh.closest(vertices, _normals(vertices, self.body))
        near = _at(mesh, corners, shares)
        trusted = (cosine > 0.6) & (np.linalg.norm(near - vertices, axis=1) < 0.05)
        weight = np.zeros(len(vertices))
        weight[self.skin] = trusted[self.skin]
        return near, _at(self.meshes[0], corners, shares), weight


def _at(mesh: Mesh, corners: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return (shares[..., None] * mesh.vertices[corners]).sum(-2)


def _normals(vertices: np.ndarray, body: BodyModel) -> np.ndarray:
    return vertex_normals(torch.from_numpy(vertices), body.faces).numpy()


def joint_turns(joints: np.ndarray, mapper: Mapper, rotations: Tensor) -> np.ndarray:
    """Return what turns MHR's joints into SMPL's, (24, 3, 3) float32: the mean over the bodies.

    Args:
        joints: (N, 24, 3, 3) the rotations of MHR's joints in the camera's axes.
        mapper: For its skeleton.
        rotations: (N, 1, 24, 3, 3) the local rotations of the fitted bodies.
    """
    none = torch.zeros(len(rotations), 3), torch.zeros(len(rotations), 10)
    turned = forward_kinematics(mapper.skeleton, rotations[:, 0], *none).rotations.numpy()
    u, _, vt = np.linalg.svd((joints.swapaxes(-1, -2) @ turned).sum(0))
    u[..., -1] *= np.linalg.det(u @ vt)[:, None]
    return (u @ vt).astype(np.float32)


def smpl_table(folder: Path, rest: Mesh, places: np.ndarray) -> SurfaceTable:
    """Return SMPL's vertices that lie nearest to places (S, 3) on MHR's mesh at rest."""
    mapping = read_npz(folder / "assets" / "mhr2smpl_mapping.npz")
    corners, shares = rest.faces[mapping["triangle_ids"]], mapping["baryc_coords"].clip(0, 1)
    _, nearest = cKDTree(_at(rest, corners, shares)).query(places)
    chosen = np.unique(nearest)
    return SurfaceTable(corners[chosen], shares[chosen], chosen)


def read_mhr(folder: Path) -> tuple[Mesh, list[dict[str, np.ndarray]]]:
    """Return MHR's mesh at rest in metres, and what SAM 3D Body published of four bodies."""
    data = (folder / "assets" / "mhr_face_mask.ply").read_bytes()
    header, _, body = data.partition(b"end_header\n")
    words = header.split()
    vertices, faces = (int(words[words.index(name) + 1]) for name in (b"vertex", b"face"))
    vertex = np.dtype([("place", "<f4", 3), ("colour", "u1", 4)])
    face = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
    places = np.frombuffer(body, vertex, vertices)["place"].astype(np.float64) * _CM
    corners = np.frombuffer(body, face, faces, vertices * vertex.itemsize)["corners"]
    paths = sorted((folder / "data" / "sam3d_body_outputs").glob("*.npz"))
    return Mesh.of(places, corners.astype(np.int64)), [read_npz(path) for path in paths]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mhr", type=Path, help="a checkout of MHR")
    parser.add_argument("--leave-out", type=int, help="the number of a body to test with")
    options = parser.parse_args(argv)
    folder = options.mhr / "tools" / "mhr_smpl_conversion"
    rest, outputs = read_mhr(folder)
    seen = [Mesh.of(out["pred_vertices"].astype(np.float64), rest.faces) for out in outputs]
    body = load_body()
    if options.leave_out is not None:
        learned = [mesh for k, mesh in enumerate(seen) if k != options.leave_out]
        places = _mapped(Mapper(body, rest, learned))
        _report(Mapper(body, rest, [seen[options.leave_out]]), places)
        return
    mapper = Mapper(body, rest, seen)
    places = _mapped(mapper)
    rotations = _report(mapper, places)
    write(mapper, places, rotations, folder, outputs)


def _mapped(mapper: Mapper) -> np.ndarray:
    return mapper.refine(mapper.first_map())


def _report(mapper: Mapper, places: np.ndarray) -> Tensor:
    """Print how far apart the skins are; return the fitted rotations."""
    corners, shares = mapper.table(places)
    rotations, betas = mapper.fit_all(places)
    for k, (mesh, vertices) in enumerate(zip(mapper.meshes, mapper.posed(rotations, betas))):
        apart = (_at(mesh, corners, shares) - vertices)[mapper.chosen]
        apart = 1e3 * np.linalg.norm(apart - apart.mean(0), axis=1)
        name = f"body {k - 1}" if k else "rest"
        print(f"{name}: mean {apart.mean():.1f} mm, 95 % below {np.percentile(apart, 95):.1f} mm")
    return rotations


def write(
    mapper: Mapper,
    places: np.ndarray,
    rotations: Tensor,
    folder: Path,
    outputs: Sequence[dict[str, np.ndarray]],
) -> None:
    """Write the table, and what the tests need of the four bodies."""
    corners, shares = mapper.table(places)
    fitted, checked = mapper.chosen[:POINTS], mapper.chosen[POINTS:]
    free = SurfaceTable(corners[fitted], shares[fitted], fitted)
    smpl = smpl_table(folder, mapper.meshes[0], places[fitted])
    joints = _CAMERA @ np.stack([out["pred_global_rots"] for out in outputs])[:, SMPL_JOINTS]
    np.savez_compressed(
        MHR_SURFACE,
        turns=joint_turns(joints, mapper, rotations[1:]),
        **_compact("free", free),
        **_compact("smpl", smpl),
    )
    meshes = np.stack([out["pred_vertices"] for out in outputs])
    check = SurfaceTable(corners[checked], shares[checked], checked)
    names = ("keypoints_3d", "keypoints_2d", "cam_t")
    published = {name: np.stack([out[f"pred_{name}"] for out in outputs]) for name in names}
    np.savez_compressed(
        TEST_BODIES,
        surface_m=free.points(meshes).astype(np.float32),
        smpl_surface_m=smpl.points(meshes).astype(np.float32),
        check_m=check.points(meshes).astype(np.float32),
        check_vertices=checked.astype(np.uint16),
        joint_rotations=joints.astype(np.float32),
        keypoints_m=published["keypoints_3d"],
        keypoints_px=published["keypoints_2d"],
        translation_m=published["cam_t"],
        intrinsics=_intrinsics(published),
    )


def _intrinsics(published: dict[str, np.ndarray]) -> np.ndarray:
    """The camera's K (3, 3), which is not published, from keypoints in space and in the image."""
    points = (published["keypoints_3d"] + published["cam_t"][:, None]).reshape(-1, 3)
    rays, pixels = points[:, :2] / points[:, 2:], published["keypoints_2d"].reshape(-1, 2)
    middle, spread = rays.mean(0), rays - rays.mean(0)
    focal = float((spread * (pixels - pixels.mean(0))).sum() / (spread**2).sum())
    centre = pixels.mean(0) - focal * middle
    return np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])


def _compact(name: str, table: SurfaceTable) -> dict[str, np.ndarray]:
    return {
        f"{name}_vertices": table.vertices.astype(np.uint16),
        f"{name}_weights": table.weights.astype(np.float32),
        f"{name}_body_vertices": table.body_vertices.astype(np.uint16),
    }


if __name__ == "__main__":
    main()
