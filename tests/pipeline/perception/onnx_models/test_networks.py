"""ONNX files through ONNX Runtime: what they find, in batches, and what is wrong with them."""

from __future__ import annotations

import math
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from pipeline.core.frame import Frame
from pipeline.core.skeleton import COCO_17, HALPE_26, MHR_70
from pipeline.gpu.device import EngineOptions
from pipeline.perception.base import PerceiverOptions
from pipeline.perception.crops import CropQuery
from pipeline.perception.onnx_models import instanthmr, landmarks, session
from pipeline.perception.onnx_models.instanthmr import InstantHmr
from pipeline.perception.onnx_models.landmarks import LandmarkModel
from pipeline.perception.onnx_models.session import CPU, CUDA, TENSORRT, OnnxError, OnnxModel
from tests.support.onnx_files import colours, dotted, write_network

ON_CPU = torch.device("cpu")
GREY = np.full((240, 320, 3), 128, np.uint8)


def model_of(path):
    return OnnxModel(path, ON_CPU, EngineOptions())


def scene(count, box, seed):
    """A grey picture with a disc on each of ``count`` points inside a box, and the points."""
    random = np.random.default_rng(seed)
    cells = random.permutation(48)[:count]
    # On a grid, so that no disc covers another one.
    grid = np.stack((cells % 6 + 0.5, cells // 6 + 0.5), 1) / (6, 8)
    grid = grid + random.uniform(-0.02, 0.02, grid.shape)
    points = box[:2] + grid * (box[2:] - box[:2])
    frame = Frame(seed, "s", 0, 0.0, dotted(GREY, points, colours(count), 4))
    return CropQuery(frame, box), points


BOXES = [np.array(b, float) for b in ((40, 20, 190, 220), (120, 10, 300, 235), (8, 40, 140, 210))]


@pytest.mark.parametrize("head", ["simcc", "heatmap"])
@pytest.mark.parametrize("batch", [None, 1, 2])
@pytest.mark.parametrize("half", [False, True])
def test_points_are_found_where_they_are(tmp_path, head, batch, half):
    file = write_network(tmp_path / "n.onnx", head, colours(17), batch=batch, half=half)
    network = LandmarkModel(model_of(file), COCO_17)
    queries, points = zip(*(scene(17, box, k) for k, box in enumerate(BOXES)))
    people = network.measure(queries)
    for person, expected in zip(people, points, strict=True):
        assert person.keypoints is COCO_17
        assert person.world_m is None
        assert np.abs(person.landmarks_px - expected).max() < 1.0
        assert np.abs(person.landmarks_px - expected).mean() < 0.35
    # A batch is its members, in any order.
    for query, person in zip(queries, people):
        (alone,) = network.measure([query])
        assert np.allclose(alone.landmarks_px, person.landmarks_px, atol=1e-2)
        assert np.allclose(alone.visibility, person.visibility, atol=1e-3)
    backwards = network.measure(queries[::-1])
    assert np.allclose(backwards[0].landmarks_px, people[-1].landmarks_px, atol=1e-2)


def test_a_point_that_is_not_there_is_not_seen(tmp_path):
    network = LandmarkModel(
        model_of(write_network(tmp_path / "n.onnx", "heatmap", colours(17))), COCO_17
    )
    query, points = scene(17, BOXES[0], 0)
    hidden = dotted(query.frame.image, points[3:4], np.array([[128, 128, 128]]), 7)
    (whole,) = network.measure([query])
    (less,) = network.measure([CropQuery(Frame(0, "s", 0, 0.0, hidden), query.box)])
    assert less.visibility[3] < 0.3 * whole.visibility[3]
    assert np.allclose(np.delete(less.visibility, 3), np.delete(whole.visibility, 3), atol=0.05)


def test_instanthmrs_joints_are_in_the_picture_and_about_the_hips(tmp_path):
    palette = colours(70)
    file = write_network(tmp_path / "i.onnx", "instanthmr", palette, (224, 224))
    network = InstantHmr(model_of(file))
    queries, points = zip(*(scene(24, box, k) for k, box in enumerate(BOXES)))
    for person, expected in zip(network.measure(queries), points, strict=True):
        assert person.keypoints is MHR_70
        assert np.abs(person.landmarks_px[:24] - expected).max() < 0.5
        assert np.allclose(person.landmarks_px[24:48], person.landmarks_px[:24], atol=1e-3)
        assert np.abs(person.world_m[list(MHR_70.hips)].mean(0)).max() < 1e-6
        assert person.world_sigma_m == instanthmr.SIGMA_M
        assert {k: v.shape for k, v in person.extra.items()} == {"cam_trans": (3,)}
        assert (person.mhr.parameters.shape, person.mhr.shape.shape) == ((204,), (45,))
        assert person.mhr.scale is person.mhr.vertices_m is person.surface_m is None
        assert person.visibility.min() == 1


def test_joints_out_of_the_picture_are_not_seen(tmp_path):
    palette = colours(70)
    network = InstantHmr(
        model_of(write_network(tmp_path / "i.onnx", "instanthmr", palette, (224, 224)))
    )
    box = np.array([-60.0, 20, 100, 220])
    query, points = scene(24, box, 0)
    (person,) = network.measure([query])
    outside = points[:, 0] < -10
    assert outside.any()
    # Where there is no disc the network answers with the middle, which is in the picture.
    assert person.visibility[:24][~outside].min() == 1


@pytest.mark.parametrize("form", ["", "false", "true"])
def test_the_condition_has_the_form_that_the_file_asks_for(tmp_path, form):
    palette = colours(70)
    file = write_network(
        tmp_path / "i.onnx", "instanthmr", palette, (224, 224),
        metadata={"cliff_focal": form} if form else None,
    )  # fmt: skip
    focal = 500.0
    network = InstantHmr(model_of(file), PerceiverOptions(focal_px=focal).intrinsics_of)
    query, _ = scene(24, BOXES[1], 0)
    (person,) = network.measure([query])
    # The test's network gives the condition back.
    x, y, side = 210.5, 123.0, 225.0
    if form == "true":
        expected = math.atan((x - 160) / focal), math.atan((y - 120) / focal), side / focal
    else:
        expected = 2 * x / 320 - 1, 2 * y / 240 - 1, side / 320
    assert np.allclose(person.extra["cam_trans"], expected, atol=1e-6)


def test_without_a_lens_the_angles_are_those_of_the_fits_own_camera(tmp_path):
    palette = colours(70)
    meta = {"cliff_focal": "true"}
    file = write_network(tmp_path / "i.onnx", "instanthmr", palette, (224, 224), metadata=meta)
    condition = InstantHmr(model_of(file)).condition(BOXES[0], (240, 320))
    assert np.isclose(condition[2], 200 / math.hypot(240, 320))


def options(path, **more):
    return PerceiverOptions(model=path, **more)


def says(make, path, words, **more):
    with pytest.raises((OnnxError, RuntimeError), match=words) as caught:
        make(options(path, **more))
    assert "\n" not in str(caught.value)
    assert path is None or str(path) in str(caught.value)


@pytest.mark.parametrize("module", [instanthmr, landmarks])
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, module):
    whole = write_network(tmp_path / "n.onnx", "simcc", colours(17)).read_bytes()
    says(module.make, tmp_path / "nowhere.onnx", "there is no such file")
    says(module.make, tmp_path, "there is no such file")
    for name, data in {"cut": whole[: len(whole) // 2], "text": b"a text", "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        says(module.make, tmp_path / name, "no network that ONNX Runtime can run")


def test_another_interface_is_one_line(tmp_path):
    simcc = write_network(tmp_path / "s.onnx", "simcc", colours(17))
    palette = colours(70)
    whole = write_network(tmp_path / "i.onnx", "instanthmr", palette, (224, 224))
    newer = write_network(
        tmp_path / "r.onnx", "instanthmr", palette, (224, 224), leave_out="joints_3d"
    )
    long = write_network(tmp_path / "l.onnx", "instanthmr", palette, (224, 192))
    few = write_network(tmp_path / "f.onnx", "instanthmr", palette[:69], (224, 224))
    says(instanthmr.make, simcc, "another network than InstantHMR")
    says(instanthmr.make, newer, "no joints_3d")
    says(instanthmr.make, long, "no square")
    says(instanthmr.make, few, "69, 2")
    says(landmarks.make, whole, "has one input")
    says(landmarks.make, None, "--estimator onnx needs --model")
    says(landmarks.make, simcc, "17 points and halpe26 has 26; try --keypoints coco17",
         keypoints="halpe26")  # fmt: skip
    odd = write_network(tmp_path / "o.onnx", "simcc", colours(5))
    says(landmarks.make, odd, "5 points and coco17 has 17$")
    with pytest.raises(OnnxError, match="--keypoints is one of coco17.*, not smpl24"):
        landmarks.make(options(simcc, keypoints="smpl24"))


def test_an_output_that_is_no_head_is_one_line(tmp_path):
    file = write_network(tmp_path / "n.onnx", "simcc", colours(17), leave_out="simcc_y")
    says(landmarks.make, file, "neither SimCC's")


def test_a_network_that_fails_when_it_runs_is_one_line(tmp_path):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 64, 48])
    maps = helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 17, 16, 12])
    shape = numpy_helper.from_array(np.array([-1, 17, 16, 13]), "shape")
    node = helper.make_node("Reshape", ["image", "shape"], ["maps"])
    graph = helper.make_graph([node], "wrong", [image], [maps], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "w.onnx")
    says(landmarks.make, tmp_path / "w.onnx", "cannot be run|can run")


@pytest.mark.parametrize("size", [(200_000, 200_000), (64, 48)])
def test_an_input_larger_than_any_crop_reserves_nothing(tmp_path, size):
    batch = None if size[0] > 64 else 10**6
    file = write_network(tmp_path / "h.onnx", "simcc", colours(17), size, batch)
    says(landmarks.make, file, "far more than crops have")


def test_whole_numbers_are_no_input(tmp_path):
    image = helper.make_tensor_value_info("image", TensorProto.INT64, ["N", 3, 64, 48])
    maps = helper.make_tensor_value_info("maps", TensorProto.INT64, ["N", 3, 64, 48])
    node = helper.make_node("Identity", ["image"], ["maps"])
    graph = helper.make_graph([node], "whole", [image], [maps])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "w.onnx")
    says(landmarks.make, tmp_path / "w.onnx", "not floating-point numbers")


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch):
    file = write_network(tmp_path / "n.onnx", "simcc", colours(17))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeError, match=r"pip install 'bodystream\[onnx\]'"):
        landmarks.make(options(file))


def test_the_device_chooses_the_providers():
    gpu, auto = torch.device("cuda", 0), EngineOptions()
    every = [TENSORRT, CUDA, CPU]
    assert session.providers(ON_CPU, auto, every) == [CPU]
    assert session.providers(gpu, auto, every) == [CUDA, CPU]
    assert session.providers(gpu, auto, [CPU]) == [CPU]
    first, *others = session.providers(gpu, EngineOptions("tensorrt", half=False), every)
    assert first == (TENSORRT, {"trt_fp16_enable": False})
    assert others == [CUDA, CPU]


def test_the_report_says_what_computes(tmp_path):
    file = write_network(tmp_path / "n.onnx", "simcc", colours(26))
    (line,) = LandmarkModel(model_of(file), HALPE_26).reports
    assert line.startswith("n.onnx: ONNX Runtime ")
    assert "CPU (" in line
    # A CPU build of ONNX Runtime on a machine with a GPU.
    asked = OnnxModel(file, torch.device("cuda"), EngineOptions())
    assert asked.report.endswith("install onnxruntime-gpu instead of onnxruntime")
