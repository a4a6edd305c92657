"""Momentum Human Rig (MHR, Apache-2.0): from its parameters to joints and vertices.

Lengths are centimetres, as in the rig's file, and y is up. A joint's place is a map (4, 4) from
its own axes to the body's: rotation times scale, and translation. So a chain of joints is a product
of matrices.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

JOINTS = 127
VERTICES = 18439
PARAMETERS = 204
SHAPE = 45
_ALL_PARAMETERS = PARAMETERS + SHAPE
"""Columns of the file's parameter transform. Those of the shape are always multiplied by zero."""
FIRST_CORRECTING = 2
"""Joints before this one move no pose corrective."""
_ROTATION_6D = 6

_SHAPES = "character_torch.blend_shape."
_SKELETON = "character_torch.skeleton."
_SKIN = "character_torch.linear_blend_skinning."
_FACES = "character_torch.mesh.faces"
_TRANSFORM = "character_torch.parameter_transform.parameter_transform"
_CORRECTIVES = "pose_correctives_model.pose_dirs_predictor."

RIG_TENSORS: dict[str, tuple[int | None, ...]] = {
    f"{_SHAPES}base_shape": (VERTICES, 3),
    f"{_SHAPES}shape_vectors": (SHAPE, VERTICES, 3),
    _TRANSFORM: (JOINTS * 7, _ALL_PARAMETERS),
    f"{_SKELETON}joint_translation_offsets": (JOINTS, 3),
    f"{_SKELETON}joint_prerotations": (JOINTS, 4),
    f"{_SKELETON}joint_parents": (JOINTS,),
    f"{_SKIN}inverse_bind_pose": (JOINTS, 8),
    f"{_SKIN}skin_indices_flattened": (None,),
    f"{_SKIN}skin_weights_flattened": (None,),
    f"{_SKIN}vert_indices_flattened": (None,),
    f"{_CORRECTIVES}0.sparse_indices": (2, None),
    f"{_CORRECTIVES}0.sparse_weight": (None,),
    f"{_CORRECTIVES}2.weight": (VERTICES * 3, None),
}
"""The tensors of the rig's file that are used, and their shapes; None matches any number."""


class RigError(ValueError):
    """The tensors are not those of the rig. The message says why, in one line."""


class Rig(nn.Module):
    """The joints and the surface over them.

    Attributes:
        faces: The surface's triangles (36874, 3), where the file has them.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Build the rig.

        Args:
            tensors: The tensors of the rig's file by name; `RIG_TENSORS` lists those that are used.

        Raises:
            RigError: One is missing or has another shape, or an index is out of range.
        """
        super().__init__()
        _check(tensors)
        self.skeleton = Skeleton(tensors)
        self.surface = Surface.of_file(tensors)
        faces = tensors.get(_FACES)
        # SAM 3D Body's checkpoints have them too, so a rig without them serves.
        self.faces = None if faces is None else faces.cpu().numpy()

    def forward(self, parameters: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        """Return all vertices (B, 18439, 3) in centimetres, and the joints' maps (B, 127, 4, 4).

        Args:
            parameters: (B, 204).
            shape: (B, 45).
        """
        maps, turned = self.skeleton(parameters)
        return self.surface(maps, turned, shape), maps


class Skeleton(nn.Module):
    """From the rig's parameters to the places of its joints."""

    transform: Tensor
    offsets: Tensor
    prerotations: Tensor
    ancestors: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        constants = {
            "transform": tensors[_TRANSFORM][:, :PARAMETERS].contiguous(),
            "offsets": tensors[f"{_SKELETON}joint_translation_offsets"],
            "prerotations": _rotation_of_quaternion(tensors[f"{_SKELETON}joint_prerotations"]),
            "ancestors": _ancestors(tensors[f"{_SKELETON}joint_parents"].tolist()),
        }
        _keep(self, constants)

    def forward(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the joints' maps (B, 127, 4, 4), and their rotations (B, 127, 3, 3) from rest.

        Args:
            parameters: (B, 204).
        """
        joints = (parameters @ self.transform.T).unflatten(1, (JOINTS, 7))
        turned = rotation_of_euler(joints[..., 3:6])
        scales = torch.exp2(joints[..., 6:, None])
        local = _maps(self.prerotations @ turned * scales, joints[..., :3] + self.offsets)
        return self._chain(local), turned

    def _chain(self, local: Tensor) -> Tensor:
        """The product of the local maps from the root to each joint, in steps of double length
        (Hillis and Steele, Data Parallel Algorithms, 1986)."""
        # One more row, the identity, is the ancestor of joints that have none so far above.
        identity = torch.eye(4, dtype=local.dtype, device=local.device).expand(len(local), 1, 4, 4)
        maps = torch.cat([local, identity], dim=1)
        for ancestors in self.ancestors:
            maps = maps[:, ancestors] @ maps
        return maps[:, :JOINTS]


class Surface(nn.Module):
    """Vertices of the rig: all of them, or a few."""

    base: Tensor
    shape_vectors: Tensor
    hidden: Tensor
    correctives: Tensor
    inverse_bind: Tensor
    weights: Tensor

    def __init__(self, constants: Mapping[str, Tensor]) -> None:
        super().__init__()
        _keep(self, constants)

    @classmethod
    def of_file(cls, tensors: Mapping[str, Tensor]) -> Surface:
        """Return the whole surface."""
        correctives = tensors[f"{_CORRECTIVES}2.weight"]
        rows, columns = tensors[f"{_CORRECTIVES}0.sparse_indices"].long()
        hidden = torch.zeros(correctives.shape[1], (JOINTS - FIRST_CORRECTING) * _ROTATION_6D)
        # Repeated entries of a sparse matrix are summed.
        hidden.index_put_((rows, columns), tensors[f"{_CORRECTIVES}0.sparse_weight"], True)
        weights = torch.zeros(VERTICES, JOINTS)
        vertices = tensors[f"{_SKIN}vert_indices_flattened"].long()
        joints = tensors[f"{_SKIN}skin_indices_flattened"].long()
        weights.index_put_((vertices, joints), tensors[f"{_SKIN}skin_weights_flattened"], True)
        bind = tensors[f"{_SKIN}inverse_bind_pose"]
        return cls(
            {
                "base": tensors[f"{_SHAPES}base_shape"],
                "shape_vectors": tensors[f"{_SHAPES}shape_vectors"].permute(1, 2, 0).contiguous(),
                "hidden": hidden,
                "correctives": correctives.unflatten(0, (VERTICES, 3)),
                "inverse_bind": _maps(
                    _rotation_of_quaternion(bind[:, 3:7]) * bind[:, 7:, None], bind[:, :3]
                ),
                "weights": weights,
            }
        )

    def rows(self, vertices: Tensor) -> Surface:
        """Return a surface of a few vertices, whose places are those that they have in the whole.

        Args:
            vertices: Their indices (N,).
        """
        return Surface(
            {
                "base": self.base[vertices],
                "shape_vectors": self.shape_vectors[vertices],
                "hidden": self.hidden,
                "correctives": self.correctives[vertices],
                "inverse_bind": self.inverse_bind,
                "weights": self.weights[vertices],
            }
        )

    def forward(self, maps: Tensor, turned: Tensor, shape: Tensor) -> Tensor:
        """Return the vertices (B, N, 3) in centimetres.

        Args:
            maps: (B, 127, 4, 4) of the joints.
            turned: (B, 127, 3, 3), their rotations from rest.
            shape: (B, 45).
        """
        rest = self.base + (shape @ self.shape_vectors.flatten(0, 1).T).unflatten(1, (-1, 3))
        rest = rest + self._pose_correctives(turned)
        # Rows of the blended maps: (B, N, 3, 4).
        joint_maps = (maps @ self.inverse_bind)[..., :3, :].flatten(2)
        blended = (self.weights @ joint_maps).unflatten(2, (3, 4))
        return (blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3]

    def _pose_correctives(self, turned: Tensor) -> Tensor:
        """What bent joints add to the vertices at rest, (B, N, 3)."""
        from_rest = turned[:, FIRST_CORRECTING:] - torch.eye(3, device=turned.device)
        columns = from_rest[..., :2].transpose(2, 3).flatten(1)
        hidden = F.relu(columns @ self.hidden.T)
        return (hidden @ self.correctives.flatten(0, 1).T).unflatten(1, (-1, 3))


def rotation_of_euler(angles: Tensor) -> Tensor:
    """Return the rotations (..., 3, 3) of angles (..., 3) about x, then y, then z: Rz Ry Rx."""
    (sx, sy, sz), (cx, cy, cz) = angles.sin().unbind(-1), angles.cos().unbind(-1)
    rows = (
        (cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz),
        (cy * sz, cx * cz + sx * sy * sz, cx * sy * sz - sx * cz),
        (-sy, sx * cy, cx * cy),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _rotation_of_quaternion(quaternions: Tensor) -> Tensor:
    """Rotations (..., 3, 3) of quaternions (x, y, z, w) of any length."""
    x, y, z, w = F.normalize(quaternions.double(), dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2).float()


def _maps(linear: Tensor, translation: Tensor) -> Tensor:
    """Maps (..., 4, 4) of their linear parts (..., 3, 3) and translations (..., 3)."""
    upper = torch.cat([linear, translation[..., None]], dim=-1)
    last = torch.eye(4, dtype=upper.dtype, device=upper.device)[3:]
    return torch.cat([upper, last.expand(*upper.shape[:-2], 1, 4)], dim=-2)


def _ancestors(parents: list[int]) -> Tensor:
    """For step k, each joint's ancestor 2^k above; `JOINTS` where there is none. (steps, 128)."""
    above = [JOINTS if parent < 0 else parent for parent in parents] + [JOINTS]
    steps = []
    while any(joint != JOINTS for joint in above):
        steps.append(above)
        above = [above[joint] for joint in above]
    return torch.tensor(steps)


def _keep(module: nn.Module, constants: Mapping[str, Tensor]) -> None:
    """Register tensors that move with the module but are no part of its state dict: the rig comes
    from a file of its own, not from the checkpoint."""
    for name, value in constants.items():
        module.register_buffer(name, value, persistent=False)


def _check(tensors: Mapping[str, Tensor]) -> None:
    for name, shape in RIG_TENSORS.items():
        if name not in tensors:
            raise RigError(f"not the MHR rig: {name} is missing")
        actual = tuple(tensors[name].shape)
        matches = len(actual) == len(shape) and all(
            n in (None, m) for n, m in zip(shape, actual, strict=True)
        )
        if not matches:
            expected = " x ".join("any" if n is None else str(n) for n in shape)
            raise RigError(f"not the MHR rig: {name} is {actual}, not {expected}")
        value = tensors[name]
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise RigError(f"the rig is damaged: {name} is not finite")
    _check_indices(tensors)


def _check_indices(tensors: Mapping[str, Tensor]) -> None:
    rows, columns = tensors[f"{_CORRECTIVES}0.sparse_indices"]
    correctives = tensors[f"{_CORRECTIVES}2.weight"]
    ranges = {
        "a corrective's row": (rows, correctives.shape[1]),
        "a corrective's column": (columns, (JOINTS - FIRST_CORRECTING) * _ROTATION_6D),
        "a skinned vertex": (tensors[f"{_SKIN}vert_indices_flattened"], VERTICES),
        "a skinning joint": (tensors[f"{_SKIN}skin_indices_flattened"], JOINTS),
    }
    for what, (indices, end) in ranges.items():
        if indices.is_floating_point() or not bool(((indices >= 0) & (indices < end)).all()):
            raise RigError(f"the rig is damaged: the number of {what} is out of range")
    lengths = {
        (f"{_CORRECTIVES}0.sparse_weight", len(rows)),
        (
            f"{_SKIN}skin_weights_flattened",
            len(tensors[f"{_SKIN}vert_indices_flattened"]),
        ),
        (f"{_SKIN}skin_indices_flattened", len(tensors[f"{_SKIN}vert_indices_flattened"])),
    }
    for name, length in lengths:
        if len(tensors[name]) != length:
            raise RigError(f"the rig is damaged: {name} has {len(tensors[name])} of {length}")
    parents = tensors[f"{_SKELETON}joint_parents"].tolist()
    # A parent stands before its children, so no chain can be a circle.
    if any(not -1 <= parent < joint for joint, parent in enumerate(parents)):
        raise RigError("the rig is damaged: a joint comes before its parent")
