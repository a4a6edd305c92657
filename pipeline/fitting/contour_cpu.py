"""The contour's rows of `solver.linearise` as one loop, compiled by numba for a CPU.

A point of the surface hangs on four joints at most, and only they and the joints above them move
it. torch's products over all joints do eight times the work, in dozens of passes over memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from numba_loops import compiled
from pipeline.body.kinematics import BETAS, JOINTS, POSED, Pose, Skeleton, forward_kinematics
from pipeline.core.skeleton import PARENTS
from pipeline.fitting.solver import (
    FRAME_DIM,
    FitConfig,
    Observations,
    Solution,
    State,
    TemporalPrior,
    gauss_newton,
    linearise,
)

_PARENTS = np.array(PARENTS)


class ContourLoop:
    """The solver's functions for a CPU: torch's, but for the contour's rows.

    Args:
        skeleton: The body model's tables, on the CPU.
        config: Weights and switches.
    """

    def __init__(self, skeleton: Skeleton, config: FitConfig) -> None:
        self._skeleton, self._config = skeleton, config
        surface = skeleton.surface
        mass = surface.mass.numpy()
        # The joints on which each point hangs, the heaviest first; of no mass beyond those.
        count = int((mass != 0).sum(1).max())
        self._hung = np.argsort(-mass, axis=1, kind="stable")[:, :count]
        points = np.arange(len(mass))[:, None]
        moments = torch.cat((surface.moment[..., None], surface.moment_betas), -1).numpy()
        self._mass = np.ascontiguousarray(mass[points, self._hung])
        self._moments = np.ascontiguousarray(moments[points, self._hung])
        self._normals = np.ascontiguousarray(skeleton.normals.numpy())

    def solve(
        self,
        observed: Observations,
        past: TemporalPrior,
        rotations: Tensor,
        transl_m: Tensor,
        iterations: int,
    ) -> Solution:
        """As `solver.solve_window`."""
        model = self.bind(observed, past)
        return gauss_newton(model, past, rotations, transl_m, iterations)

    def bind(self, observed: Observations, past: TemporalPrior) -> Callable[[State], State]:
        """Return `solver.linearise` for one window, as a function of the state alone."""
        return partial(
            linearise, self._skeleton, observed, past, config=self._config, contour=self.rows
        )

    def forward_kinematics(self, rotations: Tensor, transl: Tensor, betas: Tensor) -> Pose:
        """As `kinematics.forward_kinematics`."""
        return forward_kinematics(self._skeleton, rotations, transl, betas)

    def rows(
        self, pose: Pose, betas: Tensor, observed: Observations
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `solver.contour_rows` returns: rows (B, K), Jacobian (B, K, 79), cost (B,).

        Args:
            pose: The posed joints of B frames.
            betas: (B, 10) their shapes.
            observed: Their observations, each with a leading B.
        """
        count, points = len(betas), len(self._mass)
        rows = np.empty((count, points), np.float32)
        jacobian = np.zeros((count, points, FRAME_DIM + BETAS), np.float32)
        cost = np.zeros(count, np.float32)
        config = self._config
        weight = config.mask_weight * observed.masked * observed.present
        sigma = (config.mask_sigma * observed.size).clamp_min(1e-6)
        parts = (
            pose.rotations, pose.joints, pose.joints_betas, betas,
            observed.edge, observed.edge_from, sigma, weight,
        )  # fmt: skip
        _fill(
            *(np.ascontiguousarray(part.numpy()) for part in parts),
            self._hung, self._mass, self._moments, self._normals,
            np.float32(config.robust), rows, jacobian, cost,
        )  # fmt: skip
        return torch.from_numpy(rows), torch.from_numpy(jacobian), torch.from_numpy(cost)


@compiled()
def _fill(
    turns, joints, joints_betas, betas, edge, edge_from, sigma, factor,
    hung, mass, moments, normals, robust, rows, jacobian, cost,
):  # fmt: skip
    """Fill rows (B, K), jacobian (B, K, 79) and cost (B,); the latter two hold zeros before."""
    size = edge.shape[2]
    share = np.empty((hung.shape[1], 3), np.float32)
    carried, below = np.zeros((JOINTS, 3), np.float32), np.zeros(JOINTS, np.float32)
    for n in range(len(rows)):
        if factor[n] == 0:
            rows[n] = 0
            continue
        for k in range(rows.shape[1]):
            # Where the point is, and the part of it that hangs on each joint.
            x = y = z = nx = ny = nz = np.float32(0)
            for s in range(hung.shape[1]):
                j, m, r = hung[k, s], mass[k, s], turns[n, hung[k, s]]
                u, v, w = moments[k, s, 0, 0], moments[k, s, 1, 0], moments[k, s, 2, 0]
                for b in range(BETAS):
                    u += moments[k, s, 0, 1 + b] * betas[n, b]
                    v += moments[k, s, 1, 1 + b] * betas[n, b]
                    w += moments[k, s, 2, 1 + b] * betas[n, b]
                for c in range(3):
                    share[s, c] = r[c, 0] * u + r[c, 1] * v + r[c, 2] * w + m * joints[n, j, c]
                x, y, z = x + share[s, 0], y + share[s, 1], z + share[s, 2]
                a, b_, c_ = normals[k, 0], normals[k, 1], normals[k, 2]
                nx += m * (r[0, 0] * a + r[0, 1] * b_ + r[0, 2] * c_)
                ny += m * (r[1, 0] * a + r[1, 1] * b_ + r[1, 2] * c_)
                nz += m * (r[2, 0] * a + r[2, 1] * b_ + r[2, 2] * c_)
            length = max(np.sqrt(x * x + y * y + z * z), np.float32(1e-6))
            facing = (nx * x + ny * y + nz * z) / length
            # In the image, and there in the edge map, whose border is read beyond it.
            inverse = np.float32(1) / max(z, np.float32(0.1))
            px, py = x * inverse, y * inverse
            to = edge_from[n]
            gx = (to[0, 0] * px + to[0, 1] * py + to[0, 2] + 1) * np.float32(0.5) * (size - 1)
            gy = (to[1, 0] * px + to[1, 1] * py + to[1, 2] + 1) * np.float32(0.5) * (size - 1)
            # Not a number is not above 0 either.
            gx = min(gx, np.float32(size - 1)) if gx > 0 else np.float32(0)
            gy = min(gy, np.float32(size - 1)) if gy > 0 else np.float32(0)
            left, top = min(int(gx), size - 2), min(int(gy), size - 2)
            fx, fy = gx - left, gy - top
            above, under = (1 - fx) * (1 - fy), (1 - fx) * fy
            right, across = fx * (1 - fy), fx * fy
            e = edge[n]
            distance = sx = sy = np.float32(0)
            for part, row_, column in (
                (above, top, left), (under, top + 1, left),
                (right, top, left + 1), (across, top + 1, left + 1),
            ):  # fmt: skip
                distance += part * e[0, row_, column]
                sx += part * e[1, row_, column]
                sy += part * e[2, row_, column]
            row = distance / sigma[n]
            rim = np.exp(-((facing / np.float32(0.25)) ** 2))
            weight = factor[n] * (np.float32(1) if distance > 0 else rim)
            squared = row * row
            scale = robust * robust / (robust * robust + squared)
            strength = np.sqrt(weight) * scale
            cost[n] += weight * squared * scale
            rows[n, k] = row * strength
            # d(distance) / d(point), and what turns it by each joint above the point.
            strength = strength / sigma[n]
            dx, dy = sx * inverse * strength, sy * inverse * strength
            dz = -(px * dx + py * dy)
            out = jacobian[n, k]
            out[0], out[1], out[2] = dx, dy, dz
            for s in range(hung.shape[1]):
                j, m, r = hung[k, s], mass[k, s], turns[n, hung[k, s]]
                u = r[0, 0] * dx + r[1, 0] * dy + r[2, 0] * dz
                v = r[0, 1] * dx + r[1, 1] * dy + r[2, 1] * dz
                w = r[0, 2] * dx + r[1, 2] * dy + r[2, 2] * dz
                for b in range(BETAS):
                    out[FRAME_DIM + b] += (
                        moments[k, s, 0, 1 + b] * u + moments[k, s, 1, 1 + b] * v
                        + moments[k, s, 2, 1 + b] * w
                        + m * (dx * joints_betas[n, j, 0, b] + dy * joints_betas[n, j, 1, b]
                               + dz * joints_betas[n, j, 2, b])
                    )  # fmt: skip
                while j >= 0:
                    for c in range(3):
                        carried[j, c] += share[s, c]
                    below[j] += m
                    j = _PARENTS[j]
            for s in range(hung.shape[1]):
                j = hung[k, s]
                # A joint that was met before holds nothing any more.
                while j >= 0 and below[j] != 0:
                    if j < POSED:
                        lx = carried[j, 0] - below[j] * joints[n, j, 0]
                        ly = carried[j, 1] - below[j] * joints[n, j, 1]
                        lz = carried[j, 2] - below[j] * joints[n, j, 2]
                        tx, ty, tz = ly * dz - lz * dy, lz * dx - lx * dz, lx * dy - ly * dx
                        r = turns[n, j]
                        for c in range(3):
                            out[3 + 3 * j + c] = r[0, c] * tx + r[1, c] * ty + r[2, c] * tz
                    carried[j] = 0
                    below[j] = 0
                    j = _PARENTS[j]
