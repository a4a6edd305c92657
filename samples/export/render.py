"""Render a moment of a GLB of bodystream through its own camera, in Blender as a Python module.

python3.11 -m venv blender && blender/bin/pip install bpy
blender/bin/python samples/export/render.py people.glb SECONDS 1280x720 picture.png

The size is the clip's, or has its proportions: the picture then fits over the clip's frame.
"""

import os
import re
import sys

import bpy

if len(sys.argv) != 5 or not re.fullmatch(r"\d+x\d+", sys.argv[3]):
    sys.exit(__doc__)
source, seconds, size, picture = sys.argv[1:]

bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
# A frame is a thousandth of a second, so that every moment is near one.
scene.render.fps = 1000
bpy.ops.import_scene.gltf(filepath=source, disable_bone_shape=True)
scene.frame_set(round(float(seconds) * 1000))

scene.camera = next(each for each in bpy.data.objects if each.type == "CAMERA")
lamp = bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "SUN"))
lamp.data.energy, lamp.data.angle, lamp.rotation_euler = 3, 0.5, (0.8, 0.3, 0)
scene.collection.objects.link(lamp)
scene.world = bpy.data.worlds.new("world")
scene.world.color = (0.6, 0.6, 0.6)

# Cycles works without a graphics card or a screen.
scene.render.engine = "CYCLES"
scene.cycles.samples = 16
scene.render.resolution_x, scene.render.resolution_y = map(int, size.split("x"))
scene.render.film_transparent = True
scene.render.filepath = os.path.abspath(picture)
bpy.ops.render.render(write_still=True)
