"""The CPU rasteriser against a slow ray caster and the laws of drawing."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from render import kernels, rasterize_cpu
from render.rasterize_cpu import NEAR_M, Scratch, clusters, draw_meshes, visibility, warm_up
from render.reference import vertex_normals


def camera(focal_px: float, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]])


def ball(center: tuple[float, float, float], radius: float = 0.5, detail: int = 3):
    """A sphere: vertices (V, 3) and faces (F, 3)."""
    mesh = trimesh.creation.icosphere(subdivisions=detail, radius=radius)
    return (mesh.vertices + center).astype(np.float32), np.asarray(mesh.faces, np.int32)


def balls(*centers):
    made = [ball(center) for center in centers]
    return np.stack([vertices for vertices, _ in made]), made[0][1]


def cast(vertices_m, faces, intrinsics, size, slack):
    """What the ray through each pixel's centre meets first, the obvious way (Möller and Trumbore,
    1997): the person (H, W), -1 for none, and z (H, W), infinite for none. Triangles are wider
    by ``slack`` of their barycentric weights, and the near plane nearer by as much."""
    height, width = size
    pixels = np.stack([*np.meshgrid(np.arange(width), np.arange(height)), np.ones(size)], axis=-1)
    rays = pixels @ np.linalg.inv(intrinsics).T  # z = 1, so that a multiple is the distance
    nearest, person = np.full(size, np.inf), np.full(size, -1)
    for index, vertices in enumerate(np.asarray(vertices_m, np.float64)):
        for a, b, c in vertices[faces]:
            across = np.cross(rays, c - a)
            facing = across @ (b - a)
            seen = facing > 1e-12  # its front, counter-clockwise from outside
            scale = 1 / np.where(seen, facing, 1)
            u = across @ -a * scale
            v = rays @ np.cross(-a, b - a) * scale
            z = (c - a) @ np.cross(-a, b - a) * scale
            hit = seen & (u >= -slack) & (v >= -slack) & (u + v <= 1 + slack)
            hit &= (z >= NEAR_M * (1 - slack)) & (z < nearest)
            nearest[hit], person[hit] = z[hit], index
    return person, nearest


@st.composite
def scenes(draw):
    """A few random triangles of a few people, some behind the camera or across its near plane."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    people, count = draw(st.integers(1, 3)), draw(st.integers(3, 9))
    size = draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    depth_m = draw(st.sampled_from([(0.5, 5.0), (-1.0, 2.0), (-0.1, 0.2), (20.0, 90.0)]))
    spread = draw(st.sampled_from([0.3, 2.0, 30.0]))
    vertices = rng.uniform(-spread, spread, (people, count, 3))
    vertices[..., 2] = rng.uniform(*depth_m, (people, count))
    faces = rng.integers(0, count, (draw(st.integers(1, 6)), 3))
    return vertices.astype(np.float32), faces, camera(draw(st.floats(3, 60)), size), size


@given(scenes())
@settings(max_examples=300, deadline=None)
def test_each_pixel_shows_what_its_ray_meets_first(scene):
    vertices, faces, lens, size = scene
    person, depth = visibility(vertices, faces, lens, size)
    narrow, wide = (cast(vertices, faces, lens, size, slack) for slack in (-1e-5, 1e-5))
    sure = (narrow[0] == wide[0]) & (np.isinf(wide[1]) | np.isclose(*(narrow[1], wide[1])))
    assert sure.mean() > 0.8
    np.testing.assert_array_equal(person[sure], narrow[0][sure])
    expected = np.where(np.isinf(narrow[1]), 0, narrow[1])
    np.testing.assert_allclose(depth[sure], expected[sure], rtol=2e-4)


def test_the_ray_caster_sees_a_ball_where_it_is():
    vertices, faces = ball((0.2, -0.1, 3.0), detail=2)
    person, depth = cast(vertices[None], faces, camera(40, (31, 41)), (31, 41), 0.0)
    # The middle of the ball is at 40 * 0.2 / 3 px right of the image's middle.
    assert person[round(15 - 4 / 3), round(20 + 8 / 3)] == 0
    assert depth.min() == pytest.approx(2.5, abs=0.03)
    assert (person == 0).sum() == pytest.approx(np.pi * (40 * 0.5 / 3) ** 2, rel=0.1)


def test_the_nearer_of_two_balls_that_cut_each_other_is_seen():
    vertices, faces = balls((-0.2, 0, 3.0), (0.2, 0, 3.2))
    size = (121, 161)
    person, _ = visibility(vertices, faces, camera(150, size), size)
    # They meet in a plane; the camera looks along it nearly at x = c . (x - middle) = 0.
    expected, _ = cast(vertices, faces, camera(150, size), size, 0.0)
    assert {-1, 0, 1} == set(np.unique(person))
    assert (person == expected).mean() > 0.9995


def test_faces_turned_away_are_not_drawn():
    vertices, faces = ball((0, 0, 3))
    size = (50, 50)
    assert (visibility(vertices[None], faces, camera(60, size), size)[0] == 0).any()
    inside = visibility(vertices[None] - (0, 0, 3), faces, camera(60, size), size)[0]
    assert (inside == -1).all()


def gray(height: int, width: int, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


RED_BLUE = np.array([[1.0, 0.2, 0.2], [0.2, 0.2, 1.0]])


@given(scenes(), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_drawing_changes_only_pixels_at_bodies(scene, alpha):
    vertices, faces, lens, size = scene
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    before = image.copy()
    picture = draw_meshes(image, vertices, faces, np.full((len(vertices), 3), 0.5), lens, alpha)
    np.testing.assert_array_equal(image, before)
    assert picture.shape == image.shape
    assert picture.dtype == np.uint8
    assert not np.shares_memory(picture, image)
    # A pixel may show what is up to half a pixel from its centre: look on a finer grid.
    fine = np.diag([4.0, 4.0, 1.0]) @ lens + [[0, 0, 1.5], [0, 0, 1.5], [0, 0, 0]]
    found = visibility(vertices, faces, fine, (size[0] * 4, size[1] * 4))[0]
    near = (found >= 0).reshape(size[0], 4, size[1], 4).any(axis=(1, 3))
    thin = (picture != image).any(axis=2) & ~near
    assert thin.mean() <= 0.1
    wide = np.pad(near, 1)
    around = sum(np.roll(wide, shift, (0, 1))[1:-1, 1:-1] for shift in np.ndindex(3, 3) if shift)
    assert (picture == image)[(around == 0) & ~near & ~thin].all()


def test_no_alpha_returns_the_image():
    vertices, faces = balls((0, 0, 2))
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    picture = draw_meshes(image, vertices, faces, RED_BLUE[:1], camera(50, (40, 60)), 0.0)
    np.testing.assert_array_equal(picture, image)


def test_full_alpha_hides_the_image_and_half_shows_half():
    vertices, faces = balls((0, 0, 2))
    lens = camera(50, (40, 60))
    inside = np.s_[12:28, 22:38]
    drawn = {
        (alpha, value): draw_meshes(gray(40, 60, value), vertices, faces, RED_BLUE[:1], lens, alpha)
        for alpha in (0.5, 1.0)
        for value in (0, 200)
    }
    np.testing.assert_array_equal(drawn[1.0, 0][inside], drawn[1.0, 200][inside])
    difference = drawn[0.5, 200][inside].astype(int) - drawn[0.5, 0][inside]
    assert np.abs(difference - 100).max() <= 1
    np.testing.assert_allclose(drawn[0.5, 0][inside], drawn[1.0, 0][inside] / 2, atol=1)


def test_no_people_is_the_image():
    image = gray(5, 7)
    for vertices, faces in (
        (np.zeros((0, 12, 3), np.float32), np.array([[0, 1, 2]])),
        (np.zeros((0, 0, 3)), np.zeros((0, 3), np.int64)),
        (np.zeros((0, 0, 3)), np.array([[0, 1, 2]])),
        (np.zeros((2, 0, 3)), np.zeros((0, 3), np.int64)),
        (np.ones((1, 4, 3)), np.zeros((0, 3), np.int64)),
    ):
        colors = np.zeros((len(vertices), 3))
        picture = draw_meshes(image, vertices, faces, colors, camera(9, (5, 7)))
        np.testing.assert_array_equal(picture, image)
        assert (visibility(vertices, faces, camera(9, (5, 7)), (5, 7))[0] == -1).all()


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_edges_cover_as_much_as_the_triangle_does(seed):
    """A black triangle on white leaves as much white as its area says, on average over where it
    lies on the pixels."""
    corners = np.random.default_rng(seed).uniform(2, 38, (3, 2))
    (ax, ay), (bx, by), (cx, cy) = corners
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area > 0:
        corners = corners[::-1]
    everywhere = np.array([[-99, -99], [-99, 299], [299, -99]])

    def darkness(places):
        # So far that one light falls all over the wall.
        wall = np.concatenate([places, np.full((3, 1), 1e4)], axis=1)[None]
        far = np.diag([1e4, 1e4, 1.0])
        black = draw_meshes(gray(41, 41, 255), wall, [[0, 1, 2]], [[0, 0, 0]], far, 1.0)
        return (255.0 - black[..., 0]).sum()

    # Evenly spread over a pixel, on no lattice that an edge could lie along.
    shifts = np.arange(64)[:, None] * (0.7548776662, 0.5698402910) % 1
    covered = np.mean([darkness(corners + shift) for shift in shifts])
    covered *= 41 * 41 / darkness(everywhere)
    edge = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1).sum()
    assert abs(covered - abs(area) / 2) <= 0.005 * (edge + abs(area)) + 0.1


def test_an_upright_edge_moves_through_four_steps_a_pixel():
    """From 10, a pixel's centre, to 11 it uncovers half a pixel and then half of the next."""
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    seen = []
    for x in np.arange(10.0, 11.0, 0.05):
        quad = np.array([[0, 0, 1e4], [0, 20, 1e4], [x, 20, 1e4], [x, 0, 1e4]])[None]
        far = np.diag([1e4, 1e4, 1.0])
        picture = draw_meshes(gray(21, 21, 0), quad, faces, np.ones((1, 3)), far, 1.0)
        seen.append(picture[10, 10:12, 0].astype(int).sum() / picture[10, 5, 0])
    assert seen == sorted(seen)
    np.testing.assert_allclose(np.unique(np.round(seen, 2)), [0.5, 0.75, 1, 1.25, 1.5], atol=0.02)


def test_no_cracks_between_triangles():
    """Every pixel of a finely cut, opaque wall is covered in full, wherever its edges fall."""
    rng = np.random.default_rng(4)
    x, y = np.meshgrid(np.linspace(-9, 40, 23), np.linspace(-9, 40, 19))
    x[1:-1, 1:-1] += rng.uniform(-0.9, 0.9, x[1:-1, 1:-1].shape)
    y[1:-1, 1:-1] += rng.uniform(-0.9, 0.9, y[1:-1, 1:-1].shape)
    wall = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(1, -1, 3)
    index = np.arange(x.size).reshape(x.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    lens = np.eye(3)
    assert (visibility(wall, faces, lens, (31, 31))[0] == 0).all()
    dark, light = (
        draw_meshes(gray(31, 31, v), wall, faces, [[0, 1, 0]], lens, 1.0) for v in (0, 255)
    )
    np.testing.assert_array_equal(dark, light)


def test_shade_is_the_formula():
    vertices, faces = ball((0.7, -0.4, 2.0), detail=2)
    values = np.empty((len(vertices), 2), np.float32)
    kernels.shade(vertices, faces, values)
    level = values[:, 0]
    normals = vertex_normals(vertices, faces)
    rays = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    facing = np.clip(-(normals * rays).sum(axis=1), 0, 1)
    wrapped = np.maximum((normals @ [-0.61, -0.71, -0.35] + 0.6) / 1.6, 0)
    light = (0.20 + 0.27 * facing + 0.50 * wrapped) * (1 - 0.75 * (1 - facing) ** 3)
    np.testing.assert_allclose(level, 1.5 + 253 * np.clip(light, 0, 1), atol=0.01)
    assert level.min() >= 1.5
    assert level.max() <= 254.5


def test_light_runs_evenly_from_corner_to_corner():
    points = np.array([[2.0, 1.0, 1.0], [6.3, 38.0, 1.0], [37.5, 9.2, 1.0]])
    level, base = np.array([40.5, 250.5, 130.5], np.float32), 512
    depth, coded = Scratch().buffers(40, 41)
    faces, values = np.array([[0, 1, 2]], np.int32), np.c_[level, np.ones(3, np.float32)]
    kernels.fill(points, faces, values, 512.0, 0, 0, 0, 1, 0.0, depth, coded)
    y, x = (depth > 0).nonzero()
    assert len(x) > 500
    corners = np.vstack([points[:, :2].T, np.ones(3)])
    weights = np.linalg.solve(corners, np.vstack([x, y, np.ones(len(x))]))
    np.testing.assert_allclose(coded[y, x], base + level @ weights - 0.5, atol=0.51)
    assert (coded[depth == 0] == 0).all()


@pytest.mark.parametrize("side", [-1, 1])
def test_slivers_cannot_leave_the_palette(side):
    """A sample hardly outside a triangle is drawn, where its light may be far off."""
    level = np.array([1.5, 1.5, 254.5] if side > 0 else [254.5, 254.5, 1.5], np.float32)
    faces = np.array([[0, 1, 2]], np.int32)
    for gap in np.linspace(1e-10, 9e-10, 9):
        x = 10 + side * gap
        points = np.array([[x, 0, 1], [x, 29, 1], [x + side * 8e-8, 15.2, 1]])
        if side < 0:
            points[:2] = points[1::-1]
        depth, coded = Scratch().buffers(30, 30)
        values = np.c_[level, np.ones(3, np.float32)]
        kernels.fill(points, faces, values, 256.0, 0, 0, 0, 1, 0.0, depth, coded)
        assert coded.any()
        assert ((coded == 0) | ((coded > 256) & (coded < 512))).all()


def test_light_comes_from_above_and_stays_within_the_colour():
    vertices, faces = balls((0, 0, 2))
    picture = draw_meshes(
        gray(99, 99, 0), vertices, faces, RED_BLUE[:1], camera(120, (99, 99)), 1.0
    )
    column = picture[25:75, 49, 0].astype(int)
    assert column[:20].mean() > column[-20:].mean() + 30
    assert picture[..., 0].max() <= 255
    covered = picture.any(axis=2)
    assert (picture[covered][:, 0] >= picture[covered][:, 2]).all()


def test_the_order_of_people_does_not_matter():
    vertices, faces = balls((-0.2, 0, 3.0), (0.2, 0.1, 3.3), (1.4, 0, 2.5), (0.1, -0.2, 2.2))
    colors = np.random.default_rng(2).uniform(0, 1, (4, 3))
    image, lens = gray(90, 120), camera(100, (90, 120))
    order = [2, 0, 3, 1]
    first = draw_meshes(image, vertices, faces, colors, lens)
    second = draw_meshes(image, vertices[order], faces, colors[order], lens)
    assert np.abs(first.astype(int) - second).max() <= 1


def test_bands_and_clusters_do_not_show(monkeypatch):
    vertices, faces = balls((-0.4, 0, 2.0), (0.3, 0.1, 2.3), (2.4, 1, 5))
    image, lens = gray(90, 121), camera(100, (90, 121))
    colors = np.random.default_rng(2).uniform(0, 1, (3, 3))
    at_once = draw_meshes(image, vertices, faces, colors, lens)
    monkeypatch.setattr(rasterize_cpu, "_BAND_SAMPLES", 2000)
    np.testing.assert_array_equal(draw_meshes(image, vertices, faces, colors, lens), at_once)
    monkeypatch.setattr(rasterize_cpu, "_BAND_SAMPLES", 1)
    np.testing.assert_array_equal(draw_meshes(image, vertices, faces, colors, lens), at_once)
    whole = [((0, 0, 120, 89), [0, 1, 2])]
    monkeypatch.setattr(rasterize_cpu, "clusters", lambda boxes: whole)
    np.testing.assert_array_equal(draw_meshes(image, vertices, faces, colors, lens), at_once)


@given(
    st.lists(
        st.tuples(*(st.integers(0, 30) for _ in range(4))).map(
            lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
        ),
        max_size=9,
    )
)
def test_clusters_hold_each_box_once_and_do_not_touch(boxes):
    groups = clusters(boxes)
    assert sorted(index for _, members in groups for index in members) == list(range(len(boxes)))
    for common, members in groups:
        low = np.min([boxes[index][:2] for index in members], axis=0)
        high = np.max([boxes[index][2:] for index in members], axis=0)
        assert common == (*low, *high)
    for i, (a, _) in enumerate(groups):
        for b, _ in groups[i + 1 :]:
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_a_shift_by_whole_pixels_shifts_the_picture():
    vertices, faces = balls((0.1, 0, 3.0), (0.2, 0.3, 3.3))
    lens = camera(80, (80, 100))
    moved = lens + [[0, 0, 7], [0, 0, -5], [0, 0, 0]]
    image = gray(80, 100)
    first = draw_meshes(image, vertices, faces, RED_BLUE, lens)
    second = draw_meshes(image, vertices, faces, RED_BLUE, moved)
    np.testing.assert_allclose(second[5:70, 20:90], first[10:75, 13:83], atol=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (2, 3), (33, 65)])
def test_odd_sizes_and_layouts_of_images(size):
    vertices, faces = balls((0, 0, 2), (0.3, 0, 2.2))
    lens = camera(size[1] / 2 + 1, size)
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (size[0] * 2, size[1] * 3, 3), dtype=np.uint8)
    views = [large[::2, ::3], large[::-2, ::-3], large[::2, ::3, ::-1]]
    views.append(np.asfortranarray(views[0]))
    for view in views:
        expected = draw_meshes(np.ascontiguousarray(view), vertices, faces, RED_BLUE, lens)
        np.testing.assert_array_equal(draw_meshes(view, vertices, faces, RED_BLUE, lens), expected)
        assert (expected != view).any()


def test_off_screen_and_behind_draws_nothing():
    image, lens = gray(40, 60), camera(50, (40, 60))
    for center in ((0, 0, -3), (90, 0, 3), (-90, 0, 3), (0, 70, 3), (0, -70, 3)):
        vertices, faces = balls(center)
        picture = draw_meshes(image, vertices, faces, RED_BLUE[:1], lens)
        np.testing.assert_array_equal(picture, image)


def test_the_camera_inside_a_crowd_of_triangles_sees_only_what_lies_before_the_near_plane():
    vertices, faces = balls((0, 0, 0.3))
    size = (60, 80)
    depth = visibility(vertices[:, :, [1, 0, 2]], faces, camera(40, size), size)[1]
    assert depth.max() > 0.7  # mirrored, its far side faces us
    assert depth[depth > 0].min() >= NEAR_M * (1 - 1e-5)


@given(
    st.integers(0, 10**6),
    st.sampled_from([1e-30, 1e-6, 1.0, 1e6, 1e15, 1e30]),
    st.sampled_from([1e-3, 1.0, 1e5, 1e200]),
)
@settings(max_examples=200, deadline=None)
def test_absurd_but_finite_input_draws_or_is_refused(seed, metres, focal_px):
    rng = np.random.default_rng(seed)
    vertices = (rng.normal(size=(2, 9, 3)) * metres).astype(np.float32)
    faces = rng.integers(0, 9, (12, 3))
    try:
        picture = draw_meshes(gray(9, 11), vertices, faces, RED_BLUE, camera(focal_px, (9, 11)))
    except ValueError as error:
        assert "too far" in str(error)  # noqa: PT017  either way is right
    else:
        assert picture.shape == (9, 11, 3)


def bad(**changes):
    vertices, faces = balls((0, 0, 2))
    good = {
        "image": gray(20, 30),
        "vertices_m": vertices,
        "faces": faces,
        "colors": RED_BLUE[:1],
        "intrinsics": camera(20, (20, 30)),
        "alpha": 0.5,
    }
    return {**good, **changes}


VERTICES, FACES = balls((0, 0, 2))
TOP = np.arange(len(VERTICES[0]))[:, None] == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": gray(20, 30).astype(float)}, "uint8"),
        ({"image": gray(20, 30)[..., 0]}, r"\(H, W, 3\)"),
        ({"image": gray(0, 30)}, r"\(H, W, 3\)"),
        ({"image": None}, "uint8"),
        ({"vertices_m": VERTICES[0]}, r"\(P, V, 3\)"),
        ({"vertices_m": np.where(TOP, np.nan, VERTICES)}, "not finite"),
        ({"vertices_m": np.where(TOP, np.inf, VERTICES)}, "not finite"),
        ({"vertices_m": np.zeros((65, 1, 3)), "faces": FACES[:0]}, "at most 64"),
        ({"faces": FACES + 1}, "beyond"),
        ({"faces": FACES - 1}, "beyond"),
        ({"faces": FACES.astype(float)}, "integers"),
        ({"faces": FACES[:, :2]}, r"\(F, 3\)"),
        ({"colors": RED_BLUE}, r"\(1, 3\)"),
        ({"colors": RED_BLUE[:1] * 255}, "0 to 1"),
        ({"colors": RED_BLUE[:1] * np.nan}, "0 to 1"),
        ({"intrinsics": np.eye(4)}, "finite"),
        ({"intrinsics": np.diag([np.nan, 1, 1])}, "finite"),
        ({"intrinsics": np.diag([-5.0, 5, 1])}, "above 0"),
        ({"intrinsics": camera(20, (20, 30)).T}, "above 0"),
        ({"opacity": np.ones((1, 3))}, "opacity"),
        ({"opacity": 2 * np.ones(VERTICES.shape[:2])}, "opacity"),
        ({"opacity": np.nan * np.ones(VERTICES.shape[:2])}, "opacity"),
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        draw_meshes(**bad(**changes))


def test_after_warm_up_nothing_is_compiled():
    """Whatever type or layout the arrays have: a compilation would stop a stream for a second."""
    warm_up()
    loops = (kernels.shade, kernels.project, kernels.fill, kernels.blend)
    before = [len(loop.signatures) for loop in loops]
    arguments = bad(alpha=1)
    fixed = {}
    for key in ("image", "vertices_m", "faces", "colors", "intrinsics"):
        fixed[key] = arguments[key].copy()
        fixed[key].setflags(write=False)
    draw_meshes(**{**arguments, **fixed})
    draw_meshes(**bad(vertices_m=VERTICES.astype(float)[:, ::-1], faces=FACES.astype(np.uint16)))
    draw_meshes(
        **bad(vertices_m=VERTICES - np.float32(1.8), faces=FACES.astype(np.int64).T.copy().T)
    )
    visibility(VERTICES, FACES, camera(20, (20, 30)), (20, 30))
    assert [len(loop.signatures) for loop in loops] == before


def test_a_scratch_changes_no_picture():
    scratch = Scratch()
    for distance in (2, 9, 1, 30, 1.5):
        vertices, faces = balls((0, 0, distance), (0.2, 0, distance + 0.2))
        arguments = bad(vertices_m=vertices, faces=faces, colors=RED_BLUE)
        expected = draw_meshes(**arguments)
        np.testing.assert_array_equal(draw_meshes(**arguments, scratch=scratch), expected)


def test_threads_draw_beside_one_another():
    arguments = bad()
    expected = draw_meshes(**arguments)
    wrong = []

    def work():
        scratch = Scratch()
        pictures = (draw_meshes(**arguments, scratch=scratch) for _ in range(30))
        wrong.extend(picture for picture in pictures if (picture != expected).any())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def wall(height: int = 40, width: int = 60):
    """A white wall (1, 4, 3) that fills the picture, its faces and the camera."""
    corners = np.array([[[-3, -2, 2], [3, -2, 2], [3, 2, 2], [-3, 2, 2]]], np.float32)
    return corners, np.array([[0, 2, 1], [0, 3, 2]]), camera(40, (height, width))


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_opacity_and_alpha_multiply(opacity, alpha):
    vertices, faces, lens = wall()
    image = gray(40, 60, 20)
    opaque = draw_meshes(image, vertices, faces, RED_BLUE[:1], lens, 1.0).astype(float)
    fade = np.full((1, 4), opacity, np.float32)
    picture = draw_meshes(image, vertices, faces, RED_BLUE[:1], lens, alpha, fade).astype(float)
    share = (picture - 20)[..., 0].mean() / (opaque - 20)[..., 0].mean()
    # Thirty-two steps, and one level of the picture.
    assert share == pytest.approx(alpha * opacity, abs=1 / 64 + 1 / 100)


def test_opaque_vertices_are_drawn_as_without_opacity_and_clear_ones_not_at_all():
    vertices, faces = balls((-0.4, 0, 2), (0.4, 0, 2))
    lens = camera(40, (40, 60))
    image = gray(40, 60)
    whole = draw_meshes(image, vertices, faces, RED_BLUE, lens)
    fade = np.ones(vertices.shape[:2], np.float32)
    np.testing.assert_array_equal(draw_meshes(image, vertices, faces, RED_BLUE, lens, 0.85, fade),
                                  whole)  # fmt: skip
    fade[1] = 0
    alone = draw_meshes(image, vertices[:1], faces, RED_BLUE[:1], lens)
    np.testing.assert_array_equal(draw_meshes(image, vertices, faces, RED_BLUE, lens, 0.85, fade),
                                  alone)  # fmt: skip


def test_fading_does_not_depend_on_the_box():
    """The checkerboard belongs to the picture: another person beside changes nothing here."""
    vertices, faces = balls((-0.5, 0.0, 2), (0.45, 0.9, 2))
    lens = camera(40, (41, 63))
    fade = np.full(vertices.shape[:2], 0.4, np.float32)
    image = gray(41, 63)
    both = draw_meshes(image, vertices, faces, RED_BLUE, lens, 0.85, fade)
    alone = draw_meshes(image, vertices[:1], faces, RED_BLUE[:1], lens, 0.85, fade[:1])
    other = draw_meshes(image, vertices[1:], faces, RED_BLUE[1:], lens, 0.85, fade[1:])
    there = (alone != image).any(-1) & (other == image).all(-1)
    assert there.sum() > 200
    np.testing.assert_array_equal(both[there], alone[there])


def test_flat_meshes_have_one_colour():
    vertices, faces = balls((0, 0, 2))
    lens = camera(40, (40, 60))
    picture = draw_meshes(gray(40, 60), vertices, faces, RED_BLUE[:1], lens, 1.0, flat=True)
    inside = visibility(vertices, faces, lens, (40, 60))[0] == 0
    colors, counts = np.unique(picture[inside], axis=0, return_counts=True)
    assert counts.max() > 0.8 * inside.sum()
    assert np.abs(colors[counts.argmax()] - 255 * RED_BLUE[0]).max() < 40
