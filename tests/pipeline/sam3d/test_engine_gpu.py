"""The GPU's way against torch's modules; without a GPU its kernels are interpreted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.gpu.device import EngineOptions
from pipeline.sam3d.crops import BODY_PADDING, crops_of_boxes
from pipeline.sam3d.engine import Sam3dEngine
from pipeline.sam3d.engine_gpu import GpuPasses
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.people import Packer, unpack
from pipeline.sam3d.rig import Rig
from tests.pipeline.sam3d.conftest import BOXES, K
from tests.pipeline.sam3d.golden_rule import TINY, fill, rig_tensors
from tests.support.tensors import NoHostLook

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LENSES = np.repeat(K[None], len(BOXES), 0)


@pytest.fixture(scope="module")
def network(synthetic):
    # One layer takes less where kernels are interpreted; test_decoder_gpu.py has those between.
    network = Sam3dBody(replace(TINY, layers=1))
    fill(network)
    return network.to(DEVICE).prepare(Rig(rig_tensors(synthetic)).to(DEVICE))


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(3)
    sizes = ((96, 128), (120, 100))
    return [torch.from_numpy(random.integers(0, 255, (*s, 3), np.uint8)).to(DEVICE) for s in sizes]


def ask(passes, pictures, rows):
    crops = crops_of_boxes(
        torch.from_numpy(BOXES[rows]), torch.from_numpy(LENSES[rows]), TINY.side, BODY_PADDING
    )
    with torch.inference_mode():
        return unpack(passes([pictures[k % 2] for k in rows], crops).cpu().numpy())


@pytest.mark.parametrize("hands", [False, True], ids=["body", "hands"])
def test_it_answers_as_the_modules_do(network, pictures, hands):
    passes = GpuPasses(network, Packer(network.rig.surface, None), hands=hands)
    rows = [1] if hands else [1, 0]
    fast = ask(passes, pictures, rows)
    plain = Sam3dEngine(network, hands=hands, options=EngineOptions(engine="eager"))(
        pictures, rows, BOXES[rows], LENSES[rows]
    )
    # Half precision has ten bits.
    atol = 3e-3 if DEVICE.type == "cuda" else 2e-5
    np.testing.assert_allclose(fast.keypoints_m, plain.keypoints_m, atol=atol)
    np.testing.assert_allclose(fast.translation_m, plain.translation_m, rtol=atol, atol=atol)


def test_neighbours_are_those_of_the_modules(network, pictures):
    passes = GpuPasses(network, Packer(network.rig.surface, None))
    plain = Sam3dEngine(network, options=EngineOptions(engine="eager"))
    prompts = np.array([[[[30, 40], [50, 20]], [[20, 60], [44, 33]]]], np.float32)
    labels = np.array([[[41, 62], [8, -2]]])
    asked = ([pictures[1]], [0], BOXES[1:2], LENSES[:1], prompts, labels)
    expected = plain.with_neighbours(*asked)
    plain._passes = passes
    found = plain.with_neighbours(*asked)
    atol = 3e-3 if DEVICE.type == "cuda" else 2e-5
    np.testing.assert_allclose(found.keypoints_m, expected.keypoints_m, atol=atol)


@pytest.mark.gpu
def test_graphs_and_single_calls_agree_to_the_bit(network, pictures):
    pack = Packer(network.rig.surface, None)
    graphed = ask(GpuPasses(network, pack), pictures, [0, 1])
    single = ask(GpuPasses(network, pack, graphs=False), pictures, [0, 1])
    assert np.array_equal(graphed.pose, single.pose)
    assert np.array_equal(graphed.keypoints_px, single.keypoints_px)


@pytest.mark.gpu
def test_a_person_does_not_depend_on_the_others(network, pictures):
    passes = GpuPasses(network, Packer(network.rig.surface, None))
    together = ask(passes, pictures, [0, 1, 2])
    for k in range(3):
        alone = ask(passes, pictures, [k])
        np.testing.assert_allclose(together.rows(slice(k, k + 1)).pose, alone.pose, atol=2e-3)


def test_nothing_looks_at_a_value(network, pictures):
    passes = GpuPasses(network, Packer(network.rig.surface, None), hands=True, graphs=False)
    views = torch.eye(3).flatten().repeat(1, 1)
    views = torch.cat([torch.tensor([[48.0, 60, 80]]), views], dim=1).to(DEVICE)
    table = torch.tensor([[pictures[0].data_ptr(), *pictures[0].shape[:2], 0]]).to(DEVICE)
    with NoHostLook(), torch.inference_mode():
        passes._answer(table, views)
