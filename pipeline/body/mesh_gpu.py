"""Meshes of posed bodies on a GPU: blend shapes, skinning and regressed points in Triton.

`BodyModel.forward` from the joints' transforms on, in two launches, or three for a model with pose
blend shapes. The numbers are its to rounding, which the tests check.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.body.kinematics_gpu import LANES
from pipeline.body.model import BodyModel
from triton_launch import DirectKernel

_BLOCK = 128
"""Vertices of a program."""


class Mesher:
    """Makes the meshes of one body model. Made once; nothing is copied from the host later.

    Args:
        body: The body model, on a GPU.
        skin: (S,) vertices whose mean distance from observed points is measured; None for none.

    Attributes:
        meshes: How many meshes a body has: its own, and the mannequin's where there is one.
        pose_numbers: How many numbers of a pose move vertices: 207, or 0 for a model without pose
            blend shapes.
    """

    def __init__(self, body: BodyModel, skin: Tensor | None = None) -> None:
        self.meshes = 1 + (body.mannequin is not None)
        self._vertices = len(body.v_template)
        template = torch.cat((body.v_template[..., None], body.shapedirs), -1)
        tables = [template] if body.mannequin is None else [template, body.mannequin]
        # Vertices come last: neighbouring lanes read neighbouring numbers.
        self._shapes = torch.stack(tables).permute(0, 2, 3, 1).contiguous()
        joints, shares = _largest(body.weights)
        self._joints, self._shares = joints.T.contiguous(), shares.T.contiguous()
        regressor = body.landmark_regressor
        regressor = regressor.to_dense() if regressor.is_sparse else regressor
        self._picked, self._parts = _largest(regressor)
        self._skin = skin
        self._pose_shapes = None
        self.pose_numbers = 0
        if body.posedirs is not None:
            self._pose_shapes = body.posedirs.flatten(0, 1).T.contiguous()
            self.pose_numbers = len(self._pose_shapes)

    def meshes_of(self, transforms: Tensor, betas: Tensor, pose: Tensor | None) -> Tensor:
        """Return the meshes (B, M, V, 3) of B bodies in metres.

        Args:
            transforms: (B, 12, LANES) each joint's transform of points at rest, row by row.
            betas: (P, 10) shapes; the bodies of a person follow one another.
            pose: (B, pose_numbers) rotation matrices less the identity; None without such shapes.
        """
        bodies = len(transforms)
        out = transforms.new_empty(bodies, self.meshes, self._vertices, 3)
        shift = transforms
        if pose is not None and self._pose_shapes is not None:
            shift = pose @ self._pose_shapes
        mesh[(bodies, triton.cdiv(self._vertices, _BLOCK))](
            transforms, betas, self._shapes, self._joints, self._shares, shift, out,
            self._vertices, bodies // len(betas), LANES=LANES, MESHES=self.meshes,
            INFLUENCES=len(self._joints), HAS_POSE=pose is not None, BLOCK=_BLOCK, num_warps=4,
        )  # fmt: skip
        return out

    def write_points(
        self,
        meshes: Tensor,
        moved_m: Tensor,
        landmarks_m: Tensor,
        row: int,
        surface: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        """Write the landmarks of meshes, and how far their skins are from observed points.

        Args:
            meshes: (B, M, V, 3) what `meshes_of` returned.
            moved_m: (B, 3) by how much each was moved away from where it was fitted: rows of a
                regressor need not sum to one exactly.
            landmarks_m: (P, T, 33, 3) written, a view of rows.
            row: Numbers from one person's landmarks to the next one's.
            surface: The error (P, T), written, a view of rows; the observed points (B, S, 3) about
                their middle; and two arrays (B,), the error being NaN where one of them is 0. None
                leaves the skin out.
        """
        people, frames, count = landmarks_m.shape[:3]
        points = 0 if surface is None else surface[1].shape[1]
        # What is not read is another array.
        error, observed, weight, present = surface or (landmarks_m, moved_m, moved_m, moved_m)
        skin = self._picked if self._skin is None else self._skin
        regress[(people * frames, count + (points > 0))](
            meshes, meshes.stride(0), moved_m, self._picked, self._parts, skin, observed,
            weight, present, weight.stride(0), landmarks_m, error, row,
            FRAMES=frames, LANDMARKS=count, WIDTH=self._picked.shape[1], SURFACE=points,
            POINTS=triton.next_power_of_2(max(points, 1)), num_warps=1,
        )  # fmt: skip


def _largest(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The columns (int32) and values (N, M) of each row's numbers that are not zero.

    M is a power of 2; rows with fewer of them end with zeros.
    """
    most = int((matrix != 0).sum(1).max())
    width = min(triton.next_power_of_2(max(most, 1)), matrix.shape[1])
    columns = matrix.abs().topk(width, dim=1).indices
    values = matrix.gather(1, columns)
    extra = triton.next_power_of_2(width) - width
    pad = torch.nn.functional.pad
    return pad(columns, (0, extra)).to(torch.int32).contiguous(), pad(values, (0, extra))


@DirectKernel
@triton.jit
def mesh(
    transforms, betas, shapes, joints, shares, shift, out, vertices, frames,
    LANES: tl.constexpr, MESHES: tl.constexpr, INFLUENCES: tl.constexpr, HAS_POSE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write a block of vertices of all meshes of a body."""
    body = tl.program_id(0).to(tl.int64)
    vertex = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = vertex < vertices
    own = transforms + body * 12 * LANES
    t00 = tl.zeros((BLOCK,), tl.float32)
    t01, t02, t03 = t00, t00, t00
    t10, t11, t12, t13 = t00, t00, t00, t00
    t20, t21, t22, t23 = t00, t00, t00, t00
    for k in range(INFLUENCES):
        at = own + tl.load(joints + k * vertices + vertex, mask=real, other=0)
        share = tl.load(shares + k * vertices + vertex, mask=real, other=0.0)
        t00 += share * tl.load(at)
        t01 += share * tl.load(at + LANES)
        t02 += share * tl.load(at + 2 * LANES)
        t10 += share * tl.load(at + 3 * LANES)
        t11 += share * tl.load(at + 4 * LANES)
        t12 += share * tl.load(at + 5 * LANES)
        t20 += share * tl.load(at + 6 * LANES)
        t21 += share * tl.load(at + 7 * LANES)
        t22 += share * tl.load(at + 8 * LANES)
        t03 += share * tl.load(at + 9 * LANES)
        t13 += share * tl.load(at + 10 * LANES)
        t23 += share * tl.load(at + 11 * LANES)
    x = tl.zeros((BLOCK,), tl.float32)
    y = tl.zeros((BLOCK,), tl.float32)
    z = tl.zeros((BLOCK,), tl.float32)
    if HAS_POSE:
        at = shift + (body * vertices + vertex) * 3
        x = tl.load(at, mask=real, other=0.0)
        y = tl.load(at + 1, mask=real, other=0.0)
        z = tl.load(at + 2, mask=real, other=0.0)
    # The mannequin's table is what it adds to the body's own.
    for which in range(MESHES):
        at = shapes + which * 33 * vertices + vertex
        x += tl.load(at, mask=real, other=0.0)
        y += tl.load(at + 11 * vertices, mask=real, other=0.0)
        z += tl.load(at + 22 * vertices, mask=real, other=0.0)
        for b in range(10):
            beta = tl.load(betas + (body // frames) * 10 + b)
            at += vertices
            x += beta * tl.load(at, mask=real, other=0.0)
            y += beta * tl.load(at + 11 * vertices, mask=real, other=0.0)
            z += beta * tl.load(at + 22 * vertices, mask=real, other=0.0)
        to = out + ((body * MESHES + which) * vertices + vertex) * 3
        tl.store(to, t00 * x + t01 * y + t02 * z + t03, mask=real)
        tl.store(to + 1, t10 * x + t11 * y + t12 * z + t13, mask=real)
        tl.store(to + 2, t20 * x + t21 * y + t22 * z + t23, mask=real)


@DirectKernel
@triton.jit
def regress(
    meshes, mesh_row, moved, picked, parts, skin, surface, weight, present, weight_row,
    landmarks, error, row, FRAMES: tl.constexpr, LANDMARKS: tl.constexpr, WIDTH: tl.constexpr,
    SURFACE: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """Write one landmark of a body, or, as the last program, the error of its skin."""
    body = tl.program_id(0).to(tl.int64)
    point = tl.program_id(1)
    own = meshes + body * mesh_row
    shift = (body // FRAMES) * row
    frame = body % FRAMES
    if point < LANDMARKS:
        at = point * WIDTH + tl.arange(0, WIDTH)
        vertex = own + 3 * tl.load(picked + at)
        part = tl.load(parts + at)
        missing = 1.0 - tl.sum(part, 0)
        for axis in tl.static_range(3):
            value = tl.sum(part * tl.load(vertex + axis), 0)
            value += missing * tl.load(moved + body * 3 + axis)
            tl.store(landmarks + shift + (frame * LANDMARKS + point) * 3 + axis, value)
    else:
        points = tl.arange(0, POINTS)
        real = points < SURFACE
        corner = own + 3 * tl.load(skin + points, mask=real, other=0)
        observed = surface + (body * SURFACE + points) * 3
        x = tl.load(corner, mask=real, other=0.0)
        y = tl.load(corner + 1, mask=real, other=0.0)
        z = tl.load(corner + 2, mask=real, other=0.0)
        x -= tl.sum(x, 0) / SURFACE + tl.load(observed, mask=real, other=0.0)
        y -= tl.sum(y, 0) / SURFACE + tl.load(observed + 1, mask=real, other=0.0)
        z -= tl.sum(z, 0) / SURFACE + tl.load(observed + 2, mask=real, other=0.0)
        apart = tl.where(real, tl.sqrt(x * x + y * y + z * z), 0.0)
        weighed = tl.load(weight + body * weight_row) * tl.load(present + body * weight_row)
        apart = tl.where(weighed == 0, float("nan"), tl.sum(apart, 0) / SURFACE)
        tl.store(error + shift + frame, apart)
