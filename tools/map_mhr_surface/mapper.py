"""The map from the free body's vertices to MHR's mesh, by fits and closest points in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from torch import Tensor

from pipeline.body.kinematics import Skeleton, reduce_points, spread_vertices, vertex_normals
from pipeline.body.model import BodyModel
from pipeline.body.rotations import exp_so3, log_so3
from pipeline.core.skeleton import JOINT_NAMES, SMPL_24
from pipeline.fitting.solver import FitConfig, Observations, TemporalPrior, solve_window
from tools.build_body.relax_hand import find_fingers
from tools.map_mhr_surface.mesh import Mesh

POINTS = 256
"""Points of the table. As many again, between them, are kept for the tests."""
CAMERA = np.diag([1.0, -1.0, -1.0])
"""From MHR's axes, y up and z to the camera, to the camera's."""
_STIFFNESS = 0.3
"""How much a vertex's shift keeps to its neighbours' against its own closest points."""
_ROUNDS = 16
_FAR_M = 0.05
_SKIN_ONLY = FitConfig(use_world=False, use_mask=False, use_depth=False, use_smoothness=False)
_FIRM = 1e4
"""The weight of the skin in the fits, 1/m^2: far above that of the pose prior."""


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
        """Return where on MHR's mesh at rest the vertices lie, (V, 3), as closest points.

        The body is fitted to the mesh and its closest points are found again, in turns.
        """
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
                normals = _normals(vertices, self.body)
                places = rest.at(*rest.closest(vertices, normals)[:2])
                middle = middle + (places - vertices)[self.skin].mean(0)
                state = self._fit(places[None, self.chosen], state[0], weight, 2)
        return places

    def refine(self, places: np.ndarray) -> np.ndarray:
        """Return the map (V, 3) that all meshes agree on best, from a first one."""
        first = places
        rotations, _ = self.fit_all(places)
        for _ in range(_ROUNDS):
            corners, shares = self.table(places)
            rotations, betas = self._fit(self._targets(corners, shares), rotations, _FIRM, 4)
            mean, sure = self._mean_places(corners, shares, self.posed(rotations, betas))
            # A vertex that moves that far has met another part of the body.
            sure[np.linalg.norm(mean - places, axis=1) > _FAR_M] = 0
            system = _STIFFNESS * self._laplacian + sparse.diags(sure + 1e-6)
            places = first + splu(system.tocsc()).solve(sure[:, None] * (mean - first))
            places = self.meshes[0].at(*self.table(places))
        return places

    def _mean_places(
        self, corners: np.ndarray, shares: np.ndarray, posed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the closest points to fitted bodies (N, V, 3) lie on MHR's mesh at rest.

        Their mean (V, 3) over the meshes and over both sides of the body, and the share (V,) of
        them that was found.
        """
        total, count = np.zeros(posed.shape[1:]), np.zeros(posed.shape[1])
        for mesh, vertices in zip(self.meshes, posed):
            shift = (mesh.at(corners, shares) - vertices)[self.chosen].mean(0)
            near, found = self._closest_at_rest(mesh, vertices + shift)
            for side, own in ((1, slice(None)), (-1, self.mirror)):
                total += (found[:, None] * near * [side, 1, 1])[own]
                count += found[own]
        return total / count.clip(1e-9)[:, None], count / (2 * len(self.meshes))

    def _closest_at_rest(self, mesh: Mesh, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The closest points of a mesh where they lie at rest (V, 3), and whether each is one."""
        corners, shares, cosine = mesh.closest(vertices, _normals(vertices, self.body))
        apart_m = np.linalg.norm(mesh.at(corners, shares) - vertices, axis=1)
        found = np.zeros(len(vertices))
        found[self.skin] = ((cosine > 0.6) & (apart_m < _FAR_M))[self.skin]
        return self.meshes[0].at(corners, shares), found

    def table(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return corners (V, 3) and shares (V, 3) of the places on MHR's mesh at rest."""
        corners, shares, _ = self.meshes[0].closest(places, _normals(places, self.body))
        return corners, shares

    def fit_all(self, places: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return rotations (N, 1, 24, 3, 3) and shapes (N, 10) fitted to all meshes."""
        count = len(self.meshes)
        rotations = torch.eye(3).repeat(count, 1, len(SMPL_24), 1, 1)
        rotations[1:, :, 0] = torch.from_numpy(CAMERA).float()
        targets = self._targets(*self.table(places))
        # The pose prior leads at first, which finds the way from a far start.
        for weight in (10.0, 100.0, 1000.0, _FIRM):
            rotations, betas = self._fit(targets, rotations, weight, 30)
        return rotations, betas

    def _targets(self, corners: np.ndarray, shares: np.ndarray) -> np.ndarray:
        chosen = corners[self.chosen], shares[self.chosen]
        return np.stack([mesh.at(*chosen) for mesh in self.meshes])

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
            torch.zeros(count),
        )  # fmt: skip
        away = torch.tensor([0.0, 0.0, 4.0]).expand(count, 1, 3)
        out = solve_window(self.skeleton, observed, past, rotations, away, _SKIN_ONLY, steps)
        return out.rotations, out.betas

    def posed(self, rotations: Tensor, betas: Tensor) -> np.ndarray:
        """Return the bodies' vertices (N, V, 3) in metres, at no place in particular."""
        turns = log_so3(rotations[:, 0])
        out = self.body(betas, turns[:, 0], turns[:, 1:].flatten(1), torch.zeros(len(turns), 3))
        return out.vertices_m.numpy().astype(np.float64)


def _normals(vertices: np.ndarray, body: BodyModel) -> np.ndarray:
    return vertex_normals(torch.from_numpy(vertices), body.faces).numpy()
