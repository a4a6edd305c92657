import pytest
import torch
from torch.nn import functional as F

from pipeline.sam3d.backbone_gpu import FastBackbone
from pipeline.sam3d.backbone_vith import PATCH_PADDING
from pipeline.sam3d.model import Sam3dBody
from tests.pipeline.sam3d.golden_rule import SMALL_VITH, TINY, fill

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = pytest.param(False, 2e-2, id="half")
# Torch has no 8-bit products by rows on a CPU.
EIGHT = pytest.param(True, 1e-1, id="fp8", marks=pytest.mark.gpu)


@pytest.mark.parametrize("config", [TINY, SMALL_VITH], ids=("dinov3", "vith"))
@pytest.mark.parametrize(("fp8", "limit"), [HALF, EIGHT])
def test_kernels_compute_what_the_modules_do(config, fp8, limit):
    network = Sam3dBody(config)
    fill(network)
    backbone = network.backbone
    backbone.fold()
    exact = backbone.to(DEVICE)
    images = torch.randn(
        1, 3, config.side, config.columns * config.patch,
        generator=torch.Generator().manual_seed(0),
    ).to(DEVICE)  # fmt: skip
    padding = PATCH_PADDING if config is SMALL_VITH else 0
    patches = F.unfold(images, config.patch, stride=config.patch, padding=padding)
    patches = patches.transpose(1, 2)
    with torch.inference_mode():
        expected = exact(images).flatten(2).transpose(1, 2)
        fast = FastBackbone(exact.to(torch.bfloat16), fp8)(patches.to(torch.bfloat16)).float()
    assert fast.shape == expected.shape
    assert float((fast - expected).norm() / expected.norm()) < limit
