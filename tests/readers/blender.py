"""Compare files of people with the recording that they were made of, as Blender reads them.

Runs in Blender's own Python, with nothing of this project:
    blender/bin/python tests/readers/blender.py POSES.npz FILE...

FILE is a .glb, or a .fbx or .usdc made of one, or a .bvh named track_N.bvh of one person. For
each person a line of JSON says how far Blender's joints are from the recording's in the world, in
metres and against the length of the bone that ends there, over all frames of the person.
"""

import json
import re
import sys
from pathlib import Path

import bpy
import numpy as np

CAMERA_TO_BLENDER = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
"""OpenCV's axes to Blender's, z up, for a level camera."""
JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar",
    "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist",
    "right_wrist", "left_hand", "right_hand",
)  # fmt: skip
SAME_SHAPE = 0.02
"""Betas that differ by less are one shape."""
PARENTS = [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]


def load(path: Path, fps: float) -> float:
    """Read a file into an empty scene; return Blender's frame of the first motion."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    # Blender converts seconds to frames when it reads a GLB.
    bpy.context.scene.render.fps = round(fps)
    if path.suffix == ".glb":
        bpy.ops.import_scene.gltf(filepath=str(path), disable_bone_shape=True)
    elif path.suffix == ".fbx":
        bpy.ops.preferences.addon_enable(module="io_scene_fbx")
        bpy.ops.import_scene.fbx(filepath=str(path))
    elif path.suffix == ".usdc":
        bpy.ops.wm.usd_import(filepath=str(path))
    else:
        bpy.ops.import_anim.bvh(filepath=str(path), update_scene_fps=True)
    return min(action.frame_range[0] for action in bpy.data.actions)


def people(path: Path) -> dict[int, bpy.types.Object]:
    """Return the skeletons of the scene by their tracks."""
    found = {}
    for each in bpy.data.objects:
        if each.type == "ARMATURE":
            # USD has the person's name above the skeleton, BVH in the file's name.
            names = f"{each.name} {each.parent and each.parent.name} {path.stem}"
            found[int(re.search(r"(?:track|person)_(\d+)", names)[1])] = each
    return found


def joints_m(skeleton: bpy.types.Object, frame: float) -> np.ndarray:
    """Return where Blender has the joints (24, 3) at one of its frames."""
    # Blender's own rounding, so that a whole number stays one.
    whole = int(np.floor(frame + 1e-4))
    bpy.context.scene.frame_set(whole, subframe=max(frame - whole, 0.0))
    bones = skeleton.pose.bones
    return np.array([skeleton.matrix_world @ bones[name].head for name in JOINTS])


def compare(path: Path, poses: dict[str, np.ndarray]) -> None:
    """Print a line for each person of a file."""
    fps = float(poses["fps"])
    begin = load(path, fps)
    rate = bpy.context.scene.render.fps / bpy.context.scene.render.fps_base
    for track, skeleton in sorted(people(path).items()):
        rows = np.flatnonzero(poses["track"] == track)
        # A BVH begins with its person, the others with the recording.
        start_s = poses["pts_s"][rows[0] if path.suffix == ".bvh" else 0]
        frames = (poses["pts_s"][rows] - start_s) * rate + begin
        wanted_m = poses["joints_m"][rows] @ CAMERA_TO_BLENDER.T
        got_m = np.array([joints_m(skeleton, frame) for frame in frames])
        errors_m = np.linalg.norm(got_m - wanted_m, axis=-1)
        bones_m = np.linalg.norm(wanted_m - wanted_m[:, PARENTS], axis=-1)[:, 1:]
        percent = errors_m[:, 1:] / bones_m * 100
        # While the fit learns a person the shape changes, which a BVH cannot show.
        changes = np.abs(poses["betas"][rows] - poses["betas"][rows[-1]]).max(1)
        learned = changes < SAME_SHAPE
        result = {
            "file": path.name,
            "track": track,
            "frames": len(rows),
            "worst_mm": float(errors_m.max() * 1e3),
            "worst_percent_of_bone": float(percent.max()),
            "frames_of_one_shape": int(learned.sum()),
            "worst_mm_of_one_shape": float(errors_m[learned].max() * 1e3),
            "worst_percent_of_one_shape": float(percent[learned].max()),
            "blender": bpy.app.version_string,
        }
        print(json.dumps(result))


if len(sys.argv) < 3:
    sys.exit(__doc__)
with np.load(sys.argv[1]) as recording:
    arrays = dict(recording)
for name in sys.argv[2:]:
    compare(Path(name), arrays)
