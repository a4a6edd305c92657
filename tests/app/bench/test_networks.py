"""The random networks of the benchmark: size, interface and the person that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.bench import networks, subject
from app.bench.rows import ROWS, Settings
from pipeline.core.frame import Frame
from pipeline.core.skeleton import COCO_17, MHR_70
from pipeline.gpu.device import EngineOptions
from pipeline.perception.crop_tracking import in_picture, strayed
from pipeline.perception.crops import CropQuery
from pipeline.perception.onnx_models.instanthmr import InstantHmr
from pipeline.perception.onnx_models.landmarks import LandmarkModel
from pipeline.perception.onnx_models.session import OnnxModel

SIZE = (720, 1280)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    for name, write in networks.WRITERS.items():
        write(folder / f"{name}.onnx")
    return folder


def network(folder, name):
    model = OnnxModel(folder / f"{name}.onnx", torch.device("cpu"), EngineOptions())
    return InstantHmr(model) if name == "instanthmr" else LandmarkModel(model, COCO_17)


def test_they_are_as_large_as_the_published_ones(made):
    millions = {name: (made / f"{name}.onnx").stat().st_size / 4e6 for name in networks.WRITERS}
    assert 15 < millions["instanthmr"] < 19
    assert 8 < millions["onnx"] < 15


@pytest.mark.parametrize("name", networks.WRITERS)
def test_the_person_stays_where_it_is(made, name):
    """Otherwise people would be lost, and empty windows timed."""
    network_ = network(made, name)
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    box = first = np.array([500.0, 150, 620, 560])
    for k in range(6):
        (person,) = network_.measure([CropQuery(Frame(k, "s", 0, k / 30, image), box)])
        assert person.score > 0.5
        found = in_picture(person.box_px.astype(float), SIZE)
        assert not strayed(box, found)
        box = found
    assert np.abs((box - first)[[1, 3]]).max() < 0.15 * 410


def test_a_seed_is_a_network(made, tmp_path):
    networks.write_landmarks(tmp_path / "a.onnx", 0)
    networks.write_landmarks(tmp_path / "b.onnx", 1)
    assert (tmp_path / "a.onnx").read_bytes() == (made / "onnx.onnx").read_bytes()
    assert (tmp_path / "a.onnx").read_bytes() != (tmp_path / "b.onnx").read_bytes()


def test_the_standing_person_is_one_for_every_set():
    for keypoints in (COCO_17, MHR_70):
        points = networks.standing(keypoints)
        assert (np.abs(points) <= 1).all()
        assert np.allclose(points[keypoints.mirror], points * (-1, 1))


def test_rows_with_random_weights_say_so():
    for row in ROWS:
        assert ("network" in row.settings.as_json()) == bool(row.settings.network)
        kind = "random" if row.settings.network else "real"
        assert subject.weights_of(row.settings) == kind
    # Figures that were measured before keep their settings.
    assert "network" not in Settings().as_json()
