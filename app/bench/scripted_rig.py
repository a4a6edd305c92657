"""A rig of MHR's size in TorchScript, with the interface of the released ``mhr_model.pt``.

The original SAM 3D Body loads its rig from such a file. The steps are those of the released one, so
that they take as long: a float64 chain of quaternions in levels, correctives of a sparse and a
dense product, and a sum over single skin weights.
"""

# No postponed annotations: TorchScript reads those of the module's buffers as types.
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.sam3d.rig import FIRST_CORRECTING, JOINTS, RIG_TENSORS, SHAPE, VERTICES

_EXPRESSIONS = 72
_FEATURES = (JOINTS - FIRST_CORRECTING) * 6


def write_rig(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write a rig as a TorchScript file.

    Args:
        tensors: The tensors of a rig by their names in `RIG_TENSORS`.
        file: Where to write it.
    """
    torch.jit.save(torch.jit.script(ScriptedRig(tensors).eval()), str(file))


class ScriptedRig(nn.Module):
    """From shape, parameters and expressions to vertices and joints, in centimetres."""

    base: Tensor
    shape_vectors: Tensor
    expressions: Tensor
    transform: Tensor
    offsets: Tensor
    prerotations: Tensor
    bind: Tensor
    pairs: Tensor
    skin_joints: Tensor
    skin_vertices: Tensor
    skin_weights: Tensor
    sparse_cells: Tensor
    sparse_values: Tensor
    correctives: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        kept = dict(zip(_NAMES, (tensors[name] for name in RIG_TENSORS), strict=True))
        levels = _levels(kept.pop("parents").tolist())
        kept["pairs"] = torch.tensor([pair for level in levels for pair in level]).T
        kept["expressions"] = 0.1 * torch.randn(_EXPRESSIONS, VERTICES, 3)
        device = kept["base"].device
        for name, value in kept.items():
            self.register_buffer(name, value.to(device).contiguous())
        self.level_sizes = [len(level) for level in levels]
        self.hidden: int = kept["correctives"].shape[1]
        self.joints: int = JOINTS
        self.vertices: int = VERTICES
        self.shapes: int = SHAPE
        self.features: int = _FEATURES
        self.first_correcting: int = FIRST_CORRECTING

    def forward(
        self, shape: Tensor, parameters: Tensor, expressions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return vertices (B, 18439, 3), and joints (B, 127, 8): place, quaternion and scale.

        Args:
            shape: (B, 45).
            parameters: (B, 204).
            expressions: (B, 72).
        """
        rest = self.base + torch.einsum("nvd,bn->bvd", self.shape_vectors, shape)
        rest = rest + torch.einsum("nvd,bn->bvd", self.expressions, expressions)
        padded = torch.cat([parameters, torch.zeros_like(shape)], dim=1)
        moved = torch.einsum("dn,bn->bd", self.transform, padded).view(-1, self.joints, 7)
        state = self.chain(self.local(moved))
        features = _rotation_6d(moved[:, self.first_correcting :, 3:6])
        upright = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0], device=features.device)
        flat = (features - upright).flatten(1, 2)
        sparse = torch.sparse_coo_tensor(
            self.sparse_cells, self.sparse_values, [self.hidden, self.features]
        )
        hidden = torch.relu(torch.matmul(sparse, flat.transpose(0, 1)).transpose(0, 1))
        rest = rest + F.linear(hidden, self.correctives).view(-1, self.vertices, 3)
        return self.skin(state, rest), state

    def local(self, moved: Tensor) -> Tensor:
        before = self.prerotations.expand(len(moved), -1, -1)
        turned = _product(before, _quaternion(moved[..., 3:6]))
        return torch.cat([moved[..., :3] + self.offsets, turned, torch.exp2(moved[..., 6:])], -1)

    def chain(self, local: Tensor) -> Tensor:
        state = local.double()
        begin = 0
        for size in self.level_sizes:
            joints = self.pairs[0, begin : begin + size]
            above = self.pairs[1, begin : begin + size]
            done = _compose(state.index_select(1, above), state.index_select(1, joints))
            state = state.index_copy(1, joints, done)
            begin += size
        return state.to(local.dtype)

    def skin(self, state: Tensor, rest: Tensor) -> Tensor:
        joints = _compose(state, self.bind.expand(len(state), -1, -1))
        joints = joints.index_select(1, self.skin_joints)
        points = rest.index_select(1, self.skin_vertices)
        turned = _turn(F.normalize(joints[..., 3:7], dim=-1), joints[..., 7:] * points)
        weighted = (joints[..., :3] + turned) * self.skin_weights[:, None]
        return torch.zeros_like(rest).index_add(1, self.skin_vertices, weighted)


_NAMES = (
    "base", "shape_vectors", "transform", "offsets", "prerotations", "parents", "bind",
    "skin_joints", "skin_weights", "skin_vertices", "sparse_cells", "sparse_values", "correctives",
)  # fmt: skip
"""The buffers, in the order of `RIG_TENSORS`."""


def _levels(parents: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Return, level by level, the joints and the joints above them whose products they are
    multiplied with (Sklansky, Conditional-Sum Addition Logic, 1960)."""
    chains: list[list[int]] = []
    for joint, parent in enumerate(parents):
        chains.append([*(chains[parent] if parent >= 0 else []), joint])
    levels = []
    for bit in range((max(map(len, chains)) - 1).bit_length()):
        places = [(chain, (len(chain) - 1) >> bit) for chain in chains]
        levels.append([(c[-1], c[(place << bit) - 1]) for c, place in places if place % 2])
    return levels


def _quaternion(angles: Tensor) -> Tensor:
    """Return the quaternions (..., 4), w last, of XYZ Euler angles (..., 3)."""
    cosines, sines = torch.cos(angles / 2), torch.sin(angles / 2)
    cx, cy, cz = cosines[..., 0], cosines[..., 1], cosines[..., 2]
    sx, sy, sz = sines[..., 0], sines[..., 1], sines[..., 2]
    x, y = sx * cy * cz - cx * sy * sz, cx * sy * cz + sx * cy * sz
    z, w = cx * cy * sz - sx * sy * cz, cx * cy * cz + sx * sy * sz
    return torch.stack([x, y, z, w], dim=-1)


def _rotation_6d(angles: Tensor) -> Tensor:
    """Return the first two columns (..., 6) of the rotations of Euler angles (..., 3)."""
    cosines, sines = torch.cos(angles), torch.sin(angles)
    cx, cy, cz = cosines[..., 0], cosines[..., 1], cosines[..., 2]
    sx, sy, sz = sines[..., 0], sines[..., 1], sines[..., 2]
    first = [cy * cz, cy * sz, -sy]
    second = [sx * sy * cz - cx * sz, cx * cz + sx * sy * sz, sx * cy]
    return torch.stack(first + second, dim=-1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return the products of quaternions (..., 4)."""
    vector = a[..., 3:] * b[..., :3] + b[..., 3:] * a[..., :3]
    vector = vector + torch.cross(a[..., :3], b[..., :3], dim=-1)
    scalar = a[..., 3:] * b[..., 3:] - (a[..., :3] * b[..., :3]).sum(-1, keepdim=True)
    return torch.cat([vector, scalar], dim=-1)


def _turn(quaternions: Tensor, points: Tensor) -> Tensor:
    """Return points (..., 3) turned by unit quaternions (..., 4)."""
    twice = 2.0 * torch.cross(quaternions[..., :3], points, dim=-1)
    crossed = torch.cross(quaternions[..., :3], twice, dim=-1)
    return points + quaternions[..., 3:] * twice + crossed


def _compose(a: Tensor, b: Tensor) -> Tensor:
    """Return the maps (..., 8) that apply ``b``, then ``a``: place, quaternion, scale."""
    turn_a, turn_b = F.normalize(a[..., 3:7], dim=-1), F.normalize(b[..., 3:7], dim=-1)
    place = a[..., :3] + a[..., 7:] * _turn(turn_a, b[..., :3])
    return torch.cat([place, _product(turn_a, turn_b), a[..., 7:] * b[..., 7:]], dim=-1)
