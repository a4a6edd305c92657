"""The GPU's pictures are the CPU's; without a GPU the kernels run in Triton's interpreter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.renderers import mannequin, scene
from render.base import MeshRows, Scene
from render.memory_gpu import DrawingMemory
from render.overlay import make_renderer
from render.rasterize_cpu import NEAR_M, draw_meshes
from render.rasterize_gpu import GpuRenderer, faces_of_vertices

CUDA = torch.cuda.is_available()
LENS = np.array([[60.0, 0, 31.5], [0, 60.0, 23.5], [0, 0, 1]])


@pytest.fixture(scope="module")
def renderer():
    pytest.importorskip("triton")
    return GpuRenderer("cuda" if CUDA else "cpu")


def noise(height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def agree(
    renderer, image, vertices, faces, colors, lens=LENS, alpha=0.85, most=0.001, opacity=None
):
    """At most a thousandth (``most``) of the pixels drawn on differ by more than two levels:
    samples that lie on an edge to single precision. Returns the picture."""
    expected = draw_meshes(image, vertices, faces, colors, lens, alpha, opacity)
    got = renderer.draw(image, vertices, faces, colors, lens, alpha, opacity)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    apart = np.abs(got.astype(int) - expected).max(-1)
    drawn = int((expected != image).any(-1).sum())
    assert (apart > 2).sum() <= max(1, most * drawn)
    return got


def fading(vertices):
    """Opacity that runs from 0 to 1 across each mesh."""
    low, high = vertices[..., 1].min(axis=1), vertices[..., 1].max(axis=1)
    share = (vertices[..., 1] - low[:, None]) / (high - low)[:, None]
    return np.clip(1.4 * share - 0.2, 0, 1).astype(np.float32)


def triangles(*corners):
    """A mesh (1, V, 3) of triangles of its own corners, and its faces."""
    vertices = np.array(corners, np.float32).reshape(1, -1, 3)
    return vertices, np.arange(vertices.shape[1], dtype=np.int32).reshape(-1, 3)


def test_a_figure_is_drawn_as_on_the_cpu(renderer):
    vertices, faces = mannequin(8, 7)
    image, bodies, colors, lens = scene(vertices, 2, 72, 96)
    bodies[1, :, 2] += 0.3  # the nearer one hides the other where they overlap
    bodies[1, :, 0] -= 0.9
    picture = agree(renderer, image, bodies, faces, colors, lens)
    assert (picture != image).any(-1).sum() > 300
    faded = agree(renderer, image, bodies, faces, colors, lens, opacity=fading(bodies))
    assert (faded != picture).any(-1).sum() > 100
    one = [fading(bodies), None]
    pair = renderer.draw_batch([image] * 2, [bodies] * 2, faces, [colors] * 2, lens, 0.85, one)
    assert np.array_equal(pair[0], faded)
    assert np.array_equal(pair[1], picture)


@pytest.mark.parametrize("seed", range(3))
def test_triangles_of_any_size_and_place(renderer, seed):
    """Small ones, some that fill the picture, some that leave it, some behind the camera."""
    random = np.random.default_rng(seed)
    corners = random.normal(size=(24, 3, 3)) * random.choice([0.05, 0.3, 2.0], (24, 1, 1))
    corners += random.normal(size=(24, 1, 3)) * [0.8, 0.6, 0.5] + [0, 0, 2.0]
    vertices, faces = triangles(*corners.reshape(-1, 3))
    agree(renderer, noise(seed=seed), vertices, faces, np.array([[0.9, 0.4, 0.2]]))


@pytest.mark.parametrize("behind", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2), ()])
def test_triangles_are_cut_at_the_near_plane(renderer, behind):
    corners = np.array([[-0.2, 0.3, 1.0], [0.3, 0.2, 1.2], [0.1, -0.3, 0.8]])
    corners[list(behind), 2] = [-0.5, NEAR_M / 2, -0.01][: len(behind)]
    for order in ((0, 1, 2), (0, 2, 1)):
        vertices, faces = triangles(*corners[list(order)])
        # So near, a metre's last digit is a hundredth of a pixel.
        paint = np.array([[0.2, 0.9, 0.4]])
        picture = agree(renderer, noise(), vertices, faces, paint, most=0.005)
        agree(renderer, noise(), vertices, faces, paint, most=0.01, opacity=fading(vertices))
    assert len(behind) < 3 or (picture == noise()).all()


def test_no_sample_falls_between_triangles(renderer):
    """A fan seen from its axis covers its hull whole, whatever the vertices' last digits."""
    random = np.random.default_rng(4)
    angles = np.sort(random.uniform(0, 2 * np.pi, 40))
    rim = np.c_[0.5 * np.cos(angles), 0.4 * np.sin(angles), np.full(40, 1.5)]
    vertices = np.concatenate(([[0.013, -0.021, 1.5]], rim)).astype(np.float32)[None]
    faces = np.array([(0, 1 + (k + 1) % 40, 1 + k) for k in range(40)], np.int32)
    image = np.zeros((48, 64, 3), np.uint8)
    picture = agree(renderer, image, vertices, faces, np.ones((1, 3)), alpha=1.0)
    ys, xs = np.mgrid[:48, :64]
    well_inside = np.hypot((xs - 31.5) / 20, (ys - 23.5) / 16) < 0.8
    assert (picture[well_inside] > 40).all()


def test_the_same_picture_twice_and_none_left_over(renderer):
    vertices, faces = mannequin(6, 5)
    image, bodies, colors, lens = scene(vertices, 1, 48, 64)
    first = renderer.draw(image, bodies, faces, colors, lens)
    again = renderer.draw(image, bodies, faces, colors, lens)
    assert np.array_equal(first, again)
    assert not first.flags.writeable or first is not again
    nobody = renderer.draw(image, bodies[:0], faces, colors[:0], lens)
    assert np.array_equal(nobody, image)
    assert int((renderer._memory.samples != 0).sum()) == 0


def test_pictures_together_are_each_alone(renderer):
    vertices, faces = mannequin(6, 5)
    image, bodies, colors, lens = scene(vertices, 3, 48, 64)
    images = [noise(seed=k) for k in range(3)]
    people = [bodies[:2], bodies[:0], bodies[1:]]
    paints = [colors[:2], colors[:0], colors[1:]]
    kept = [image.copy() for image in images]
    together = renderer.draw_batch(images, people, faces, paints, lens)
    for k in range(3):
        alone = renderer.draw(images[k], people[k], faces, paints[k], lens)
        assert np.array_equal(together[k], alone)
        assert np.array_equal(images[k], kept[k])
    assert renderer.draw_batch([], [], faces, [], lens) == []
    on_device = [torch.from_numpy(image).to(renderer._device) for image in images]
    for a, b in zip(renderer.draw_batch(on_device, people, faces, paints, lens), together):
        assert np.array_equal(a, b)


def on(renderer, array):
    return torch.from_numpy(array).to(renderer._device)


def windows(seed, sizes, most=3):
    """A scene of noise for each (frames, height, width): people anywhere, some behind the camera,
    and a frame with none."""
    random = np.random.default_rng(seed)
    vertices, faces = mannequin(5, 4)
    scenes = []
    for frames, height, width in sizes:
        counts = random.permutation([0, *random.integers(1, most + 1, frames - 1)])
        meshes = [
            (vertices + random.normal(size=(count, 1, 3)) * [0.6, 0.3, 1.2] + [0, 0, 2]).astype(
                "f4"
            )
            for count in counts
        ]
        lens = np.array([[1.1 * width, 0, width / 2], [0, 1.2 * width, height / 2], [0, 0, 1]])
        scenes.append(
            Scene(
                [noise(height, width, seed + k) for k in range(frames)],
                meshes,
                [random.uniform(size=(count, 3)) for count in counts],
                lens,
            )
        )
    return scenes, faces


def in_place(renderer, window):
    """The scene with its images and meshes on the device, the meshes between others."""
    images = [on(renderer, image) for image in window.images]
    rows = []
    for meshes in window.vertices_m:
        spaced = np.full((2 * len(meshes) + 1, *meshes.shape[1:]), np.nan, np.float32)
        spaced[1::2] = meshes
        rows.append(MeshRows(on(renderer, spaced), 1 + 2 * np.arange(len(meshes))))
    return replace(window, images=images, vertices_m=rows)


@settings(max_examples=12, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 70)),
    st.lists(st.integers(0, 15), min_size=1, max_size=3),
)
def test_frames_at_any_address_are_copied_whole(size, offsets):
    """Frames are slices of longer buffers, at any byte; some rows of pixels lie apart."""
    pytest.importorskip("triton")
    renderer = GpuRenderer("cuda" if CUDA else "cpu")
    height, width = size
    buffers = [on(renderer, noise(height + 6, width, k)).flatten() for k in offsets]
    length = 3 * height * width
    frames = [
        buffer[offset : offset + length].view(height, width, 3)
        for buffer, offset in zip(buffers, offsets)
    ]
    frames.append(on(renderer, noise(2 * height, width))[::2])
    empty = np.zeros((0, 4, 3), np.float32)
    none = [empty] * len(frames)
    scene = Scene(frames, none, [np.zeros((0, 3))] * len(frames), LENS)
    (drawn,) = renderer.queue([scene], np.array([[0, 1, 2]]))
    for image, frame in zip(drawn.images, frames, strict=True):
        assert image.data_ptr() != frame.data_ptr()
        assert torch.equal(image, frame)


@pytest.mark.parametrize("seed", range(2))
def test_windows_of_any_sizes_are_drawn_together_as_on_the_cpu(renderer, seed):
    scenes, faces = windows(seed, [(3, 24, 32), (2, 40, 30), (2, 24, 32)])
    together = renderer.queue(scenes, faces)
    in_memory = renderer.queue([in_place(renderer, window) for window in scenes], faces)
    for window, drawn, same in zip(scenes, together, in_memory, strict=True):
        assert drawn.images.shape == (len(window.images), *window.images[0].shape)
        assert drawn.images.is_contiguous()
        pictures = drawn.pictures()
        assert np.array_equal(same.pictures(), pictures)
        for image, meshes, colors, got in zip(
            window.images, window.vertices_m, window.colors, pictures, strict=True
        ):
            expected = draw_meshes(image, meshes, faces, colors, window.intrinsics)
            apart = np.abs(got.astype(int) - expected).max(-1)
            drawn_on = int((expected != image).any(-1).sum())
            # So near the camera, a metre's last digit is a hundredth of a pixel.
            assert (apart > 2).sum() <= max(1, 0.01 * drawn_on)
    assert int((renderer._memory.samples != 0).sum()) == 0


def test_a_drawing_that_is_too_large_is_drawn_in_parts(renderer, monkeypatch):
    scenes, faces = windows(5, [(2, 24, 32), (2, 20, 20)], most=1)
    whole = [drawn.pictures() for drawn in renderer.queue(scenes, faces)]
    # Less than one picture: each is a part.
    monkeypatch.setattr(renderer._memory, "most_samples", 100)
    for drawn, pictures in zip(renderer.queue(scenes, faces), whole, strict=True):
        assert np.array_equal(drawn.pictures(), pictures)


def test_eight_people_in_a_frame(renderer):
    vertices, faces = mannequin(4, 3)
    image, bodies, colors, lens = scene(vertices, 8, 48, 96)
    agree(renderer, image, bodies, faces, colors, lens)


def test_meshes_that_a_kernel_could_not_read_are_refused(renderer):
    vertices, faces = mannequin(4, 3)
    image, bodies, colors, lens = scene(vertices, 2, 24, 32)
    there, rows = on(renderer, bodies), np.arange(2)
    for wrong, match in (
        (MeshRows(there, rows + 1), "beyond"),
        (MeshRows(there, rows - 1), "beyond"),
        (MeshRows(there.double(), rows), "float32"),
        (MeshRows(there[..., :2], rows), "float32"),
        (MeshRows(there[:, ::2], rows), "contiguous"),
        (MeshRows(there[:, :50].contiguous(), rows), "beyond"),
    ):
        with pytest.raises(ValueError, match=match):
            renderer.draw(image, wrong, faces, colors, lens)
    scenes = [Scene([image], [one], [colors], lens) for one in (bodies, bodies[:, :60])]
    with pytest.raises(ValueError, match="same triangles"):
        renderer.queue(scenes, faces)


def test_renderers_of_a_device_share_their_memory(renderer):
    vertices, faces = mannequin(4, 3)
    image, bodies, colors, lens = scene(vertices, 1, 24, 32)
    other = GpuRenderer(renderer._device)
    assert np.array_equal(
        other.draw(image, bodies, faces, colors, lens),
        renderer.draw(image, bodies, faces, colors, lens),
    )
    assert other._memory is renderer._memory is DrawingMemory.of(renderer._device)
    other.close()
    assert other._memory is None


def test_what_the_cpu_refuses_is_refused(renderer):
    vertices, faces = triangles([0, 0, 1], [0, 1, 1], [1, 0, 1])
    white = np.ones((1, 3))
    for wrong, match in (
        ((noise().astype(np.float32), vertices, faces, white), "uint8"),
        ((noise(), vertices[0], faces, white), "vertices"),
        ((noise(), vertices * np.nan, faces, white), "finite"),
        ((noise(), vertices, faces + 1, white), "beyond"),
        ((noise(), vertices, faces, 2 * white), "0 to 1"),
        ((torch.zeros(4, 4, 3), vertices, faces, white), "uint8"),
    ):
        with pytest.raises(ValueError, match=match):
            renderer.draw(*wrong, LENS)
    with pytest.raises(ValueError, match="one size"):
        renderer.draw_batch([noise(), noise(20, 20)], [vertices] * 2, faces, [white] * 2, LENS)


def test_every_face_is_at_its_corners():
    faces = np.random.default_rng(0).integers(0, 30, (50, 3)).astype(np.int32)
    table = faces_of_vertices(faces, 31)
    for vertex in range(31):
        there = [f for f in range(50) for corner in faces[f] if corner == vertex]
        assert [f for f in table[vertex] if f >= 0] == there


@pytest.mark.skipif(CUDA, reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(RuntimeError, match="--renderer numba"):
        make_renderer("gpu")


@pytest.mark.gpu
@pytest.mark.parametrize(("height", "width", "people"), [(720, 1280, 1), (1080, 1920, 4)])
def test_a_free_body_at_full_size(height, width, people):
    from pipeline.body.load import load_body

    body = load_body()
    vertices = (body.v_template.numpy() * [1, -1, -1]).astype(np.float32)
    image, bodies, colors, lens = scene(vertices, people, height, width)
    agree(GpuRenderer(), image, bodies, body.faces, colors, lens)


@pytest.mark.gpu
def test_a_body_close_to_the_camera():
    """A face that fills the picture, in part nearer than the near plane."""
    from pipeline.body.load import load_body

    body = load_body()
    vertices = (body.v_template.numpy() * [1, -1, -1]).astype(np.float32)
    image, bodies, colors, lens = scene(vertices, 1, 1080, 1920)
    bodies[0] -= bodies[0][bodies[0, :, 2].argmin()] - [0.0, 0.0, 0.02]
    agree(GpuRenderer(), image, bodies.astype(np.float32), body.faces, colors, lens)


@pytest.mark.gpu
def test_drawing_does_not_wait():
    vertices, faces = mannequin()
    image, bodies, colors, lens = scene(vertices, 2, 720, 1280)
    renderer = GpuRenderer()
    there = in_place(renderer, Scene([image] * 4, [bodies] * 4, [colors] * 4, lens))
    renderer.queue([there], faces)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = renderer.queue([there] * 3, faces)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = renderer.draw(image, bodies, faces, colors, lens)
    for each in drawn:
        for picture in each.pictures():
            assert np.array_equal(picture, expected)


@pytest.mark.gpu
def test_threads_draw_at_the_same_time():
    vertices, faces = mannequin()
    image, bodies, colors, lens = scene(vertices, 2, 720, 1280)
    expected = GpuRenderer().draw(image, bodies, faces, colors, lens)

    def draw(_):
        with torch.cuda.stream(torch.cuda.Stream()):
            renderer = GpuRenderer()
            return [renderer.draw(image, bodies, faces, colors, lens) for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        for pictures in pool.map(draw, range(8)):
            assert all(np.array_equal(picture, expected) for picture in pictures)
