"""Make the mannequin: what is drawn in place of the free body.

``python -m tools.build_body.make_mannequin`` writes ``pipeline/body/free_mannequin.npz`` in about
half a minute. It needs nothing but the free body: the same triangles with other vertices, which
show no breasts, genitals, nipples, navel or face, closed feet and relaxed hands.

The mannequin of any shape is made by the same steps (`Sculptor`). The file holds the offsets of the
mean shape and their change with each beta, as central differences; the same skinning poses them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from pipeline.body.load import MANNEQUIN, MANNEQUIN_UNIT_M, load_body
from pipeline.body.model import BodyModel
from pipeline.core.skeleton import JOINT_NAMES
from tools.build_body.close_foot import close_toes
from tools.build_body.fairing import Fairing, Unfolding, smooth_step
from tools.build_body.relax_hand import find_fingers, relax

LICENCE = (
    "Made from the free body, which is made from MakeHuman's data (CC0 1.0); this file is CC0 1.0 "
    "too. See free_body_LICENSE.md."
)
_BETA_STEP = 1.5
_SKIN_M = 0.016
"""Detail of the skin below this size is smoothed everywhere but on hands and feet."""
_ENDS_M = 0.009
"""The same for feet, after they are closed."""
_LIFT_M = 0.02
_FINGERS = 60.0
"""Factor by which hands keep their place more firmly; they are finer."""
_FREE = 1e-4
_HELD = 1e7


class Sculptor:
    """Makes the mannequin of any shape of a body in SMPL's rest pose.

    Regions are found on the mean shape, so that the same vertices change in every shape.

    Args:
        body: The free body.
    """

    def __init__(self, body: BodyModel) -> None:
        self._mean = body.v_template.numpy().astype(np.float64)
        self._faces = body.faces
        self._regressor = body.joint_regressor.numpy()
        weights = body.weights.numpy()
        self._weights = dict(zip(JOINT_NAMES, weights.T))
        self.mirror = cKDTree(self._mean).query(self._mean * [-1, 1, 1])[1]
        self._left = self._mean[:, 0] > 1e-6
        left_hand = self._weights["left_hand"] + self._weights["left_wrist"]
        self._fingers = find_fingers(self._mean, self._faces, left_hand > 0.5)
        hands, feet = self._sum("wrist", "hand"), self._sum("ankle", "foot")
        self._lift = self._ball((0.0, -0.15, 0.01), (0.06, 0.12, 0.18))
        self._toes = self._weights["left_foot"] > 0.5
        self._foot, self._forefoot = self._feet()
        self._unfold = Unfolding(self._faces, self._weights["left_foot"] > 0)
        keep = (1 - self._detail()) ** 2 + _FREE
        held = keep + _HELD * smooth_step(hands + feet, 0.3, 1.0)
        self._skin = Fairing(self._mean, self._faces, held, _SKIN_M)
        ends = 1 + _FINGERS * hands + _HELD * (1 - smooth_step(hands + feet, 0.3, 0.9))
        self._ends = Fairing(self._close(self._mean), self._faces, ends, _ENDS_M)

    def __call__(self, vertices: np.ndarray) -> np.ndarray:
        """Return the mannequin (V, 3) of a shape (V, 3) of the body, symmetric as the shape is."""
        # The surface between the legs bridges them too low, and would hang out of a seated body.
        skin = self._skin(vertices) + np.outer(self._lift, (0, _LIFT_M, 0))
        return self._ends(self._close(skin))

    def _close(self, vertices: np.ndarray) -> np.ndarray:
        """The body with relaxed hands and closed feet; the left side is made and mirrored."""
        wrist, ball = (self._joint(f"left_{name}", vertices) for name in ("wrist", "foot"))
        out = relax(vertices, wrist, self._fingers)
        spread = self._unfold(out)
        out = close_toes(out, spread, self._forefoot, self._foot, self._toes, ball)
        return np.where(self._left[:, None], out, out[self.mirror] * [-1, 1, 1])

    def _feet(self) -> tuple[np.ndarray, np.ndarray]:
        """The left foot's vertices (V,) bool, and the share (V,) of its forefoot."""
        low = self._weights["left_foot"] + self._weights["left_ankle"]
        ankle, ball = (self._joint(f"left_{name}", self._mean) for name in ("ankle", "foot"))
        foot = (low > 0.5) & (self._mean[:, 1] < ankle[1])
        start, end = (ankle[2] + share * (ball[2] - ankle[2]) for share in (0.5, 0.85))
        return foot, foot * smooth_step(self._mean[:, 2], start, end)

    def _sum(self, *parts: str) -> np.ndarray:
        """The weights (V,) of these joints, left and right."""
        return sum(self._weights[f"{side}_{part}"] for side in ("left", "right") for part in parts)

    def _joint(self, name: str, vertices: np.ndarray) -> np.ndarray:
        return self._regressor[JOINT_NAMES.index(name)] @ vertices

    def _detail(self) -> np.ndarray:
        """How much of each vertex's detail is removed (V,), 1 for all."""
        x, y, z = self._mean.T
        head = self._weights["head"]
        ears = head * smooth_step(np.abs(x), 0.055, 0.068) * _around(y, 0.63, 0.085)
        ears *= _around(z, 0.03, 0.06)
        face = head * smooth_step(z, 0.0, 0.10)
        skull = head * smooth_step(z, -0.10, 0.0)
        return np.max(
            [
                self._ball((0.09, 0.25, 0.12), (0.125, 0.19, 0.14)),  # breasts
                self._ball((0.0, -0.10, 0.0), (0.075, 0.14, 0.20)),  # between the legs
                self._ball((0.0, -0.03, -0.10), (0.10, 0.16, 0.12)),  # between the buttocks
                0.9 * self._ball((0.0, 0.09, 0.10), (0.12, 0.12, 0.06)),  # the navel
                0.9 * self._ball((0.0, 0.18, -0.055), (0.07, 0.16, 0.08)),  # the spine's furrow
                0.97 * ears,
                0.72 * face,
                0.3 * skull,
            ],
            axis=0,
        )

    def _ball(
        self, middle: tuple[float, float, float], radii: tuple[float, float, float]
    ) -> np.ndarray:
        """1 in the middle of an ellipsoid and of its mirror image, 0 outside (V,)."""
        offset = np.abs(self._mean) * [1, 0, 0] + self._mean * [0, 1, 1] - middle
        return 1 - smooth_step(np.linalg.norm(offset / radii, axis=1), 0.5, 1.0)


def _around(values: np.ndarray, middle: float, reach: float) -> np.ndarray:
    return 1 - smooth_step(np.abs(values - middle), reach / 2, reach)


def make(body: BodyModel) -> dict[str, np.ndarray]:
    """Return the offsets (V, 3, 11) of the mannequin's vertices from the body's, in whole units."""
    mean = body.v_template.numpy().astype(np.float64)
    shapedirs = body.shapedirs.numpy().astype(np.float64)
    sculptor = Sculptor(body)
    parts = [sculptor(mean) - mean]
    for direction in np.moveaxis(shapedirs, -1, 0):
        high, low = (sculptor(mean + sign * _BETA_STEP * direction) for sign in (1, -1))
        parts.append((high - low) / (2 * _BETA_STEP) - direction)
    offsets = np.stack(parts, axis=-1)
    flipped = offsets[sculptor.mirror] * np.array([-1.0, 1, 1])[:, None]
    units = np.rint((offsets + flipped) / 2 / MANNEQUIN_UNIT_M)
    return {"offsets": units.astype(np.int16), "licence": np.array(LICENCE)}


def main() -> None:
    parser = argparse.ArgumentParser(description="make the mannequin from the free body")
    parser.add_argument("--output", type=Path, default=MANNEQUIN, help="where to write the npz")
    path = parser.parse_args().output
    arrays = make(load_body())
    np.savez_compressed(path, **arrays)
    farthest = np.linalg.norm(arrays["offsets"][..., 0] * MANNEQUIN_UNIT_M, axis=1).max()
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, farthest offset {100 * farthest:.1f} cm")


if __name__ == "__main__":
    main()
