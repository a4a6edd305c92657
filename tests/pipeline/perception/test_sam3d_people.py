"""SAM 3D Body as a network for crops: its answers are people as the rest of the program takes
them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.body.load import load_body
from pipeline.body.mhr_surface import surface_table
from pipeline.core.camera import default_intrinsics, project
from pipeline.core.frame import Frame
from pipeline.core.skeleton import MHR_70
from pipeline.perception.base import PerceiverOptions
from pipeline.perception.crops import CropQuery
from pipeline.perception.sam3d_people import SIGMA_M, Sam3dPeople
from pipeline.sam3d.engine import Sam3dEngine
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.rig import Rig
from tests.pipeline.sam3d.golden_rule import TINY, SyntheticRig, fill, rig_tensors
from tests.support.sam3d_release import keypoint_vertices, upright_network

BOXES = np.array([[40.0, 20, 180, 200], [150, 30, 300, 190], [-60, 10, 90, 220]])


@pytest.fixture(scope="module")
def network():
    weights, tensors = upright_network()
    made = Sam3dBody(TINY)
    made.load_state_dict(weights)
    return made.prepare(Rig(tensors))


@pytest.fixture(scope="module")
def frames():
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (2, 240, 320, 3), np.uint8)
    return [Frame(k, "s", 0, k / 30, image) for k, image in enumerate(images)]


def measured(network, queries, mesh=False, **lens):
    people = Sam3dPeople(Sam3dEngine(network), PerceiverOptions(**lens).intrinsics_of, mesh)
    return people.measure(queries)


def test_skin_and_joints_are_those_of_the_body_that_is_fitted(network, frames):
    """The network of these tests sees the free body at rest, so its own points come out."""
    body = load_body()
    table = surface_table(body)
    skin = (table.vertices, table.weights)
    people = Sam3dPeople(Sam3dEngine(network, skin=skin), PerceiverOptions().intrinsics_of)
    assert people.has_skin
    assert not Sam3dPeople(Sam3dEngine(network), PerceiverOptions().intrinsics_of).has_skin
    rest, turn = body.v_template.numpy(), np.diag([1, -1, -1])
    for person in people.measure(queries_of(frames)):
        assert person.surface_m.shape == (len(table.body_vertices), 3)
        nose_m = (body.landmark_regressor.numpy() @ rest)[0]
        expected = (rest[table.body_vertices] - nose_m) @ turn
        np.testing.assert_allclose(person.surface_m - person.world_m[0], expected, atol=1e-5)
        upright = np.broadcast_to(turn, (24, 3, 3))
        np.testing.assert_allclose(person.start_rotations, upright, atol=1e-5)


def queries_of(frames):
    return [CropQuery(frame, box) for frame, box in zip((frames[0], frames[1], frames[0]), BOXES)]


def test_people_are_metric_about_their_hips_and_on_their_picture(network, frames):
    lens = default_intrinsics(240, 320)
    for person in measured(network, queries_of(frames)):
        assert person.keypoints is MHR_70
        assert (person.world_sigma_m, person.roi, person.mask) == (SIGMA_M, -1, None)
        assert np.abs(person.world_m[list(MHR_70.hips)].mean(0)).max() < 1e-6
        # Upright, with the camera's y down; the person's own left is on the right.
        ankle, shoulder = (person.world_m[MHR_70.index(f"left_{n}")] for n in ("ankle", "shoulder"))
        assert ankle[1] > 0.6
        assert shoulder[1] < -0.3
        assert shoulder[0] > 0.1
        body = person.mhr
        np.testing.assert_allclose(project(body.keypoints_m, lens), person.landmarks_px, atol=0.02)
        moved = body.keypoints_m - body.keypoints_m[list(MHR_70.hips)].mean(0)
        np.testing.assert_allclose(moved, person.world_m, atol=1e-5)
        assert body.vertices_m is None
        assert body.parameters.shape == (204,)
        assert (body.shape.shape, body.scale.shape) == ((45,), (28,))


def test_the_answer_is_in_the_box_whatever_the_lens(network, frames):
    query = queries_of(frames)[0]
    for lens in ({"fov_deg": 30.0}, {"focal_px": 900.0}, {"intrinsics": np.diag([500.0, 500, 1])}):
        (person,) = measured(network, [query], **lens)
        low, high = person.landmarks_px.min(0), person.landmarks_px.max(0)
        assert (low > query.box[:2] - 20).all()
        assert (high < query.box[2:] + 20).all()
        camera = PerceiverOptions(**lens).intrinsics_of((240, 320))
        np.testing.assert_allclose(
            project(person.mhr.keypoints_m, camera), person.landmarks_px, atol=0.02
        )


def test_a_point_out_of_the_picture_is_not_seen(network, frames):
    person = measured(network, queries_of(frames))[2]
    outside = person.landmarks_px[:, 0] < -0.5
    assert outside.any()
    np.testing.assert_array_equal(person.visibility, (~outside).astype(np.float32))
    assert person.box_px[0] >= -0.5


def test_a_batch_is_its_members_in_any_order(network, frames):
    queries = queries_of(frames)
    together = measured(network, queries)
    for query, person in zip(queries, together, strict=True):
        (alone,) = measured(network, [query])
        np.testing.assert_allclose(alone.landmarks_px, person.landmarks_px, atol=1e-3)
    backwards = measured(network, queries[::-1])
    np.testing.assert_allclose(backwards[0].mhr.parameters, together[-1].mhr.parameters, atol=1e-5)


def test_meshes_come_where_they_are_asked_for_and_lie_on_their_keypoints(network, frames):
    for person in measured(network, queries_of(frames), mesh=True):
        body = person.mhr
        assert body.vertices_m.shape == (18439, 3)
        assert body.faces.shape == (36874, 3)
        own = body.vertices_m[keypoint_vertices()]
        np.testing.assert_allclose(own, body.keypoints_m, atol=1e-5)


def test_frames_are_read_where_they_are(frames):
    # A network whose answer depends on the pixels.
    seeing = Sam3dBody(TINY)
    fill(seeing)
    seeing.prepare(Rig(rig_tensors(SyntheticRig(seed=0, hidden=8))))
    queries = queries_of(frames)
    there = {f: replace(f, on_device=torch.from_numpy(f.image), pixels=0 * f.image) for f in frames}
    moved = [replace(query, frame=there[query.frame]) for query in queries]
    people, others = measured(seeing, queries), measured(seeing, moved)
    for here, other in zip(people, others, strict=True):
        np.testing.assert_array_equal(here.mhr.parameters, other.mhr.parameters)
    assert not np.array_equal(people[0].mhr.parameters, people[2].mhr.parameters)
