"""Kinematics inside Triton kernels: what kernels of several modules compute of joints alike.

A program's lanes are the 24 joints, padded to 32. A rotation is a tuple of its nine numbers, row by
row, each a vector of lanes; a vector is three. Lanes beyond the joints hold identities.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.body.kinematics import JOINTS, Points
from pipeline.core.skeleton import PARENTS

LANES = 32
"""Lanes of a kernel program: the 24 joints, padded to a power of 2."""
ROUNDS = 4
"""Rounds of doubling: ancestors 1, 2, 4 and 8 levels up reach all 15 that a joint can have."""


def padded(values: Tensor) -> Tensor:
    """Return a tensor whose last dimension is padded with zeros to `LANES`."""
    return torch.nn.functional.pad(values, (0, LANES - values.shape[-1])).contiguous()


def ancestors() -> Tensor:
    """Return each joint's ancestor 1, 2, 4 and 8 levels up, -1 where none is: (ROUNDS, LANES) int32
    on the CPU."""
    up = torch.full((LANES,), -1, dtype=torch.int64)
    up[:JOINTS] = torch.tensor(PARENTS)
    rounds = [up]
    for _ in range(ROUNDS - 1):
        last = rounds[-1]
        rounds.append(torch.where(last < 0, -1, last[last.clamp_min(0)]))
    return torch.stack(rounds).to(torch.int32)


def point_tables(points: Points) -> tuple[Tensor, Tensor]:
    """Return moments (K, 3, 11, LANES) and masses (K, LANES) of points: joints are the lanes."""
    moment = torch.cat((points.moment[..., None], points.moment_betas), -1)
    return padded(moment.permute(0, 2, 3, 1)), padded(points.mass)


@triton.jit
def load_rotations(at, inside):
    """Return the rotations at ``at``, and identities where ``inside`` is false."""
    return (
        tl.load(at, mask=inside, other=1.0),
        tl.load(at + 1, mask=inside, other=0.0),
        tl.load(at + 2, mask=inside, other=0.0),
        tl.load(at + 3, mask=inside, other=0.0),
        tl.load(at + 4, mask=inside, other=1.0),
        tl.load(at + 5, mask=inside, other=0.0),
        tl.load(at + 6, mask=inside, other=0.0),
        tl.load(at + 7, mask=inside, other=0.0),
        tl.load(at + 8, mask=inside, other=1.0),
    )


@triton.jit
def choose(condition, yes, no):
    """Return the rotations ``yes`` where the condition is true, else ``no``."""
    return (
        tl.where(condition, yes[0], no[0]),
        tl.where(condition, yes[1], no[1]),
        tl.where(condition, yes[2], no[2]),
        tl.where(condition, yes[3], no[3]),
        tl.where(condition, yes[4], no[4]),
        tl.where(condition, yes[5], no[5]),
        tl.where(condition, yes[6], no[6]),
        tl.where(condition, yes[7], no[7]),
        tl.where(condition, yes[8], no[8]),
    )


@triton.jit
def times(a, b):
    """Return the products of rotations."""
    return (
        a[0] * b[0] + a[1] * b[3] + a[2] * b[6],
        a[0] * b[1] + a[1] * b[4] + a[2] * b[7],
        a[0] * b[2] + a[1] * b[5] + a[2] * b[8],
        a[3] * b[0] + a[4] * b[3] + a[5] * b[6],
        a[3] * b[1] + a[4] * b[4] + a[5] * b[7],
        a[3] * b[2] + a[4] * b[5] + a[5] * b[8],
        a[6] * b[0] + a[7] * b[3] + a[8] * b[6],
        a[6] * b[1] + a[7] * b[4] + a[8] * b[7],
        a[6] * b[2] + a[7] * b[5] + a[8] * b[8],
    )


@triton.jit
def inverse(a):
    """Return the inverses of rotations."""
    return a[0], a[3], a[6], a[1], a[4], a[7], a[2], a[5], a[8]


@triton.jit
def turned(a, x, y, z):
    """Return vectors turned by rotations."""
    return (
        a[0] * x + a[1] * y + a[2] * z,
        a[3] * x + a[4] * y + a[5] * z,
        a[6] * x + a[7] * y + a[8] * z,
    )


@triton.jit
def _above(values, up, at_root):
    """Return each lane's value at the joint ``up``, and ``at_root`` where there is none."""
    return tl.where(up < 0, at_root, tl.gather(values, tl.maximum(up, 0), 0))


@triton.jit
def rotations_above(a, up):
    """Return each lane's rotation at the joint ``up``, the identity where there is none."""
    return (
        _above(a[0], up, 1.0), _above(a[1], up, 0.0), _above(a[2], up, 0.0),
        _above(a[3], up, 0.0), _above(a[4], up, 1.0), _above(a[5], up, 0.0),
        _above(a[6], up, 0.0), _above(a[7], up, 0.0), _above(a[8], up, 1.0),
    )  # fmt: skip


@triton.jit
def world_rotations(local, ancestors, lanes, LANES: tl.constexpr, ROUNDS: tl.constexpr):
    """Return the world rotations of joints whose ``local`` ones are against their parents.

    Pointer doubling: each round multiplies in as many ancestors as the rounds before together.
    """
    out = local
    # A loop that is not unrolled: gathers compile slowly.
    for k in range(ROUNDS):
        out = times(rotations_above(out, tl.load(ancestors + k * LANES + lanes)), out)
    return out


@triton.jit
def chain_sums(x, y, z, ancestors, lanes, LANES: tl.constexpr, ROUNDS: tl.constexpr):
    """Return the sums of vectors from the pelvis down to each joint, by doubling."""
    for k in range(ROUNDS):
        up = tl.load(ancestors + k * LANES + lanes)
        x += _above(x, up, 0.0)
        y += _above(y, up, 0.0)
        z += _above(z, up, 0.0)
    return x, y, z


@triton.jit
def shaped_bones(bones, betas, limit, lanes, LANES: tl.constexpr):
    """Return the bones (vectors) of a shape, whose coefficients are held to ``limit``.

    ``bones`` is `Skeleton.bones` as (3, 11, LANES).
    """
    x = tl.load(bones + lanes)
    y = tl.load(bones + 11 * LANES + lanes)
    z = tl.load(bones + 22 * LANES + lanes)
    for b in range(10):
        beta = tl.minimum(tl.maximum(tl.load(betas + b), -limit), limit)
        at = bones + (1 + b) * LANES + lanes
        x += beta * tl.load(at)
        y += beta * tl.load(at + 11 * LANES)
        z += beta * tl.load(at + 22 * LANES)
    return x, y, z


@triton.jit
def placed_joints(world, x, y, z, ancestors, lanes, LANES: tl.constexpr, ROUNDS: tl.constexpr):
    """Return the places of joints (vectors) with these world rotations and bones."""
    # A bone is given in its parent's axes, so it is turned by the parent's rotation.
    above = rotations_above(world, tl.load(ancestors + lanes))
    x, y, z = turned(above, x, y, z)
    return chain_sums(x, y, z, ancestors, lanes, LANES, ROUNDS)
