"""The CPU rasteriser against pyrender's OpenGL, and the errors when that is missing."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import trimesh

from render.rasterize_cpu import draw_meshes, visibility
from render.reference import PyrenderRenderer, vertex_normals
from tests.support.paths import ROOT

RED_BLUE = np.array([[1.0, 0.1, 0.1], [0.1, 0.1, 1.0]])


@pytest.fixture(scope="module")
def reference():
    try:
        renderer = PyrenderRenderer()
        renderer.depth(*capsule((0, 0, 3)), camera(20, (16, 16)), (16, 16))
    except RuntimeError as error:
        pytest.skip(str(error))
    yield renderer
    renderer.close()


def camera(focal_px, size, shift_px=(0.0, 0.0)):
    height, width = size
    x, y = (width - 1) / 2 + shift_px[0], (height - 1) / 2 + shift_px[1]
    return np.array([[focal_px, 0, x], [0, focal_px * 1.02, y], [0, 0, 1.0]])


def capsule(center, turn=(0.3, 0.2, 0.9)):
    """A slanted capsule: vertices (1, V, 3) and faces (F, 3)."""
    mesh = trimesh.creation.capsule(height=1.2, radius=0.25, count=(24, 24))
    mesh.apply_transform(trimesh.transformations.euler_matrix(*turn))
    return (mesh.vertices + center).astype(np.float32)[None], np.asarray(mesh.faces, np.int32)


def compare(reference, vertices, faces, lens, size):
    """Intersection over union of the silhouettes; the depths' differences within both."""
    theirs, expected = reference.visibility(vertices, faces, lens, size)
    ours, depth = visibility(vertices, faces, lens, size)
    both, union = (ours >= 0) & (theirs >= 0), (ours >= 0) | (theirs >= 0)
    assert union.any()
    return both.sum() / union.sum(), np.abs(depth - expected)[both]


@pytest.mark.parametrize(
    ("center", "focal_px", "size", "shift_px"),
    [
        ((0, 0, 3), 400, (240, 320), (0, 0)),
        ((0.4, -0.3, 2.5), 300, (241, 323), (11.3, -7.8)),
        ((-1.5, 0.2, 3), 250, (200, 201), (0, 0)),  # off the left edge
        ((0, 0.6, 3), 250, (120, 200), (3, 10)),  # off the lower edge
        ((0.45, 0.25, 0.4), 25, (180, 240), (0, 0)),  # through the near plane
        ((1, 1, 20), 4000, (300, 300), (-200, -200)),
    ],
)
def test_silhouette_and_depth_are_the_references(reference, center, focal_px, size, shift_px):
    vertices, faces = capsule(center)
    iou, off_m = compare(reference, vertices, faces, camera(focal_px, size, shift_px), size)
    assert iou > 0.999
    assert np.quantile(off_m, 0.99) < 1e-3 * center[2]


def poses():
    """SMPL poses (24, 3) axis-angle: at rest, a stride, a throw, a crouch, some random ones."""
    rest, stride, throw, crouch = np.zeros((4, 24, 3), np.float32)
    for pose in (stride, throw, crouch):
        pose[16:18, 2] = -1.1, 1.1
    stride[[1, 2, 4], 0] = -0.7, 0.5, 0.6
    throw[1] = -1.2, 0, 0.2
    throw[17] = 0.2, 0.7, -0.6
    throw[19] = 0, 1.4, 0
    crouch[[1, 2], 0] = -1.8, -1.7
    crouch[[4, 5], 0] = 2.0
    rng = np.random.default_rng(6)
    return [rest, stride, throw, crouch, *rng.normal(0, 0.35, (4, 24, 3)).astype(np.float32)]


def body(pose, turn, transl_m):
    """The free body in a pose, upright in the camera's axes and turned about the vertical."""
    import torch

    from pipeline.body.load import load_body

    model = load_body()
    flip = trimesh.transformations.euler_matrix(np.pi, 0, 0)
    turned = flip @ trimesh.transformations.euler_matrix(0, turn, 0)
    angle, axis, _ = trimesh.transformations.rotation_from_matrix(turned)
    made = model(
        torch.zeros(1, 10),
        torch.tensor((axis * angle)[None], dtype=torch.float32),
        torch.from_numpy(pose[1:].reshape(1, 69)),
        torch.tensor([transl_m], dtype=torch.float32),
    )
    return made.vertices_m.numpy(), model.faces


@pytest.mark.slow
@pytest.mark.parametrize("index", range(8))
def test_a_bodys_silhouette_is_the_references(reference, index):
    turn, x, z = index * 0.8, (index % 3 - 1) * 0.5, 2.2 + index * 0.6
    vertices, faces = body(poses()[index], turn, (x, 0.2, z))
    size = (360, 480) if index % 2 else (481, 363)
    iou, off_m = compare(reference, vertices, faces, camera(420, size, (5.5, -3.2)), size)
    assert iou > 0.995
    assert np.median(off_m) < 5e-4


@pytest.mark.slow
def test_a_body_looks_like_the_references(reference):
    vertices, faces = body(poses()[2], 0.4, (0, 0.1, 3.0))
    size, colors = (480, 480), np.array([[0.5, 0.8, 0.95]])
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    ours = draw_meshes(image, vertices, faces, colors, camera(600, size), 0.8).astype(int)
    theirs = reference.draw(image, vertices, faces, colors, camera(600, size), 0.8).astype(int)
    inside = visibility(vertices, faces, camera(600, size), size)[0] >= 0
    assert np.abs(ours - theirs)[inside].mean() < 20
    lights = [picture[inside].mean(axis=1) for picture in (ours, theirs)]
    assert np.corrcoef(*lights)[0, 1] > 0.9
    differ = np.abs(ours - theirs).max(axis=2) > 0
    assert differ[~inside].mean() < 0.02


@pytest.mark.parametrize("apart_m", [0.0, 0.1, 0.6])
def test_the_body_in_front_is_the_references(reference, apart_m):
    """Two capsules cross, through one another or one before the other."""
    first, faces = capsule((0, 0, 3.0), (0, 0.25, 0.8))
    second, _ = capsule((0.1, 0, 3.0 + apart_m), (0.1, -0.2, -0.7))
    vertices, size = np.concatenate([first, second]), (240, 320)
    lens, image = camera(420, size), np.zeros((240, 320, 3), np.uint8)
    ours, theirs = (
        see(vertices, faces, lens, size)[0] for see in (visibility, reference.visibility)
    )
    assert set(np.unique(theirs)) == {-1, 0, 1}
    assert (ours == theirs)[(ours >= 0) | (theirs >= 0)].mean() > 0.998
    # The pictures show it too; pixels half covered go either way.
    for draw in (draw_meshes, reference.draw):
        picture = draw(image, vertices, faces, RED_BLUE, lens, 1.0).astype(int)
        blue = np.where(picture.any(axis=2), picture[..., 2] > picture[..., 0], -1)
        assert (blue == theirs)[theirs >= 0].mean() > 0.98


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (33, 61)])
def test_the_reference_draws_odd_sizes_and_keeps_the_image(reference, size):
    vertices, faces = capsule((0, 0, 2))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    before = image.copy()
    picture = reference.draw(image, vertices, faces, RED_BLUE[:1], camera(9, size), 1.0)
    np.testing.assert_array_equal(image, before)
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    assert (picture != image).any()
    nothing = reference.draw(image, vertices, faces, RED_BLUE[:1], camera(9, size), 0.0)
    np.testing.assert_array_equal(nothing, image)
    empty = reference.draw(image, vertices[:0], faces, RED_BLUE[:0], camera(9, size), 1.0)
    np.testing.assert_array_equal(empty, image)


def test_the_reference_asks_the_same_of_its_arguments(reference):
    vertices, faces = capsule((0, 0, 2))
    image, lens = np.zeros((9, 9, 3), np.uint8), camera(9, (9, 9))
    with pytest.raises(ValueError, match="beyond"):
        reference.draw(image, vertices, faces + 1, RED_BLUE[:1], lens)
    with pytest.raises(ValueError, match="0 to 1"):
        reference.draw(image, vertices, faces, RED_BLUE[:1] * 9, lens)
    with pytest.raises(ValueError, match="uint8"):
        reference.draw(image / 2, vertices, faces, RED_BLUE[:1], lens)
    with pytest.raises(ValueError, match="skew"):
        reference.draw(
            image, vertices, faces, RED_BLUE[:1], lens + np.eye(3, k=1) * [[1], [0], [0]]
        )


def test_a_closed_reference_draws_again(reference):
    vertices, faces = capsule((0, 0, 2))
    before = reference.depth(vertices, faces, camera(30, (40, 50)), (40, 50))
    reference.close()
    reference.close()
    after = reference.depth(vertices, faces, camera(30, (40, 50)), (40, 50))
    np.testing.assert_array_equal(before, after)


def test_normals_of_a_ball_point_outwards():
    mesh = trimesh.creation.icosphere(subdivisions=3)
    normals = vertex_normals(mesh.vertices, mesh.faces)
    np.testing.assert_allclose(normals, mesh.vertices, atol=0.02)
    lonely = vertex_normals(np.vstack([mesh.vertices, [[9, 9, 9]]]), mesh.faces)
    np.testing.assert_array_equal(lonely[-1], 0)


NO_PACKAGE = "import sys; sys.modules['pyrender'] = None"
NO_LIBRARY = """
from OpenGL.platform import ctypesloader
def missing(*arguments, **options):
    raise OSError("no such library")
ctypesloader.loadLibrary = missing
"""
NO_DEVICE = """
import pyglet
pyglet.options["headless"] = True
import pyrender
from pyrender.platforms import egl
egl.query_devices = list
"""


@pytest.mark.parametrize(
    ("absent", "remedy"),
    [
        (NO_PACKAGE, "pip install 'bodystream[pyrender]'"),
        (NO_LIBRARY, "apt install libegl1"),
        (NO_DEVICE, "apt install libegl1"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(absent, remedy):
    pytest.importorskip("pyrender")
    script = f"""{absent}
import numpy as np
from render.overlay import make_renderer
try:
    renderer = make_renderer("pyrender")
    triangle = np.array([[[0, 0, 2], [0, 1, 2], [1, 0, 2.0]]])
    renderer.draw(np.zeros((8, 8, 3), np.uint8), triangle, [[0, 1, 2]], [[1, 1, 1]], np.eye(3))
except RuntimeError as error:
    print(error)
"""
    environment = {**os.environ, "PYOPENGL_PLATFORM": "egl"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.stderr == ""
    assert remedy in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_the_reference_draws_in_the_thread_that_first_draws():
    """Made in one thread and used in another, as the app does; apart, as it closes the display."""
    try:
        PyrenderRenderer()
    except RuntimeError as error:
        pytest.skip(str(error))
    script = """
import threading
import numpy as np
from render.overlay import make_renderer
renderer = make_renderer("pyrender")
triangle = np.array([[[0, 0, 2], [0, 1, 2], [1, 0, 2.0]]])
lens = np.diag([16.0, 16, 1])
def work():
    image = np.zeros((8, 8, 3), np.uint8)
    for _ in range(2):
        drawn = renderer.draw(image, triangle, [[0, 1, 2]], [[1, 1, 1]], lens)
    renderer.close()
    print(drawn[2, 2].min() > 0, drawn[7, 7].max())
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    if "apt install" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.stdout.split() == ["True", "0"], done.stderr
