"""The GPU's way against torch's modules; without a GPU its kernels are interpreted."""

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
from tests.pipeline.sam3d.golden_rule import TINY, rig_tensors
from tests.pipeline.sam3d.test_engine import BOXES, K

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LENSES = np.repeat(K[None], len(BOXES), 0)


@pytest.fixture(scope="module")
def network(weights, synthetic):
    network = Sam3dBody(TINY)
    network.load_state_dict(weights)
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
    fast = ask(passes, pictures, [0, 1, 2])
    plain = Sam3dEngine(network, hands=hands, options=EngineOptions(engine="eager"))(
        pictures, [0, 1, 0], BOXES, LENSES
    )
    # TF32 has ten bits.
    atol = 3e-3 if DEVICE.type == "cuda" else 2e-5
    np.testing.assert_allclose(fast.keypoints_m, plain.keypoints_m, atol=atol)
    np.testing.assert_allclose(fast.translation_m, plain.translation_m, rtol=atol, atol=atol)


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
