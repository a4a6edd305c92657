import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.sam3d.crops import BODY_PADDING, HAND_PADDING, crop_images, crops_of_boxes
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.rig import Rig
from tests.pipeline.sam3d.golden_rule import TINY, SyntheticRig, fill, rig_tensors

FILE = Path(__file__).with_name("golden_tiny.npz")
FOCAL = 160.0  # the picture's diagonal
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
def synthetic():
    return SyntheticRig(seed=0, hidden=8)


@pytest.fixture(scope="session")
def rig(synthetic):
    return Rig(rig_tensors(synthetic))


@pytest.fixture(scope="session")
def network(rig):
    network = Sam3dBody(TINY)
    fill(network)
    return network.prepare(rig)


@pytest.fixture(scope="session")
def image():
    pixels = np.random.RandomState(1).randint(0, 255, (96, 128, 3)).astype(np.uint8)
    return torch.from_numpy(pixels)[None]


@pytest.fixture(scope="session")
def crops(golden):
    """The crops of each pass."""
    intrinsics = torch.tensor([[FOCAL, 0, 64], [0, FOCAL, 48], [0, 0, 1]]).expand(2, 3, 3)
    return {
        name: crops_of_boxes(
            golden["boxes"], intrinsics, TINY.side, HAND_PADDING if name == "hand" else BODY_PADDING
        )
        for name in PASSES
    }


@pytest.fixture(scope="session")
def looked(network, golden, crops):
    """The decoders' image features of each pass, from the original's backbone features."""
    masks = torch.zeros(2, 96, 128, 1, dtype=torch.uint8)
    masks[0, 15:85, 25:55] = 1
    masked = crop_images(masks, torch.arange(2), crops["masked"])
    given = {"masked": {"masks": masked, "scores": torch.tensor([0.9, 0.0])}}
    return {
        name: network.look(
            golden[f"{name}/features0"],
            crops[name],
            hand=name == "hand",
            **given.get(name, {}),
        )
        for name in PASSES
    }
