"""BlazePose rebuilt in torch, held against LiteRT; and files that are no models."""

import cv2
import numpy as np
import pytest
import torch

from pipeline.perception.blazepose.tflite import read_graph
from pipeline.perception.blazepose.tflite_torch import GraphModule
from tests.support.paths import SAMPLES

MODELS = ("pose_detection.tflite", "pose_landmark_full.tflite")


@pytest.fixture(scope="module", params=MODELS)
def model(request, files):
    """A model's graph, module, and LiteRT's interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    path = files[request.param]
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    graph = read_graph(path)
    return graph, GraphModule(graph).eval(), interpreter


def picture(side, frame):
    capture = cv2.VideoCapture(str(SAMPLES / "pitch.mp4"))
    capture.set(cv2.CAP_PROP_POS_FRAMES, frame)
    image = capture.read()[1][60:660, 200:800, ::-1]
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def lite(interpreter, graph, image):
    """LiteRT's outputs (1, ...) for an image (H, W, 3), in the graph's order."""
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    by_name = {d["name"]: d["index"] for d in interpreter.get_output_details()}
    return [interpreter.get_tensor(by_name[graph.tensors[k].name]) for k in graph.outputs]


def images_of(graph, kind, count=1):
    side = graph.tensors[graph.inputs[0]].shape[1]
    if kind == "noise":
        return np.random.default_rng(2).random((count, side, side, 3), dtype=np.float32)
    return np.stack([picture(side, 17 * k) for k in range(count)])


@pytest.mark.weights
@pytest.mark.parametrize("kind", ["noise", "clip"])
@torch.inference_mode()
def test_torch_says_what_litert_says(model, kind):
    graph, module, interpreter = model
    image = images_of(graph, kind)
    ours = module(torch.from_numpy(image).permute(0, 3, 1, 2))
    # Noise drives the masks' logits beyond a thousand, and rounding with them.
    tolerance = 1e-3 if kind == "noise" else 3e-4
    for mine, theirs in zip(ours, lite(interpreter, graph, image[0]), strict=True):
        assert mine.shape == theirs.shape
        # A presence next to nought is the sigmoid of a large number.
        scale = max(np.abs(theirs).max(), 0.01)
        assert np.abs(mine.numpy() - theirs).max() <= tolerance * scale


@pytest.mark.weights
@torch.inference_mode()
def test_a_batch_is_its_images(model):
    graph, module, _ = model
    images = torch.from_numpy(images_of(graph, "clip", 3)).permute(0, 3, 1, 2)
    together = module(images)
    for k in range(3):
        for one, all_ in zip(module(images[k : k + 1]), together, strict=True):
            scale = float(one.abs().max())
            torch.testing.assert_close(all_[k : k + 1], one, atol=1e-4 * scale, rtol=0)


@pytest.mark.weights
@torch.inference_mode()
def test_outputs_that_nobody_wants_are_not_computed(model):
    graph, module, _ = model
    image = torch.from_numpy(images_of(graph, "clip")).permute(0, 3, 1, 2)
    first = GraphModule(graph, outputs=[0])
    assert len(first.steps) < len(module.steps)
    torch.testing.assert_close(first(image)[0], module(image)[0])


@pytest.mark.weights
@torch.inference_mode()
def test_half_precision_is_near(model):
    graph, module, _ = model
    image = torch.from_numpy(images_of(graph, "clip")).permute(0, 3, 1, 2)
    # bfloat16 has half precision's kernels on every CPU, and an eighth of its digits.
    half = GraphModule(graph).to(torch.bfloat16)(image.to(torch.bfloat16))
    full = module(image)
    assert half[0].dtype == torch.bfloat16
    scale = float(full[0].abs().max())
    assert float((half[0].float() - full[0]).abs().mean()) < 0.02 * scale


@pytest.mark.slow
@pytest.mark.weights
def test_the_whole_graph_can_be_traced(model):
    graph, module, _ = model
    image = torch.from_numpy(images_of(graph, "clip")).permute(0, 3, 1, 2)
    with torch.no_grad():
        exported = torch.export.export(module, (image,))
        for one, two in zip(exported.module()(image), module(image), strict=True):
            torch.testing.assert_close(one, two)


@pytest.mark.weights
@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_file_is_an_error_of_one_line_or_reads(files, tmp_path, seed):
    draw = np.random.default_rng(seed)
    data = bytearray(files[MODELS[seed % 2]].read_bytes())
    if seed % 3 == 0:
        data = data[: int(draw.integers(0, len(data)))]
    else:
        # The tables lie at the file's ends, weights between them.
        for at in draw.integers(0, 4000, 40):
            data[int(at) if seed % 3 == 1 else -1 - int(at)] = int(draw.integers(256))
    path = tmp_path / "damaged.tflite"
    path.write_bytes(data)
    said = ""
    try:
        GraphModule(read_graph(path))
    except ValueError as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0" * 64, b"\x10\0\0\0TFL3" + b"\xff" * 64])
def test_no_model_is_named(tmp_path, data):
    path = tmp_path / "a.tflite"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.tflite is no TensorFlow Lite model"):
        read_graph(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_graph(tmp_path / "none.tflite")
