"""What is measured of a body: its joints in the benchmarks' sets, and its vertices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.evaluate.datasets.joint_sets import LSP_14, JointSet
from app.evaluate.datasets.sequence import Actor
from app.evaluate.datasets.smpl_files import SmplFiles
from pipeline.core.people import Bodies


@dataclass(frozen=True, eq=False)
class Points:
    """A body in the camera's axes: the joints by the key of their set, and the vertices in SMPL's
    order (6890, 3) where they can be compared; metres."""

    joints: dict[str, np.ndarray]
    vertices_m: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Ruler:
    """The joint sets, and what they need.

    Attributes:
        sets: The joint sets; vertices are aligned by the first one.
        smpl: The user's SMPL files; None: vertices, and joints made of them, are not compared.
    """

    sets: tuple[JointSet, ...]
    smpl: SmplFiles | None = None

    def truth(self, actor: Actor, frame: int) -> Points:
        """Return an actor's true points in a frame."""
        vertices = None
        if self.smpl is not None:
            vertices = actor.vertices_m(self.smpl.body(actor.gender), frame)
        return self._points(actor.joints_m[frame], vertices)

    def ours(self, bodies: Bodies, row: int) -> Points:
        """Return the points of one of our bodies."""
        vertices = None if self.smpl is None else bodies.vertices_m[row].astype(np.float64)
        return self._points(bodies.joints_m[row].astype(np.float64), vertices)

    def _points(self, joints_m: np.ndarray, vertices_m: np.ndarray | None) -> Points:
        regressor = None if self.smpl is None else self.smpl.lsp_regressor
        joints = {
            each.key: regressor @ vertices_m
            if each is LSP_14 and regressor is not None and vertices_m is not None
            else joints_m
            for each in self.sets
        }
        return Points(joints, vertices_m)
