"""The truth of a clip: its arrays, how they are written, and how surfaces are read back.

The arrays have N rows, one for each person in each frame, of F frames and P people. All camera axes
are OpenCV's (x right, y down, z forward), in metres, at the middle of the exposure:

- ``frame``, ``person``, ``pts_s`` (N,)
- ``joints_m`` (N, 24, 3), ``joints_px`` (N, 24, 2): SMPL's joints of the body under the clothes
- ``landmarks_m`` (N, 33, 3), ``landmarks_px`` (N, 33, 2): BlazePose's landmarks of that body
- ``landmarks_visible`` (N, 33): in the picture and not hidden by a person or an object
- ``root_depth_m`` (N,): the pelvis along z
- ``mask`` (N, bytes): the person's visible pixels, clothes and glove included, `np.packbits` of
  ``mask_shape`` (see `mask_of`)
- ``depth_m`` (F, h, w) float16: the nearest person at every ``depth_step``-th pixel; 0 for none
- ``transforms`` (N, D, 3, 4): the rig's driven bones, rest to camera; with ``rest_m`` (V, 3),
  ``bone_numbers``, ``bone_shares`` (V, 6) and ``vertex_start`` (P + 1,) this is the clothed
  surface, exactly as drawn (see `vertices_of`); ``faces`` (T, 3) with ``face_start`` (P + 1,)
- ``ball_m`` (F, 3): the ball's centre, NaN where there is none
- ``intrinsics`` (3, 3), ``image_size`` (height, width), ``camera_rotation`` (3, 3) and
  ``camera_translation_m`` (3,) from the world (y up), ``ground_plane`` (4,): a, b, c, d with
  a x + b y + c z + d = 0 in the camera's axes, (a, b, c) pointing up
- ``fps``, ``release_s`` (seconds into the clip; NaN none), ``release_joints_m`` (P, 24, 3) in that
  instant, ``release_frame`` (the frame whose middle is nearest to it; -1 none), ``hand``, ``kinds``
  (P,), ``stature_m`` (P,) barefoot, ``seed``, ``place``, ``view_deg`` (0 seen from where the first
  person faces at rest, 90 from its left)

Clips with a world (``--walks``, ``--moving``) have a camera for each frame instead, and feet. Their
world has z up and the floor at z = 0:

- ``camera_rotation`` (F, 3, 3) from the camera's axes to the world's, ``camera_position_m`` (F, 3),
  and no ``camera_translation_m``; ``camera_zoom`` (F,), the focal length as a multiple of that of
  ``intrinsics``, which are the first frame's
- ``ground_plane`` (F, 4), as above; its first three numbers are up in the camera's axes
- ``foot_contact`` (N, 2) bool: the left and the right foot stand: the lowest part of the drawn foot
  is within 2 cm of the floor and moves less than 5 mm in the time of a frame
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from synth.camera import Camera
from synth.person import Person
from synth.rig import Posed
from synth.scene import Instant, Scene

DEPTH_STEP = 8


def moved(transforms: np.ndarray, camera: Camera) -> np.ndarray:
    """Return bones' transforms to the world (D, 3, 4) as transforms to the camera, float32."""
    out = camera.rotation @ transforms
    out[:, :, 3] += camera.translation_m
    return out.astype(np.float32)


def frame_truth(
    scene: Scene, posed: list[Posed], instant: Instant
) -> tuple[list[dict[str, np.ndarray]], np.ndarray]:
    """Return one frame's rows, one for each person, and its depth map."""
    camera = scene.camera
    owner, depth = scene.surfaces(instant)
    height, width = camera.size
    rows = []
    for number, (person, body) in enumerate(zip(scene.people, posed)):
        joints = camera.see(body.joints())
        landmarks = camera.see(body.landmarks(person.skin, person.skin_vertices))
        pixels = camera.project(landmarks)
        at = np.rint(pixels).astype(int)
        inside = ((at >= 0) & (at < (width, height))).all(1) & (landmarks[:, 2] > 0)
        surface = depth[at[:, 1].clip(0, height - 1), at[:, 0].clip(0, width - 1)]
        shown = (surface == 0) | (landmarks[:, 2] < surface + person.depth_margin_m)
        row = {
            "joints_m": joints, "joints_px": camera.project(joints),
            "landmarks_m": landmarks, "landmarks_px": pixels,
            "landmarks_visible": inside & shown, "root_depth_m": joints[0, 2],
            "mask": np.packbits(owner == number), "transforms": moved(body.transforms, camera),
        }  # fmt: skip
        rows.append(row)
    return rows, depth[::DEPTH_STEP, ::DEPTH_STEP].astype(np.float16)


def write(
    path: Path,
    scene: Scene,
    frames: list[tuple[list[dict], np.ndarray]],
    balls: np.ndarray,
    about: dict[str, Any],
    cameras: list[Camera] | None = None,
) -> None:
    """Write the truth of all frames to one compressed file; ``about`` has the values of the whole
    clip, ``cameras`` those of each frame, of a clip with a world."""
    people: tuple[Person, ...] = scene.people
    rows = [row for person_rows, _ in frames for row in person_rows]
    arrays: dict[str, Any] = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    for key, values in arrays.items():
        if values.dtype == np.float64:
            arrays[key] = values.astype(np.float32)
    index = np.repeat(np.arange(len(frames)), len(people))
    small = np.uint16 if max(len(p.clothed.rest) for p in people) < 65536 else np.int32
    np.savez_compressed(
        path,
        **arrays,
        **about,
        frame=index,
        person=np.tile(np.arange(len(people)), len(frames)),
        pts_s=index / about["fps"],
        depth_m=np.stack([depth for _, depth in frames]),
        depth_step=DEPTH_STEP,
        ball_m=balls.astype(np.float32),
        rest_m=np.concatenate([p.clothed.rest for p in people]),
        bone_numbers=np.concatenate([p.clothed.numbers for p in people]),
        bone_shares=np.concatenate([p.clothed.shares for p in people]),
        vertex_start=np.cumsum([0] + [len(p.clothed.rest) for p in people]),
        faces=np.concatenate([p.faces for p in people]).astype(small),
        face_start=np.cumsum([0] + [len(p.faces) for p in people]),
        mask_shape=np.array(scene.camera.size),
        image_size=np.array(scene.camera.size),
        **(_still(scene.camera) if cameras is None else _path(cameras)),
        stature_m=np.array([p.stature_m for p in people]),
    )


def _ground_plane(camera: Camera) -> np.ndarray:
    up = camera.rotation @ [0.0, 1.0, 0.0]
    return np.append(up, -up @ camera.translation_m)


def _still(camera: Camera) -> dict[str, Any]:
    return {
        "intrinsics": camera.intrinsics, "camera_rotation": camera.rotation,
        "camera_translation_m": camera.translation_m, "ground_plane": _ground_plane(camera),
    }  # fmt: skip


def _path(cameras: list[Camera]) -> dict[str, Any]:
    first = cameras[0].intrinsics
    # From y up to z up: (x, y, z) is (x, -z, y).
    to_z_up = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    return {
        "intrinsics": first,
        "camera_rotation": np.array([to_z_up @ camera.rotation.T for camera in cameras]),
        "camera_position_m": np.array([to_z_up @ camera.place_m for camera in cameras]),
        "camera_zoom": np.array([camera.intrinsics[0, 0] / first[0, 0] for camera in cameras]),
        "ground_plane": np.array([_ground_plane(camera) for camera in cameras]),
    }


def vertices_of(truth: Mapping[str, np.ndarray], person: int = 0) -> np.ndarray:
    """Return a person's clothed surface in all frames, as it was drawn: linear blend skinning of
    ``rest_m`` by ``transforms``.

    Args:
        truth: The arrays of a truth file.
        person: The person's number.

    Returns:
        Vertices (F, V, 3) float32, metres in the camera's axes.
    """
    part = slice(*truth["vertex_start"][person : person + 2])
    rest = np.column_stack((truth["rest_m"][part], np.ones(part.stop - part.start)))
    shares = truth["bone_shares"][part].astype(np.float32)
    shares /= shares.sum(1, keepdims=True)
    numbers = truth["bone_numbers"][part]
    frames = []
    for transforms in truth["transforms"][truth["person"] == person]:
        blended = np.einsum("vk,vkij->vij", shares, transforms[numbers])
        frames.append(np.einsum("vij,vj->vi", blended, rest))
    return np.array(frames, np.float32)


def faces_of(truth: Mapping[str, np.ndarray], person: int) -> np.ndarray:
    """Return a person's triangles (T, 3), with the vertex numbers of `vertices_of`."""
    start, end = truth["face_start"][person : person + 2]
    return truth["faces"][start:end].astype(np.int64)


def mask_of(truth: Mapping[str, np.ndarray], row: int) -> np.ndarray:
    """Return one row's visible pixels (H, W), bool."""
    height, width = truth["mask_shape"]
    bits = np.unpackbits(truth["mask"][row], count=height * width)
    return bits.reshape(height, width).astype(bool)
