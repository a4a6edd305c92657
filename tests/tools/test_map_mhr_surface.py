"""Closest points of meshes, on which the map of MHR's skin stands."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.load import load_body
from tools.map_mhr_surface.mesh import Mesh, closest_shares


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31 - 1))
def test_no_point_of_a_triangle_is_closer(seed):
    random = np.random.default_rng(seed)
    triangles, points = random.normal(size=(20, 3, 3)), 2 * random.normal(size=(20, 3))
    shares = closest_shares(points, triangles)
    assert shares.min() >= -1e-12
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-9)
    near = np.linalg.norm((shares[..., None] * triangles).sum(-2) - points, axis=-1)
    others = random.dirichlet(np.full(3, 0.5), size=(500, 20))
    apart = np.linalg.norm((others[..., None] * triangles).sum(-2) - points, axis=-1)
    assert (near <= apart.min(0) + 1e-9).all()


def test_points_off_the_skin_are_found_on_the_side_they_face():
    """Just off it, along the normal, each point's closest one is where it came from; with the
    normal turned round, the far side of a hand or ear is not taken for it."""
    body = load_body()
    mesh = Mesh.of(body.v_template.numpy().astype(np.float64), body.faces.astype(np.int64))
    corners = mesh.faces[::50]
    middle = np.full((len(corners), 3), 1 / 3)
    places, normals = mesh.at(corners, middle), mesh.normals[::50]
    found, shares, cosine = mesh.closest(places + 1e-4 * normals, normals)
    np.testing.assert_allclose(mesh.at(found, shares), places, atol=2e-4)
    assert cosine.min() > 0.9
    _, _, turned = mesh.closest(places, -normals)
    assert np.median(turned) > 0
