"""Read and check truth files. There are three kinds:

- *render*: written by ``samples/make_pitch.py``; exact, with everyone in the picture;
- *mediapipe*: written by ``benchmarks/references/mediapipe.py``; one person, as MediaPipe estimates
  it;
- *multi-view*: people seen by several cameras: ``frame`` and ``person`` (N,), ``landmarks_m``
  (N, 33, 3) in the camera's axes, ``landmarks_good`` (N, 33), and ``intrinsics`` or
  ``landmarks_px``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from app.evaluate.camera_path import CameraPath, camera_path
from app.evaluate.metrics import torso_px
from pipeline.core.camera import project
from pipeline.core.npz import read_npz
from pipeline.core.user_file import reading

_COUNTED_VISIBLE = 11
"""A person with fewer visible landmarks does not have to be found."""
_MOST_FRAMES = 10**9
_UNUSED = ("ball_m", "joints_px")
"""Arrays that are not read."""


class TruthError(ValueError):
    """A file is no truth, or belongs to another clip."""


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth of a clip: N rows, one for each person in each frame.

    Points are in the camera's axes, in metres. Unknown landmarks are NaN. Parts that a kind of
    truth lacks are None.

    Attributes:
        name: The file name.
        kind: "render", "mediapipe" or "multi-view".
        frame: Frame numbers (N,).
        person: The people's numbers (N,).
        landmarks_px: Landmarks in the image (N, 33, 2), pixels.
        visible: Which landmarks are visible (N, 33), bool.
        torso_px: Torso lengths (N,), pixels; at least half of the person's median.
        counted: The rows (N,) in which the person must be found, bool.
        frames: The number of frames of the clip, if known.
        size: The (height, width) of the clip, if known.
        intrinsics: K (3, 3).
        landmarks_m: Landmarks (N, 33, 3).
        world_m: World landmarks (N, 33, 3), as in `pipeline.core.people.Person`.
        masks: Masks (N, bytes), packed bits of ``mask_shape``.
        mask_shape: The (height, width) of the masks.
        joints_m: SMPL's joints (N, 24, 3).
        root_depth_m: The depth (N,) of the pelvis along z.
        depth_m: Depth maps (F, h, w) of every ``depth_step``-th pixel; 0 where there is no person.
        depth_step: The step of the depth maps, in pixels.
        surface: Returns the visible surface's vertices (V, 3) of a row.
        complete: Whether everyone in the picture is in the truth.
        camera: The camera in the world, if the truth has a world.
        foot_contact: Which feet stand on the floor (N, 2), left and right, bool.
        fps: Frames a second, if known.
    """

    name: str
    kind: str
    frame: np.ndarray
    person: np.ndarray
    landmarks_px: np.ndarray
    visible: np.ndarray
    torso_px: np.ndarray
    counted: np.ndarray
    frames: int | None = None
    size: tuple[int, int] | None = None
    intrinsics: np.ndarray | None = None
    landmarks_m: np.ndarray | None = None
    world_m: np.ndarray | None = None
    masks: np.ndarray | None = None
    mask_shape: tuple[int, int] | None = None
    joints_m: np.ndarray | None = None
    root_depth_m: np.ndarray | None = None
    depth_m: np.ndarray | None = None
    depth_step: int = 1
    surface: Callable[[int], np.ndarray] | None = None
    complete: bool = False
    camera: CameraPath | None = None
    foot_contact: np.ndarray | None = None
    fps: float | None = None

    def rows_of(self, frame: int) -> np.ndarray:
        """Return the row numbers of one frame."""
        return np.flatnonzero(self.frame == frame)

    def mask(self, row: int, size: tuple[int, int]) -> np.ndarray | None:
        """Return a row's mask scaled to a size (height, width), bool; None if there are no
        masks."""
        if self.masks is None or self.mask_shape is None:
            return None
        height, width = self.mask_shape
        bits = np.unpackbits(self.masks[row], count=height * width).reshape(height, width)
        small = cv2.resize(bits * np.uint8(255), size[::-1], interpolation=cv2.INTER_AREA)
        # Half of the area: a pixel belongs to the mask if most of it does.
        return small > 127

    def check_clip(self, clip: str, *, size: tuple[int, int], frames: int | None = None) -> None:
        """Check that a clip has this truth's size and length.

        Args:
            clip: The name of the clip, for the message.
            size: The (height, width) of the clip.
            frames: The number of its frames; None if not known yet.

        Raises:
            TruthError: The size or the length differs.
        """
        if self.size is not None and self.size != size:
            (h, w), (height, width) = self.size, size
            raise TruthError(f"{self.name}: of a {w}x{h} picture; {clip} is {width}x{height}")
        last = int(self.frame.max(initial=-1))
        if frames is not None and (last >= frames or self.frames not in (None, frames)):
            wanted = self.frames or last + 1
            raise TruthError(f"{self.name}: of {wanted} frames; {clip} has {frames}")


def load_truth(path: str | Path) -> Truth:
    """Read a truth file of any kind.

    Raises:
        OSError: There is no such file, or it cannot be read.
        TruthError: It is no truth.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(2, "there is no such file", str(path))
    with reading(path, error=TruthError):
        arrays = _read(path)
        # Told apart by their own arrays, because the files carry no name of a kind.
        for sign, kind in (
            ("found", _mediapipe),
            ("landmarks_good", _multi_view),
            ("landmarks_visible", _render),
        ):
            if sign in arrays:
                return kind(path.name, arrays)
        raise TruthError("no truth: it has neither landmarks_visible, landmarks_good nor found")


def _read(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            raise TruthError("no truth: one array, not an npz of several")
    with reading(path, ": not a readable npz", TruthError):
        return read_npz(path, skip=_UNUSED)


def _take(arrays: Mapping[str, np.ndarray], name: str, *shape: int | None) -> np.ndarray:
    """Return an array and check its shape; None is any length. Raises ValueError."""
    if name not in arrays:
        raise ValueError(f"has no {name}")
    array = arrays[name]
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} holds no numbers")
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape))
    if not fits:
        wanted = tuple("any" if n is None else n for n in shape)
        raise ValueError(f"{name} has the shape {array.shape}, not {wanted}".replace("'", ""))
    return array


def _render(name: str, arrays: dict[str, np.ndarray]) -> Truth:
    rows = len(_take(arrays, "frame", None))
    visible = _take(arrays, "landmarks_visible", rows, 33).astype(bool)
    joints = _take(arrays, "joints_m", rows, 24, 3)
    return _truth(
        name,
        "render",
        arrays,
        _take(arrays, "landmarks_px", rows, 33, 2),
        visible,
        counted=visible.sum(1) >= _COUNTED_VISIBLE,
        frames=_frames_of_render(arrays),
        landmarks_m=_take(arrays, "landmarks_m", rows, 33, 3),
        joints_m=joints,
        root_depth_m=joints[:, 0, 2],
        depth_m=_take(arrays, "depth_m", None, None, None) if "depth_m" in arrays else None,
        depth_step=_depth_step(arrays),
        surface=_surface(arrays),
        complete=True,
        camera=camera_path(arrays, _frames_of_render(arrays)),
        foot_contact=(
            _take(arrays, "foot_contact", rows, 2).astype(bool)
            if "foot_contact" in arrays
            else None
        ),
        fps=_fps(arrays),
    )


def _mediapipe(name: str, arrays: dict[str, np.ndarray]) -> Truth:
    rows = len(_take(arrays, "frame", None))
    return _truth(
        name,
        "mediapipe",
        arrays,
        _take(arrays, "landmarks_px", rows, 33, 2),
        _take(arrays, "visibility", rows, 33) > 0.5,
        counted=np.ones(rows, bool),
        frames=len(_take(arrays, "found", None)),
        world_m=_take(arrays, "world_m", rows, 33, 3),
    )


def _multi_view(name: str, arrays: dict[str, np.ndarray]) -> Truth:
    rows = len(_take(arrays, "frame", None))
    good = _take(arrays, "landmarks_good", rows, 33).astype(bool)
    # A point that the cameras did not agree on is not known.
    points = np.where(good[..., None], _take(arrays, "landmarks_m", rows, 33, 3), np.nan)
    if "landmarks_px" in arrays:
        pixels = _take(arrays, "landmarks_px", rows, 33, 2)
    # Projected without the lens's distortion, as the fit assumes it.
    elif "intrinsics" in arrays:
        pixels = project(points, _take(arrays, "intrinsics", 3, 3))
    else:
        raise ValueError("has neither intrinsics nor landmarks_px: people cannot be matched")
    counted = good.sum(1) >= _COUNTED_VISIBLE
    pixels = np.where(good[..., None], pixels, np.nan)
    return _truth(name, "multi-view", arrays, pixels, good, counted=counted, landmarks_m=points)


def _truth(
    name: str,
    kind: str,
    arrays: dict[str, np.ndarray],
    pixels: np.ndarray,
    visible: np.ndarray,
    **parts: Any,
) -> Truth:
    """Return a truth from what all kinds share and a kind's own ``parts``."""
    rows = len(pixels)
    person = _take(arrays, "person", rows) if "person" in arrays else np.zeros(rows, np.int64)
    pixels = pixels.astype(np.float64)
    # Unknown points are NaN; nothing is infinitely far away.
    if np.isinf(pixels).any():
        raise ValueError("landmarks_px holds infinite values")
    torso = _usual_torso(pixels, person)
    if "image_size" in arrays:
        height, width = _size(arrays, "image_size")
        parts["size"] = (height, width)
    if "intrinsics" in arrays:
        parts["intrinsics"] = _take(arrays, "intrinsics", 3, 3).astype(np.float64)
    if "mask" in arrays:
        height, width = _size(arrays, "mask_shape")
        parts["mask_shape"] = (height, width)
        parts["masks"] = _take(arrays, "mask", rows, -(-height * width // 8))
    # Without a torso, distances have no unit, and the person could not be matched.
    parts["counted"] = parts["counted"] & np.isfinite(torso)
    frame = _take(arrays, "frame", rows)
    if not (np.isfinite(frame).all() and (frame >= 0).all() and (frame < _MOST_FRAMES).all()):
        raise ValueError("frame holds no frame numbers")
    truth = Truth(name, kind, frame.astype(np.int64), person, pixels, visible, torso, **parts)
    if truth.surface is not None and rows:
        truth.surface(rows - 1)  # What it lacks is found now, not after minutes of work.
    return truth


def _size(arrays: Mapping[str, np.ndarray], name: str) -> tuple[int, int]:
    height, width = (int(side) for side in _take(arrays, name, 2))
    if not (0 < height < 2**16 and 0 < width < 2**16):
        raise ValueError(f"{name} is {width}x{height}")
    return height, width


def _fps(arrays: Mapping[str, np.ndarray]) -> float | None:
    if "fps" not in arrays:
        return None
    fps = float(_take(arrays, "fps"))
    if not 0 < fps < 1e6:
        raise ValueError(f"fps is {fps}")
    return fps


def _depth_step(arrays: Mapping[str, np.ndarray]) -> int:
    step = int(_take(arrays, "depth_step")) if "depth_step" in arrays else 1
    if not 0 < step < 2**16:
        raise ValueError(f"depth_step is {step}")
    return step


def _usual_torso(pixels: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Return torso lengths (N,), at least half of the person's median: a torso that points at the
    camera looks short, and distances are divided by it."""
    torso = torso_px(pixels)
    for number in np.unique(person):
        own = person == number
        known = torso[own][np.isfinite(torso[own])]
        usual = float(np.median(known)) if known.size else np.nan
        torso[own] = np.where(np.isfinite(torso[own]), np.fmax(torso[own], 0.5 * usual), usual)
    return torso


def _frames_of_render(arrays: dict[str, np.ndarray]) -> int | None:
    """Return the number of frames of a rendered clip. Without depth maps, the last row is taken for
    the last frame."""
    if "depth_m" in arrays:
        return len(arrays["depth_m"])
    return int(arrays["frame"].max()) + 1 if len(arrays["frame"]) else None


def _surface(arrays: dict[str, np.ndarray]) -> Callable[[int], np.ndarray] | None:
    """Return the function that reads a row's vertices, for each way in which renders store
    them."""
    if "transforms" in arrays:
        return partial(_skinned, arrays)
    if "vertices_m" in arrays:
        return lambda row: arrays["vertices_m"][row]
    if "vertices_steps_mm" in arrays:
        # Differences from row to row in whole millimetres compress far better than positions.
        local_mm = np.cumsum(arrays["vertices_steps_mm"], axis=0, dtype=np.int32)
        return lambda row: local_mm[row] / 1000 + arrays["root_m"][row]
    return None


def _skinned(arrays: dict[str, np.ndarray], row: int) -> np.ndarray:
    """Return the drawn vertices of one row, by linear blend skinning of the rest pose."""
    person = int(arrays["person"][row])
    part = slice(*arrays["vertex_start"][person : person + 2])
    start, end = arrays["face_start"][person : person + 2]
    # The surface is what was drawn: a vertex without a triangle is no part of it.
    drawn = np.unique(arrays["faces"][start:end])
    rest = arrays["rest_m"][part][drawn].astype(np.float64)
    shares = arrays["bone_shares"][part][drawn].astype(np.float64)
    bones = arrays["transforms"][row][arrays["bone_numbers"][part][drawn]]
    # Divided by their sum: stored shares are rounded.
    blended = np.einsum("vk,vkij->vij", shares / shares.sum(1, keepdims=True), bones)
    return np.einsum("vij,vj->vi", blended[..., :3], rest) + blended[..., 3]
