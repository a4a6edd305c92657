"""Points on SMPL's skeleton and their analytic Jacobian.

Under linear blend skinning, any fixed linear combination of vertices (a row of a landmark
regressor, a single vertex) moves as a sum over joints. With W the skinning weights, r_kv the
combination, R_j and p_j the world rotation and position of joint j, and J_j its rest position:

    x_k = sum_j  R_j m_kj(beta) + c_kj p_j,      c_kj = sum_v r_kv W_vj,
    m_kj(beta) = sum_v r_kv W_vj (v_v(beta) - J_j(beta)),

so a landmark costs 24 small products, whatever the size of the mesh. Pose blend shapes, if a model
has them, are omitted here (millimetres at the landmarks); the final mesh has them.
Equations: Loper et al., SMPL (SIGGRAPH Asia 2015), eqs. 2-4, rearranged.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.body.mhr_surface import surface_table
from pipeline.body.model import LEVELS, BodyModel
from pipeline.body.prior import prior_table
from pipeline.core.skeleton import PARENTS

JOINTS = 24
BETAS = 10
POSED = 22
"""Joints that the fit rotates: all but SMPL's two hand joints, which no landmark depends on."""


@dataclass(frozen=True, eq=False)
class Points:
    """K points as moments about SMPL's joints: m_kj and c_kj of the module's equations.

    Attributes:
        moment: (K, 24, 3), metres at beta 0.
        moment_betas: Its change with each beta (K, 24, 3, 10), metres.
        mass: Share of each joint in each point (K, 24).
        mass_below: Mass of the subtree of each posed joint (K, 22).
    """

    moment: Tensor
    moment_betas: Tensor
    mass: Tensor
    mass_below: Tensor


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The parts of a body model that the fit needs, in single precision on one device.

    Attributes:
        bones: Vector to each joint from its parent at rest (24, 3, 11), metres: at beta 0, then
            its change with each beta. The pelvis's is its position.
        rest: Landmarks at rest (33, 3, 11), likewise.
        prior: As `prior.prior_table`.
        below: As `subtree_matrix`.
        landmarks: The 33 landmarks as points.
        surface: Vertices spread over the surface, as points.
        normals: Unit normals of those vertices at rest (K, 3).
        skin: The body's points of a `mhr_surface.SurfaceTable` about their middle, as points; None
            for a body without a table.
    """

    bones: Tensor
    rest: Tensor
    prior: Tensor
    below: Tensor
    landmarks: Points
    surface: Points
    normals: Tensor
    skin: Points | None

    @classmethod
    def of(cls, body: BodyModel, surface_points: int = 256) -> Skeleton:
        """Return the skeleton of a body model, with ``surface_points`` vertices spread evenly."""
        device = body.v_template.device
        below = subtree_matrix().to(device)
        regressor = body.landmark_regressor
        regressor = regressor.to_dense() if regressor.is_sparse else regressor
        chosen = spread_vertices(body.v_template, surface_points)
        pick = _picking(chosen, len(body.v_template))
        table = surface_table(body)
        skin = None
        if table is not None:
            picked = _picking(torch.from_numpy(table.body_vertices).to(device), pick.shape[1])
            # The middle is a sum of points too, so its moments can be taken off theirs.
            skin = reduce_points(body, picked - picked.mean(0), below)
        return cls(
            bones=bones_of(body),
            rest=torch.cat(
                (
                    (regressor @ body.v_template)[..., None],
                    torch.einsum("kv,vcb->kcb", regressor, body.shapedirs[..., :BETAS]),
                ),
                -1,
            ),
            prior=prior_table().to(device),
            below=below,
            landmarks=reduce_points(body, regressor, below),
            surface=reduce_points(body, pick, below),
            normals=vertex_normals(body.v_template, body.faces)[chosen],
            skin=skin,
        )


def _picking(chosen: Tensor, vertices: int) -> Tensor:
    """The matrix (K, vertices) that picks vertices (K,)."""
    pick = torch.zeros(len(chosen), vertices, device=chosen.device)
    pick[torch.arange(len(chosen)), chosen] = 1.0
    return pick


def bones_of(body: BodyModel) -> Tensor:
    """Return `Skeleton.bones` of a body."""
    rest = torch.cat((body.joint_template[..., None], body.joint_shapedirs[..., :BETAS]), -1)
    return torch.cat((rest[:1], rest[1:] - rest[list(PARENTS[1:])]))


def subtree_matrix() -> Tensor:
    """Return a (24, 24) float32 matrix whose entry (i, j) is 1 if joint i is j or below it."""
    below = torch.eye(JOINTS)
    for joint in range(JOINTS):
        parent = PARENTS[joint]
        while parent >= 0:
            below[joint, parent] = 1.0
            parent = PARENTS[parent]
    return below


def reduce_points(body: BodyModel, regressor: Tensor, below: Tensor) -> Points:
    """Return the K points that the rows of ``regressor`` (K, V) make of a body's vertices."""
    share = regressor[:, :, None] * body.weights[None]
    mass = share.sum(1)
    moment = torch.einsum("kvj,vc->kjc", share, body.v_template)
    moment_betas = torch.einsum("kvj,vcb->kjcb", share, body.shapedirs[..., :10])
    moment = moment - mass[..., None] * body.joint_template
    moment_betas = moment_betas - mass[..., None, None] * body.joint_shapedirs
    return Points(moment, moment_betas, mass, (mass @ below)[:, :POSED])


def spread_vertices(vertices: Tensor, count: int) -> Tensor:
    """Return the indices of ``count`` vertices by farthest-point sampling; deterministic."""
    count = min(count, len(vertices))
    # The highest vertex, so that the choice is the same every time.
    chosen = [int(torch.argmax(vertices[:, 1]))]
    distance = torch.full((len(vertices),), torch.inf, device=vertices.device)
    for _ in range(count - 1):
        distance = torch.minimum(distance, (vertices - vertices[chosen[-1]]).norm(dim=1))
        chosen.append(int(torch.argmax(distance)))
    return torch.tensor(chosen, device=vertices.device)


def vertex_normals(vertices: Tensor, faces: object) -> Tensor:
    """Return area-weighted unit normals (V, 3) of a closed mesh (V, 3), (F, 3)."""
    index = torch.as_tensor(faces, dtype=torch.long, device=vertices.device)
    a, b, c = (vertices[index[:, i]] for i in range(3))
    face = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices)
    for i in range(3):
        normals.index_add_(0, index[:, i], face)
    return normals / normals.norm(dim=1, keepdim=True).clamp_min(1e-12)


@dataclass(frozen=True, eq=False)
class Pose:
    """Posed joints.

    Attributes:
        rotations: World rotations (B, 24, 3, 3).
        joints: Positions (B, 24, 3), metres.
        joints_betas: Change of the positions with each beta (B, 24, 3, 10), metres.
    """

    rotations: Tensor
    joints: Tensor
    joints_betas: Tensor


def forward_kinematics(
    skeleton: Skeleton, rotations: Tensor, transl: Tensor, betas: Tensor
) -> Pose:
    """Return the joints posed by local ``rotations`` (B, 24, 3, 3), ``transl`` (B, 3) in metres
    and ``betas`` (B, 10)."""
    # Placeholders but for the pelvis: each level fills in its own joints.
    world = [rotations[:, 0]] * JOINTS
    for level in LEVELS:
        above = torch.stack([world[PARENTS[j]] for j in level], 1)
        turned = above @ rotations[:, level[0] : level[-1] + 1]
        for i, j in enumerate(level):
            world[j] = turned[:, i]
    turns = torch.stack(world, 1)
    # Each parent rotates its bones, whose change with shape is in the last dimension. A joint is
    # then the sum of the bones from the pelvis down to it.
    bones = torch.stack([world[parent] for parent in PARENTS[1:]], 1) @ skeleton.bones[1:]
    bones = torch.cat((skeleton.bones[:1].expand(len(rotations), 1, 3, 11), bones), 1)
    placed = (skeleton.below @ bones.flatten(2)).unflatten(2, (3, 11))
    change = placed[..., 1:]
    joints = placed[..., 0] + torch.einsum("njcb,nb->njc", change, betas) + transl[:, None]
    return Pose(turns, joints, change)


def place_points(points: Points, pose: Pose, betas: Tensor) -> tuple[Tensor, Tensor]:
    """Return the points (B, K, 3) and each joint's share of them (B, K, 24, 3), in metres."""
    moment = points.moment + torch.einsum("kjcb,nb->nkjc", points.moment_betas, betas)
    share = torch.einsum("njrc,nkjc->nkjr", pose.rotations, moment)
    share = share + points.mass[..., None] * pose.joints[:, None]
    return share.sum(2), share


def levers(points: Points, pose: Pose, share: Tensor, below: Tensor) -> Tensor:
    """Return the part of each point that each posed joint rotates, relative to that joint:
    (B, K, 22, 3) metres."""
    carried = torch.matmul(share.transpose(-1, -2), below[:, :POSED]).transpose(-1, -2)
    return carried - points.mass_below[..., None] * pose.joints[:, None, :POSED]


def point_jacobian(points: Points, pose: Pose, share: Tensor, below: Tensor) -> Tensor:
    """Return d(point)/d(rotation) (B, K, 3, 66).

    The columns, joint by joint, are rotations of each posed joint about its own axes:
    R <- R exp(delta).
    """
    lever = levers(points, pose, share, below)
    axes = pose.rotations[:, None, :POSED].transpose(-1, -2)
    turn = torch.linalg.cross(axes, lever[..., None, :].expand(*lever.shape[:3], 3, 3), dim=-1)
    return turn.flatten(2, 3).transpose(-1, -2)


def directed_jacobian(
    points: Points, pose: Pose, share: Tensor, below: Tensor, direction: Tensor
) -> Tensor:
    """Return d(direction . point)/d(translation, rotation, beta) (B, K, 79).

    For fixed directions (B, K, 3). It costs a third of the whole Jacobian's work and needs none of
    its memory.
    """
    lever = levers(points, pose, share, below)
    # direction . (axis x lever) = axis . (lever x direction)
    moment = torch.linalg.cross(lever, direction[:, :, None].expand_as(lever), dim=-1)
    turn = (moment[..., None, :] @ pose.rotations[:, None, :POSED])[..., 0, :]
    turned = torch.einsum("njrc,nkr->nkjc", pose.rotations, direction).flatten(2)
    shape = torch.einsum("nkm,kmb->nkb", turned, points.moment_betas.flatten(1, 2))
    along = torch.einsum("nkr,njrb->nkjb", direction, pose.joints_betas)
    shape = shape + (points.mass[:, None] @ along)[..., 0, :]
    return torch.cat((direction, turn.flatten(2), shape), -1)


def shape_jacobian(points: Points, pose: Pose) -> Tensor:
    """Return d(point)/d(beta) (B, K, 3, 10)."""
    turned = torch.einsum("njrc,kjcb->nkrb", pose.rotations, points.moment_betas)
    return turned + torch.einsum("kj,njrb->nkrb", points.mass, pose.joints_betas)
