"""Choosing a renderer, the numbers of people, and the words in the corner."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import renderers as bench
from render.overlay import draw_hud, draw_labels, hud_size, make_renderer, silhouette
from render.rasterize_cpu import draw_meshes, visibility


@pytest.mark.parametrize("name", ["auto", "numba"])
def test_the_live_renderer_draws_as_the_rasteriser(name):
    mesh = trimesh.creation.capsule(height=1, radius=0.3)
    vertices = (mesh.vertices + (0, 0, 3)).astype(np.float32)[None]
    lens = np.array([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]])
    image = np.full((60, 80, 3), 90, np.uint8)
    arguments = (image, vertices, mesh.faces, np.array([[0.2, 0.9, 0.4]]), lens)
    renderer = make_renderer(name)
    assert renderer.name == "numba"
    for alpha in (0.3, 1.0):
        drawn = renderer.draw(*arguments, alpha=alpha)
        np.testing.assert_array_equal(drawn, draw_meshes(*arguments, alpha=alpha))
    renderer.close()
    shown = silhouette(vertices, mesh.faces, lens, (60, 80))
    np.testing.assert_array_equal(shown, visibility(vertices, mesh.faces, lens, (60, 80))[0])
    assert set(np.unique(shown)) == {-1, 0}


def test_another_renderer_is_refused():
    with pytest.raises(
        ValueError, match="no renderer 'vulkan'; choose auto, numba, gpu or pyrender"
    ):
        make_renderer("vulkan")


@pytest.mark.parametrize("value", [0, 128, 255])
def test_words_can_be_read_on_any_background(value):
    image = np.full((720, 1280, 3), value, np.uint8)
    draw_hud(image, ["27.3 fps   2 people", "143 ms behind"])
    panel = image[25, 15:].astype(int)[: np.argmax(image[25, 15:, 0] == value) or None]
    corner = image[:80, :260]
    # White letters on something dark, and nothing elsewhere.
    assert (corner > 240).all(axis=2).sum() > 200
    assert np.median(panel) <= 64
    assert (image[100:] == value).all()
    assert (image[:, 640:] == value).all()


@pytest.mark.parametrize("size", [(720, 1280), (1080, 1920), (97, 131), (20, 30)])
def test_words_in_the_corner_alone_are_those_in_the_picture(size):
    lines = ["27.3 fps   2 people", "143 ms behind"]
    before = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    whole = before.copy()
    draw_hud(whole, lines)
    height, width = hud_size(size, lines)
    assert all(part % 2 == 0 or part == side for part, side in zip((height, width), size))
    corner = before[:height, :width].copy()
    draw_hud(corner, lines, size)
    before[:height, :width] = corner
    np.testing.assert_array_equal(before, whole)


def test_words_grow_with_the_picture_and_fit_small_ones():
    def extent(height, width):
        image = np.zeros((height, width, 3), np.uint8)
        draw_hud(image, ["30.0 fps"])
        rows, columns = image.any(axis=2).nonzero()
        return rows.max(), columns.max()

    small, large = extent(360, 640), extent(1080, 1920)
    assert large[0] > 1.6 * small[0]
    assert small[1] < 320
    for size in ((1, 1), (16, 16), (3, 400)):
        draw_hud(np.zeros((*size, 3), np.uint8), ["30.0 fps", ""])
    nothing = np.zeros((50, 50, 3), np.uint8)
    draw_hud(nothing, [])
    assert not nothing.any()


def test_the_benchmark_runs_and_says_where(capsys):
    bench.main(["--rounds", "2", "--numba-only"])
    lines = capsys.readouterr().out.splitlines()
    assert "cores" in lines[0]
    assert "13824 triangles" in lines[0]
    assert [line.split()[:2] for line in lines[2:]] == [
        [size, people] for size in ("1280x720", "1920x1080") for people in ("1", "4")
    ]
    assert all(0 < float(line.split()[2]) <= float(line.split()[4]) for line in lines[2:])


def test_the_benchmarks_figure_is_closed_and_as_tall_as_said():
    vertices, faces = bench.mannequin()
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    image, bodies, _, lens = bench.scene(vertices, 1, 720, 1280)
    rows = (silhouette(bodies, faces, lens, image.shape[:2]) >= 0).any(axis=1).nonzero()[0]
    assert np.ptp(rows) == pytest.approx(400, abs=25)
    assert mesh.volume == pytest.approx(0.09, abs=0.03)  # positive: faces look outwards


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-500, 1500), st.floats(-500, 1000)), min_size=1, max_size=40),
    st.sampled_from([0, 90, 255]),
)
def test_labels_lie_in_the_picture_and_cover_no_other(places, value):
    image = np.full((360, 640, 3), value, np.uint8)
    colors = np.tile([[0.3, 0.6, 1.0]], (len(places), 1))
    words = [str(n) for n in range(len(places))]
    draw_labels(image, np.array(places), words, colors)
    # Plates are dark with an edge; two that touched would be one piece, larger than either.
    dark = (np.abs(image.astype(int) - 16).max(axis=-1) <= 4).astype(np.uint8)
    assert dark.any()
    count, _, stats, _ = cv2.connectedComponentsWithStats(dark)
    assert all(stats[k, cv2.CC_STAT_HEIGHT] < 40 for k in range(1, count))
    first = image.copy()
    draw_labels(first, np.array(places)[:1], words[:1], colors[:1])
    assert (first > 200).all(axis=-1).any()
