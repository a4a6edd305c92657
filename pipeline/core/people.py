"""People (what perception sees) and bodies (what the fit makes of them)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.core.skeleton import BLAZEPOSE_33, LANDMARKS, KeypointSet, blazepose_order


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """A person's soft mask over a part of the image.

    Attributes:
        values: (h, w) float32 in [0, 1].
        to_image: (2, 3) float32, from mask pixel coordinates (x, y, 1) to image pixels (pixel
            centres at whole numbers in both).
    """

    values: np.ndarray
    to_image: np.ndarray

    def at(self, points_px: np.ndarray) -> np.ndarray:
        """Return the mask's nearest values (...) at image points (..., 2); 0 outside of it."""
        (a, b, left), (c, d, top) = self.to_image.tolist()
        x, y = points_px[..., 0] - left, points_px[..., 1] - top
        # The inverse in closed form: numpy takes longer to begin than this takes.
        area, (height, width) = a * d - b * c, self.values.shape
        column = np.rint((d * x - b * y) / area).astype(int)
        row = np.rint((a * y - c * x) / area).astype(int)
        nearest = np.minimum(np.maximum(row, 0), height - 1)
        beside = np.minimum(np.maximum(column, 0), width - 1)
        inside = (nearest == row) & (beside == column)
        return np.where(inside, self.values[nearest, beside], 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class MhrBody:
    """A body of the Momentum Human Rig (MHR) in one frame, as a network reports it, before any fit.

    Points are metres in the camera's axes (x right, y down, z forward). The mesh is the rig's,
    from centimetres to metres, with y and z negated, plus ``translation_m``.

    Attributes:
        parameters: (204,) float32 the rig's: translation (decimetres), global rotation, 130 of the
            body (radians), 68 scales.
        shape: (45,) float32 the rig's.
        translation_m: (3,) float32 from the camera to the rig's origin.
        keypoints_m: (70, 3) float32, in the order of `MHR_70`.
        keypoints_px: (70, 2) float32 image pixels.
        scale: (28,) float32 of which the 68 scales are a linear map; None where the network
            reports none.
        vertices_m: (18439, 3) float32; None where no mesh was asked for.
        faces: (36874, 3) the mesh's triangles; None without a mesh.
    """

    parameters: np.ndarray
    shape: np.ndarray
    translation_m: np.ndarray
    keypoints_m: np.ndarray
    keypoints_px: np.ndarray
    scale: np.ndarray | None = None
    vertices_m: np.ndarray | None = None
    faces: np.ndarray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One person in one frame, as perceived; K keypoints of the set ``keypoints``.

    Attributes:
        box_px: (4,) float32 x0, y0, x1, y1 around the visible person.
        score: How sure the perceiver is of the person, in [0, 1].
        landmarks_px: (K, 2) float32 image pixels.
        visibility: (K,) float32 in [0, 1].
        world_m: (K, 3) float32 metres, origin between the hips, x right, y down, z forward; None
            where the perceiver reports 2D points only. ``world_sigma_m`` says in which axes.
        mask: Which pixels are the person's, where the perceiver knows.
        roi: The id by which the perceiver tracks this person from frame to frame, -1 where it does
            not.
        map_depth: The depth map at the hips, along z and in the map's own units.
        root_depth_m: The pelvis's distance that follows from it (`pipeline.tracking.depth_scale`).
        keypoints: Which points the arrays hold, in which order.
        world_sigma_m: None where ``world_m`` is of BlazePose's kind: of a normalised size, and in
            axes whose z points at the person, because the network saw a crop. The fit corrects it
            (`pipeline.fitting.lifter`). A number: ``world_m`` is metric and in the camera's own
            axes, and each coordinate has this standard deviation in metres; the fit takes it as it
            is.
        mhr: The body of the Momentum Human Rig, where the network reports one.
        extra: What the network reports beyond this, by name; kept for the caller, read by nothing
            else.
        surface_m: (S, 3) float32 metres in the camera's axes, about the middle of the hips: points
            of an MHR body's skin, those of `pipeline.body.mhr_surface.SurfaceTable` for the body
            model that is fitted; None where the perceiver knows no skin.
        surface_sigma_m: The standard deviation of each of their coordinates in metres.
        start_rotations: (24, 3, 3) float32, the rotations of SMPL's joints from its rest pose in
            the camera's axes (`pipeline.body.mhr_surface.smpl_rotations`), from which the fit may
            start; None where the perceiver knows none.
    """

    box_px: np.ndarray
    score: float
    landmarks_px: np.ndarray
    visibility: np.ndarray
    world_m: np.ndarray | None
    mask: Mask | None = None
    roi: int = -1
    map_depth: float | None = None
    root_depth_m: float | None = None
    keypoints: KeypointSet = BLAZEPOSE_33
    world_sigma_m: float | None = None
    mhr: MhrBody | None = None
    extra: Mapping[str, np.ndarray] | None = None
    surface_m: np.ndarray | None = None
    surface_sigma_m: float = 0.01
    start_rotations: np.ndarray | None = None


def as_blazepose(person: Person) -> Person:
    """Return the person in BlazePose's 33 landmarks, which the fit and the events read.

    A landmark that the person's own set lacks lies at the nearest point that it has, with a
    visibility of 0, so that no residual pulls on it. What is not a point stays as it is.

    Raises:
        ValueError: The set lacks a point that has no stand-in, or an array has another length.
    """
    keypoints, count = person.keypoints, len(person.keypoints)
    right = len(person.landmarks_px) == len(person.visibility) == count
    if not right or (person.world_m is not None and len(person.world_m) != count):
        raise ValueError(f"a person of {keypoints.name} has {count} points in every array")
    # The usual case: nothing is copied.
    if keypoints is BLAZEPOSE_33:
        return person
    places, known = blazepose_order(keypoints)
    return replace(
        person,
        landmarks_px=person.landmarks_px[places],
        visibility=(person.visibility[places] * known).astype(np.float32),
        world_m=None if person.world_m is None else person.world_m[places],
        keypoints=BLAZEPOSE_33,
    )


_STATURE_M = 1.7


def world_or_flat_m(person: Person) -> np.ndarray:
    """Return a person's world landmarks (33, 3) float32 metres, or flat ones where it has none.

    Flat ones are the image's own points. They lie in a plane that faces the camera and are as
    large as a person of 1.7 m that fills the landmarks' height. They serve as a first guess of the
    pose; the fit gives them no weight.
    """
    if person.world_m is not None:
        return person.world_m
    points = person.landmarks_px.astype(np.float64)
    left, right = BLAZEPOSE_33.hips
    about = points - 0.5 * (points[left] + points[right])
    span_px = max(float(np.ptp(points, axis=0).max()), 1.0)
    flat = np.zeros((LANDMARKS, 3), np.float32)
    flat[:, :2] = about * (_STATURE_M / span_px)
    return flat


@dataclass(frozen=True, slots=True, eq=False)
class Bodies:
    """The fitted bodies of one frame, P rows (P may be 0), in the camera frame (OpenCV axes).

    A fit on a GPU leaves the meshes there; reading ``vertices_m`` or ``shown_m`` for the first time
    copies them to the host.

    Attributes:
        track: (P,) int64, rising.
        score: (P,) float32 in [0, 1]: the share of the joints in the picture expected to be right.
        global_orient: (P, 3) float32 axis-angle, radians.
        body_pose: (P, 69) float32 axis-angle, radians.
        betas: (P, 10) float32.
        transl_m: (P, 3) float32 metres.
        joints_m: (P, 24, 3) float32 metres.
        landmarks_m: (P, 33, 3) float32 metres.
        vertices_m: (P, V, 3) float32 metres.
        joint_visibility: (P, 24) float32 in [0, 1]: the probability that a joint is seen and right
            (`pipeline.fitting.visibility`); 0 outside the picture.
        shown_m: (P, V, 3) float32 metres: the mesh to draw in place of ``vertices_m``, with
            the same triangles; None draws ``vertices_m`` itself.
        surface_error_m: (P,) float32 metres: the mean distance of the body's skin from
            `Person.surface_m`, both about their middles, NaN for a person without one; None where
            no person of the window has one.
        mhr: The MHR bodies that a network reported for these tracks, as they came, by track.
    """

    track: np.ndarray
    score: np.ndarray
    global_orient: np.ndarray
    body_pose: np.ndarray
    betas: np.ndarray
    transl_m: np.ndarray
    joints_m: np.ndarray
    landmarks_m: np.ndarray
    vertices_m: np.ndarray
    joint_visibility: np.ndarray
    shown_m: np.ndarray | None = None
    surface_error_m: np.ndarray | None = None
    mhr: Mapping[int, MhrBody] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(self.track)

    def __repr__(self) -> str:
        return f"Bodies of tracks {self.track.tolist()}"

    def _repr_html_(self) -> str:
        """Return a table for a notebook, whose display looks for this name."""
        rows = "".join(
            f"<tr><td>{track}</td><td>{score:.2f}</td><td>{depth_m:.2f} m</td><td>{seen}</td></tr>"
            for track, score, depth_m, seen in zip(
                self.track.tolist(),
                self.score.tolist(),
                self.joints_m[:, 0, 2].tolist(),
                (self.joint_visibility >= 0.5).sum(1).tolist(),
            )
        )
        head = "<th>track</th><th>score</th><th>distance</th><th>joints seen of 24</th>"
        return f"<table><tr>{head}</tr>{rows}</table>"

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite."""
        return self._is_finite(*self._numbers(), self.vertices_m)

    @property
    def finite_rows(self) -> np.ndarray:
        """Which bodies (P,) have finite numbers; meshes are not read."""
        rows = np.ones(len(self), bool)
        for array in self._numbers():
            rows &= np.isfinite(array).all(tuple(range(1, array.ndim)))
        return rows

    def with_values(self, **values: Any) -> Bodies:
        """Return a copy with other values, as `dataclasses.replace` does; meshes that are on a GPU
        are not read."""
        return replace(self, **values)

    def _numbers(self) -> tuple[np.ndarray, ...]:
        """All numbers but the meshes."""
        return (
            self.score, self.global_orient, self.body_pose, self.betas, self.transl_m,
            self.joints_m, self.landmarks_m, self.joint_visibility,
        )  # fmt: skip

    @staticmethod
    def _is_finite(*arrays: np.ndarray) -> bool:
        return all(bool(np.isfinite(array).all()) for array in arrays)

    @classmethod
    def none(cls, vertices: int) -> Bodies:
        """Return the bodies of a frame without people, for a mesh of ``vertices`` vertices."""
        shapes = ((3,), (69,), (10,), (3,), (24, 3), (LANDMARKS, 3), (vertices, 3), (24,))
        return cls(
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
            *(np.zeros((0, *shape), np.float32) for shape in shapes),
        )
