"""Turn a GLB or BVH file of bodystream into FBX or USD, through Blender as a Python module.

python3.11 -m venv blender && blender/bin/pip install bpy
blender/bin/python samples/export/convert.py people.glb people.fbx
blender/bin/python samples/export/convert.py people.glb people.usdz
"""

import json
import os
import struct
import sys

import bpy


def frames_a_second(path: str) -> float:
    """Return the rate of the source, which a GLB of bodystream states beside its motion."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<12xI4x", file.read(20))
        return json.loads(file.read(length))["animations"][0]["extras"]["fps"]


if len(sys.argv) != 3:
    sys.exit(__doc__)
source, target = map(os.path.abspath, sys.argv[1:])
if not (source.endswith((".glb", ".bvh")) and target.endswith((".fbx", ".usdc", ".usdz"))):
    sys.exit(__doc__)

# An empty scene: the default one has a cube, a lamp and a camera.
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.preferences.addon_enable(module="io_scene_fbx")
scene = bpy.context.scene
if source.endswith(".glb"):
    # Blender counts time in whole frames a second. It converts a GLB's seconds when it reads them.
    scene.render.fps = max(round(frames_a_second(source)), 1)
    bpy.ops.import_scene.gltf(filepath=source, disable_bone_shape=True)
else:
    bpy.ops.import_anim.bvh(filepath=source, update_scene_fps=True)

ranges = [action.frame_range for action in bpy.data.actions]
scene.frame_start = int(min(first for first, _ in ranges))
scene.frame_end = round(max(last for _, last in ranges))
if target.endswith(".fbx"):
    bpy.ops.export_scene.fbx(
        filepath=target,
        object_types={"ARMATURE", "MESH", "CAMERA"},
        add_leaf_bones=False,
        # One motion for all people, sampled at every frame, without leaving keys out.
        bake_anim_use_all_actions=False,
        bake_anim_use_nla_strips=False,
        bake_anim_simplify_factor=0,
    )
else:
    bpy.ops.wm.usd_export(filepath=target, export_animation=True)
