"""The decoders' kernels against torch's modules; without a GPU they are interpreted."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from pipeline.sam3d.crops import BODY_PADDING, HAND_PADDING, crops_of_boxes
from pipeline.sam3d.decoder_gpu import FastDecoders
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.rig import Rig
from pipeline.sam3d.rig_kernels_gpu import _atan2
from tests.pipeline.sam3d.conftest import BOXES, K
from tests.pipeline.sam3d.golden_rule import SMALL_VITH, TINY, fill, rig_tensors

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# On a GPU products are in half precision.
TOLERANCE = 2e-2 if DEVICE.type == "cuda" else 2e-5


@pytest.mark.parametrize(
    ("config", "people", "hand", "prompted"),
    [(TINY, 1, False, False), (TINY, 1, True, True), (SMALL_VITH, 2, False, True)],
    ids=["body", "prompted hand", "prompted body of ViT-H"],
)
def test_estimates_are_those_of_the_modules(config, people, synthetic, hand, prompted):
    # Two layers are all kinds of layers; more take long where kernels are interpreted.
    config = replace(config, layers=2)
    network = Sam3dBody(config)
    fill(network)
    network = network.to(DEVICE).prepare(Rig(rig_tensors(synthetic)).to(DEVICE))
    padding = HAND_PADDING if hand else BODY_PADDING
    lenses = torch.from_numpy(K).expand(people, 3, 3)
    boxes = torch.from_numpy(BOXES[:people])
    crops = crops_of_boxes(boxes, lenses, config.side, padding).to(DEVICE)
    shape = (people, config.width, config.rows, config.columns)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    prompts = torch.tensor([[0.3, 0.4, 41], [0, 0, -2], [0.6, 0.2, 8], [0.9, 0.5, -1]])
    prompts = prompts.expand(people, 4, 3).to(DEVICE) if prompted else None
    fast = FastDecoders(network)
    with torch.inference_mode():
        plain = network.look(features, crops, hand=hand)
        previous = network.decode(plain, hand=hand) if prompted else None
        expected = network.decode(plain, prompts, previous, hand)
        cells = features.flatten(2).transpose(1, 2).contiguous()
        looked = fast.look(cells, crops, hand)
        found = fast.decode(looked, prompts, previous, hand)

    def agree(a, b):
        scale = max(float(b.abs().max()), 1.0)
        np.testing.assert_allclose(a.cpu(), b.cpu(), atol=TOLERANCE * scale)

    agree(looked.keys[1], plain.keys[1])
    agree(looked.cells.transpose(1, 2).reshape(shape), plain.cells)
    for name in ("pose", "camera", "translation_m", "keypoints_m", "joints", "turned"):
        agree(getattr(found, name), getattr(expected, name))
    agree(found.hand_boxes, expected.hand_boxes)
    for name in ("rig", "shape", "scale", "hands"):
        agree(getattr(found.parameters, name), getattr(expected.parameters, name))
    # What is not finite or far outside is so in both.
    near = expected.keypoints_px.abs() < 1e4
    agree(found.keypoints_px[near], expected.keypoints_px[near])


@triton.jit
def _angles(y, x, out, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, _atan2(tl.load(y + at), tl.load(x + at)))


def test_the_angle_of_a_point_is_right_in_every_direction():
    turns = torch.linspace(-math.pi, math.pi, 1024)
    lengths = torch.logspace(-6, 6, 1024)[torch.randperm(1024, generator=torch.Generator())]
    y, x = turns.sin() * lengths, turns.cos() * lengths
    y[:4], x[:4] = torch.tensor([0.0, 0, 1, -1]), torch.tensor([0.0, -1, 0, 0])
    out = torch.empty(1024, device=DEVICE)
    _angles[(1,)](y.to(DEVICE), x.to(DEVICE), out, BLOCK=1024)
    expected = torch.atan2(y.double(), x.double())
    np.testing.assert_allclose(out.cpu(), expected, rtol=3e-7, atol=1e-12)
