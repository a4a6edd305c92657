"""The table of points that MHR's skin and an SMPL body's have in common."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.body.kinematics import Skeleton, forward_kinematics, place_points
from pipeline.body.load import load_body
from pipeline.body.mhr_surface import smpl_rotations, surface_table
from pipeline.body.rotations import exp_so3
from pipeline.body.smpl_landmarks import SMPL_VERTICES

MHR_VERTICES = 18439


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def of_smpl_size(body):
    """A body of as many vertices as SMPL's mesh: the free body's first."""
    kept = torch.arange(SMPL_VERTICES)
    return replace(
        body,
        name="SMPL",
        v_template=body.v_template[kept],
        shapedirs=body.shapedirs[kept],
        weights=body.weights[kept],
        joint_regressor=body.joint_regressor[:, kept],
        landmark_regressor=body.landmark_regressor[:, kept],
        faces=body.faces[(body.faces < SMPL_VERTICES).all(1)],
        mannequin=None,
    )


@pytest.mark.parametrize("name", ["body", "of_smpl_size"])
def test_points_are_places_in_triangles(request, name):
    model = request.getfixturevalue(name)
    table = surface_table(model)
    count = len(table.body_vertices)
    assert count == 256
    assert table.vertices.shape == table.weights.shape == (count, 3)
    assert table.vertices.min() >= 0
    assert table.vertices.max() < MHR_VERTICES
    assert len(np.unique(table.body_vertices)) == count
    assert table.body_vertices.max() < len(model.v_template)
    np.testing.assert_allclose(table.weights.sum(1), 1, atol=1e-5)
    assert table.weights.min() >= 0
    # Points of meshes are linear: a moved mesh moves them alike.
    mesh = np.random.default_rng(0).normal(size=(2, MHR_VERTICES, 3))
    np.testing.assert_allclose(
        table.points(mesh + [1, 2, 3]), table.points(mesh) + [1, 2, 3], atol=1e-5
    )


def test_they_are_spread_over_the_body_but_for_fingers(body):
    table = surface_table(body)
    template = body.v_template.numpy()
    chosen = template[table.body_vertices]
    apart = np.linalg.norm(chosen[:, None] - chosen[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert apart.min(1).min() > 0.03
    # Both sides have as many, and so have all parts.
    left = (chosen[:, 0] > 0).mean()
    assert 0.45 < left < 0.55
    fingers = np.abs(template[:, 0]) > 0.8
    assert fingers.any()
    assert not fingers[table.body_vertices].any()


def test_another_mesh_has_none(body, of_smpl_size):
    assert surface_table(replace(body, name="other")) is None
    assert Skeleton.of(replace(body, name="other"), 8).skin is None
    assert Skeleton.of(of_smpl_size, 8).skin is not None


def test_the_skeletons_points_are_the_tables_about_their_middle(body):
    """Posed by moments they are the vertices of the mesh, less their middle."""
    generator = torch.Generator().manual_seed(1)
    turns = 0.4 * torch.randn(2, 24, 3, generator=generator)
    betas, transl_m = (
        torch.randn(2, 10, generator=generator),
        torch.randn(2, 3, generator=generator),
    )
    skeleton = Skeleton.of(body, 8)
    pose = forward_kinematics(skeleton, exp_so3(turns), transl_m, betas)
    points, _ = place_points(skeleton.skin, pose, betas)
    out = body(betas, turns[:, 0], turns[:, 1:].flatten(1), transl_m)
    expected = out.vertices_m[:, surface_table(body).body_vertices]
    torch.testing.assert_close(points, expected - expected.mean(1, keepdim=True), rtol=0, atol=1e-5)


def test_joints_are_turned_by_constants():
    """In their own axes: turning MHR's joints in the camera turns SMPL's alike."""
    random = np.random.default_rng(2)
    joints, _ = np.linalg.qr(random.normal(size=(3, 24, 3, 3)))
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    np.testing.assert_allclose(
        smpl_rotations(turn @ joints), turn @ smpl_rotations(joints), atol=1e-6
    )
    turned = smpl_rotations(np.eye(3)[None])
    np.testing.assert_allclose(
        turned @ turned.swapaxes(-1, -2), np.broadcast_to(np.eye(3), (24, 3, 3)), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.det(turned), 1, atol=1e-6)
