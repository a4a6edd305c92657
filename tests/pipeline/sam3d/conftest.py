import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.sam3d.crops import BODY_PADDING, HAND_PADDING, crop_images, crops_of_boxes
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.rig import Rig
from tests.pipeline.sam3d.golden_rule import TINY, TINY_VITH, SyntheticRig, fill, rig_tensors

FILE = Path(__file__).with_name("golden_tiny.npz")
FOCAL = 160.0  # the picture's diagonal
K = np.array([[FOCAL, 0, 64], [0, FOCAL, 48], [0, 0, 1]], np.float32)
BOXES = np.array([[10, 8, 60, 90], [40.5, 20, 100, 95], [5, 5, 50, 60]], np.float32)
PASSES = ("body", "hand", "masked")


def read_manifest(name):
    """Every tensor of the original's module: its name, shape and type."""
    file = Path(__file__).with_name(f"manifest_{name}.json.gz")
    return json.loads(gzip.decompress(file.read_bytes()))


@pytest.fixture(scope="session")
def golden():
    """What the original implementation puts out, by name."""
    with np.load(FILE) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="session")
def golden_vith():
    """The same of the network with the ViT-H backbone."""
    with np.load(FILE.with_name("golden_vith.npz")) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="session")
def synthetic():
    return SyntheticRig(seed=0, hidden=8)


@pytest.fixture(scope="session")
def rig(synthetic):
    return Rig(rig_tensors(synthetic))


@pytest.fixture(scope="session")
def weights():
    """A state dict as a release has it."""
    network = Sam3dBody(TINY)
    fill(network)
    return network.state_dict()


@pytest.fixture(scope="session")
def network(weights, rig):
    network = Sam3dBody(TINY)
    network.load_state_dict(weights)
    return network.prepare(rig)


@pytest.fixture(scope="session")
def vith(rig):
    network = Sam3dBody(TINY_VITH)
    fill(network)
    return network.prepare(rig)


@pytest.fixture(scope="session")
def image():
    pixels = np.random.RandomState(1).randint(0, 255, (96, 128, 3)).astype(np.uint8)
    return torch.from_numpy(pixels)[None]


def crops_like_the_originals(boxes, side, hand):
    intrinsics = torch.tensor([[FOCAL, 0, 64], [0, FOCAL, 48], [0, 0, 1]]).expand(2, 3, 3)
    return crops_of_boxes(boxes, intrinsics, side, HAND_PADDING if hand else BODY_PADDING)


def mask_of_person_0(crops):
    """Masks and scores of the masked passes, in crops of both people."""
    masks = torch.zeros(2, 96, 128, 1, dtype=torch.uint8)
    masks[0, 15:85, 25:55] = 1
    return crop_images(masks, torch.arange(2), crops), torch.tensor([0.9, 0.0])


@pytest.fixture(scope="session")
def crops(golden):
    """The crops of each pass."""
    return {
        name: crops_like_the_originals(golden["boxes"], TINY.side, hand=name == "hand")
        for name in PASSES
    }


@pytest.fixture(scope="session")
def looked(network, golden, crops):
    """The decoders' image features of each pass, from the original's backbone features."""
    given = {"masked": mask_of_person_0(crops["masked"])}
    return {
        name: network.look(
            golden[f"{name}/features0"], crops[name], *given.get(name, ()), hand=name == "hand"
        )
        for name in PASSES
    }
