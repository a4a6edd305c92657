"""InstantHMR's bodies as MHR bodies, and what the rig adds to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.body.load import load_body
from pipeline.body.mhr_surface import surface_table
from pipeline.core.camera import default_intrinsics, project
from pipeline.core.frame import Frame
from pipeline.core.skeleton import MHR_70
from pipeline.gpu.device import EngineOptions
from pipeline.perception.base import PerceiverOptions
from pipeline.perception.crops import Crop, CropQuery
from pipeline.perception.onnx_models import instanthmr
from pipeline.perception.onnx_models.instanthmr import InstantHmr, person_of, placed, with_rig
from pipeline.perception.onnx_models.session import OnnxModel
from pipeline.sam3d.posed import PosedRig
from pipeline.sam3d.release import RIG
from pipeline.sam3d.rig import Rig
from pipeline.weights.torch_file import CheckpointError
from tests.support.onnx_files import colours, write_network
from tests.support.sam3d_release import keypoint_vertices, upright_network, write_rig

LENS = default_intrinsics(240, 320)
BLACK = Frame(0, "s", 0, 0.0, np.zeros((240, 320, 3), np.uint8))
QUERY = CropQuery(BLACK, np.array([60.0, 20, 200, 220]))
HIPS = list(MHR_70.hips)


@pytest.fixture(scope="module")
def tensors():
    faces = torch.arange(36874 * 3).reshape(-1, 3) % 18439
    return upright_network()[1] | {"character_torch.mesh.faces": faces}


@given(
    st.integers(0, 10_000), st.floats(-3, 3), st.floats(-2, 2), st.floats(2, 20),
    st.floats(200, 3000),
)  # fmt: skip
def test_a_body_is_put_where_its_points_are_in_the_picture(seed, x, y, z, focal):
    joints_m = np.random.default_rng(seed).uniform(-0.9, 0.9, (70, 3))
    lens = default_intrinsics(720, 1280, focal_px=focal)
    points = project(joints_m + [x, y, z], lens)
    np.testing.assert_allclose(placed(joints_m, points, lens), [x, y, z], atol=1e-3)


def test_the_mesh_and_the_points_of_the_skin_belong_to_the_joints(tensors):
    """Where joints and parameters say one body, as in the network's labels, the skin is about the
    joints as in the rig, and the mesh is on the person in the picture."""
    table = surface_table(load_body())
    posed_rig = PosedRig(Rig(tensors), (table.vertices, table.weights), mesh=True)
    parameters, shape = np.zeros((1, 204), np.float32), np.zeros((1, 45), np.float32)
    parameters[:, 3:6] = 0.3, -0.5, 0.2
    posed = posed_rig(parameters, shape)
    nose, *_ = own = keypoint_vertices()
    joints_m = posed.vertices_m[0, own]
    # As in the real rig.
    joints_m[HIPS] = posed.hips_m[0]
    translation = np.array([0.1, -0.8, 4.0])
    crop = Crop.around(QUERY.box, instanthmr.GROWTH, 224, 224)
    in_crop = (project(joints_m + translation, LENS) - crop.to_image[:, 2]) / crop.scale
    found = {
        "mhr_params": parameters[0], "shape_params": shape[0], "cam_trans": np.zeros(3),
        "joints_3d": joints_m, "joints_2d": (in_crop + 0.5) * 2 / 224 - 1,
    }  # fmt: skip
    person = with_rig(person_of(QUERY, crop, found, LENS), posed, 0, posed_rig.faces)
    np.testing.assert_allclose(person.mhr.translation_m, translation, atol=2e-3)
    mesh_m = person.mhr.vertices_m - person.mhr.translation_m
    expected = table.points(mesh_m) - joints_m[HIPS].mean(0)
    np.testing.assert_allclose(person.surface_m, expected, atol=1e-4)
    np.testing.assert_allclose(person.world_m[0], mesh_m[nose] - joints_m[HIPS].mean(0), atol=1e-5)
    nose_px = project(person.mhr.vertices_m[nose], LENS)
    np.testing.assert_allclose(nose_px, person.landmarks_px[0], atol=0.5)
    assert person.surface_sigma_m == instanthmr.SURFACE_SIGMA_M
    assert person.start_rotations.shape == (24, 3, 3)
    assert person.mhr.faces.shape == (36874, 3)


def test_the_rig_is_used_where_the_user_has_it(tmp_path, monkeypatch, tensors):
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path / "cache"))
    file = write_network(tmp_path / "i.onnx", "instanthmr", colours(70), (224, 224))
    model = OnnxModel(file, torch.device("cpu"), EngineOptions())

    def rig(mesh):
        return instanthmr._rig(
            PerceiverOptions(model_folder=tmp_path, body=load_body(), mhr_mesh=mesh)
        )

    assert rig(mesh=True) is None
    path = write_rig(tmp_path / "mhr-rig" / RIG, tensors)
    for mesh in (False, True):
        network = InstantHmr(model, rig=rig(mesh))
        assert network.has_mhr == mesh
        assert network.has_skin
        assert network.reports[-1].startswith("MHR rig: points of the skin")
        (person,) = network.measure([QUERY])
        assert len(person.surface_m) > 100
        assert (person.mhr.vertices_m is not None) == mesh
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError):
        rig(mesh=False)
