"""What of bodies is drawn: the style, limbs that are not seen, numbers, colours."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from app.body_renderer import BodyRenderer, colors_of, drawn_mesh, joint_influence, meshes_for_gpu
from app.config import RenderConfig
from app.render_loop import RenderLoop
from pipeline.body.load import load_body
from pipeline.core.people import Bodies
from pipeline.core.skeleton import JOINT_NAMES
from pipeline.fitting.device_bodies import DeviceBodies, DeviceMeshes
from render.base import MeshRows
from render.palette import track_color
from tests.support.bodies import mhr_body, standing

BODY = load_body()
LENS = np.array([[300.0, 0, 120], [0, 300.0, 160], [0, 0, 1]])
STYLES = ["mannequin", "anatomical", "skeleton", "wireframe", "silhouette"]
LEGS = [i for i, name in enumerate(JOINT_NAMES) if name.split("_")[-1] in ("knee", "ankle", "foot")]


def picture(bodies: Bodies, **settings) -> np.ndarray:
    renderer = BodyRenderer("numba", RenderConfig(**settings), BODY)
    image = np.full((320, 240, 3), 60, np.uint8)
    drawn = renderer.draw([image], [bodies], LENS)[0]
    renderer.close()
    assert (image == 60).all()
    return drawn


def test_the_mannequin_is_drawn_and_the_body_where_it_is_asked_for():
    bodies = standing()
    bare = replace(bodies, shown_m=None)
    assert np.array_equal(picture(bodies, style="anatomical"), picture(bare))
    assert np.array_equal(picture(bare, style="anatomical"), picture(bare))
    assert not np.array_equal(picture(bodies), picture(bare))
    assert drawn_mesh(bare) is bodies.vertices_m


def on_device(bodies: Bodies) -> DeviceBodies:
    """The same bodies, with their meshes on a device still."""
    pair = np.stack([bodies.vertices_m, bodies.shown_m], 1)[:, None]
    kept = DeviceMeshes(torch.from_numpy(pair))
    here = range(len(bodies))
    values = {field.name: getattr(bodies, field.name) for field in fields(bodies)}
    meshes = {"vertices_m": kept[here, 0, 0], "shown_m": kept[here, 0, 1]}
    return DeviceBodies(**(values | meshes))


@pytest.mark.parametrize("shown", [True, False])
def test_a_gpu_draws_meshes_where_they_were_fitted(shown):
    bodies = standing((1, 2), beside_m=0.5)
    expected = drawn_mesh(bodies) if shown else bodies.vertices_m
    assert meshes_for_gpu([bodies], shown=shown)[0] is expected
    lazy = on_device(bodies)
    rows = meshes_for_gpu([lazy], shown=shown)[0]
    assert isinstance(rows, MeshRows)
    assert np.array_equal(rows.tensor[torch.from_numpy(rows.rows)].numpy(), expected)
    assert lazy._vertices.meshes._host is None
    # Where the host has them alone, it uploads them.
    lazy._vertices.meshes.move_to_host()
    assert np.array_equal(meshes_for_gpu([lazy], shown=shown)[0], expected)


@pytest.mark.parametrize("style", ["mannequin", "anatomical"])
def test_the_renderer_takes_its_meshes_from_the_gpu_if_it_draws_there(style):
    class Together:
        together = True

        def draw_batch(self, images, meshes, *_):
            taken.append(meshes)
            return [image.copy() for image in images]

    taken = []
    renderer = BodyRenderer("numba", RenderConfig(style=style), BODY)
    bodies = on_device(standing())
    image = np.full((320, 240, 3), 60, np.uint8)
    drawn = renderer.draw([image], [bodies], LENS)[0]
    assert np.array_equal(drawn, picture(standing(), style=style))
    renderer._renderer = Together()
    renderer.draw([image], [bodies], LENS)
    assert [isinstance(each, MeshRows) for each in taken[0]] == [True]
    assert taken[0][0].rows.tolist() == [0 if style == "anatomical" else 1]


def with_mhr(bodies: Bodies, tracks=(1,)) -> Bodies:
    """Bodies with a mesh of three corners of their own beside each."""
    corners = np.array([[-0.6, -0.4, 2], [-0.6, 0.4, 2], [-0.2, 0, 2]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 1]])
    mhr = {t: replace(mhr_body(), vertices_m=corners + [t - 1, 0, 0], faces=faces) for t in tracks}
    return replace(bodies, mhr=mhr)


@pytest.mark.parametrize("style", [style for style in STYLES if style != "skeleton"])
def test_mhrs_own_meshes_are_drawn_in_place_of_the_bodies(style):
    bodies = with_mhr(standing())
    drawn = picture(bodies, draw="mhr", style=style) != 60
    assert drawn.any()
    # The triangle is on the left, and the body in the middle is not there.
    assert not drawn[:, 100:].any()
    assert np.array_equal(picture(bodies, style=style), picture(standing(), style=style))
    # Without any the fitted bodies are drawn, and a skeleton is SMPL's in any case.
    assert np.array_equal(
        picture(standing(), draw="mhr", style=style), picture(bodies, style=style)
    )
    skeleton = picture(bodies, draw="mhr", style="skeleton")
    assert np.array_equal(skeleton, picture(bodies, style="skeleton"))


@pytest.mark.parametrize("tracks", [[(1,), ()], [(), (1, 2)]])
def test_mhr_meshes_of_some_frames_of_a_window(tracks):
    """A frame without a body, between others, stays as it is; colours are the tracks'."""
    renderer = BodyRenderer("numba", RenderConfig(draw="mhr"), BODY)
    window = [with_mhr(standing(each or (1,)), each) for each in tracks]
    images = [np.full((320, 240, 3), 60, np.uint8)] * len(window)
    for each, drawn in zip(tracks, renderer.draw(images, window, LENS), strict=True):
        assert (drawn != 60).any() == bool(each)
        alone = (
            renderer.draw(images[:1], [with_mhr(standing(each), each)], LENS) if each else images
        )
        assert np.array_equal(drawn, alone[0])
    shapes = renderer._shapes(window)
    assert [len(points) for points in shapes.points_m] == [len(each) for each in tracks]
    assert {points.shape[1:] for points in shapes.points_m} == {(3, 3)}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_draws_people_and_leaves_hidden_legs_out(style):
    bodies = standing()
    whole = picture(bodies, style=style)
    assert (whole != 60).any(axis=-1).mean() > 0.01
    visibility = bodies.joint_visibility.copy()
    visibility[:, LEGS] = 0
    half = replace(bodies, joint_visibility=visibility)
    knee_px = round(float(bodies.joints_m[0, 4, 1] / bodies.joints_m[0, 4, 2] * 300 + 160))
    cut = picture(half, style=style)
    assert (cut[knee_px + 10 :] == 60).all()
    assert (whole[knee_px + 10 :] != 60).any()
    assert np.array_equal(cut[:120], whole[:120])
    assert np.array_equal(picture(half, style=style, draw_unseen=True), whole)


def test_a_limb_fades_from_the_last_seen_joint_to_the_first_hidden_one():
    bodies = standing()
    visibility = bodies.joint_visibility.copy()
    visibility[:, LEGS] = 0
    opacity = BodyRenderer("numba", RenderConfig(), BODY)._opacity(
        replace(bodies, joint_visibility=visibility)
    )
    vertices, hip, knee = BODY.v_template.numpy(), *BODY.joint_template.numpy()[[1, 4]]
    thigh = BODY.weights.numpy()[:, 1] > 0.95
    along = (vertices[thigh] - hip) @ (knee - hip) / ((knee - hip) @ (knee - hip))
    np.testing.assert_allclose(opacity[0, thigh], 1 - np.clip(along, 0, 1), atol=0.06)
    assert opacity[0, BODY.weights.numpy()[:, LEGS].sum(axis=1) > 0.99].max() < 1e-3
    assert opacity[0, BODY.weights.numpy()[:, 15] > 0.9].min() == pytest.approx(1)


def test_the_influence_of_joints_sums_to_one():
    influence = joint_influence(BODY)
    assert influence.shape == (len(BODY.v_template), 24)
    assert influence.min() >= -1e-6
    np.testing.assert_allclose(influence.sum(axis=1), 1, atol=2e-3)


def test_numbers_stand_over_heads():
    bodies = standing((7, 12), beside_m=0.9)
    plain, labelled = picture(bodies), picture(bodies, labels=True)
    changed = (plain != labelled).any(axis=-1)
    head = bodies.joints_m[0, 15]
    y = round(float(head[1] / head[2] * 300 + 160))
    assert changed[: y - 5].any()
    assert not changed[y + 5 :].any()
    assert np.array_equal(colors_of(bodies), [track_color(7), track_color(12)])


def test_a_body_that_is_not_drawn_has_no_number():
    bodies = standing((7, 12), beside_m=0.9)
    hidden = replace(bodies, joint_visibility=np.zeros_like(bodies.joint_visibility))
    assert (picture(hidden, labels=True) == 60).all()
    whole = picture(bodies, labels=True)
    assert np.array_equal(picture(hidden, labels=True, draw_unseen=True), whole)


def test_a_frame_without_people_stays_as_it_is():
    none = Bodies.none(len(BODY.v_template))
    for style in ("mannequin", "skeleton", "wireframe", "silhouette"):
        assert (picture(none, style=style, labels=True) == 60).all()


@pytest.mark.parametrize(
    ("hud", "live", "shown"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_the_numbers_in_the_corner_are_for_live_sources(hud, live, shown):
    config = SimpleNamespace(render=RenderConfig(hud=hud))
    loop = RenderLoop(config, SimpleNamespace(source=SimpleNamespace(live=live)), [], None)
    assert loop._has_hud() == shown


def test_off_leaves_the_picture_as_it_is():
    image = np.random.default_rng(1).integers(0, 255, (320, 240, 3), np.uint8)
    renderer = BodyRenderer("numba", RenderConfig(style="off", labels=True), BODY)
    (drawn,) = renderer.draw([image], [standing()], LENS)
    assert np.array_equal(drawn, image)
    assert not np.shares_memory(drawn, image), "words are written into it"
