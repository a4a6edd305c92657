"""SAM's image encoder in our kernels against the modules that they stand for.

Without a GPU the kernels run in Triton's interpreter.
"""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.perception.ultralytics_models.package import ultralytics
from pipeline.perception.ultralytics_models.sam import RelativeAttention, SamEncoder
from pipeline.perception.ultralytics_models.sam_supported import parts

kernels = pytest.importorskip(
    "pipeline.perception.ultralytics_models.sam_kernels_gpu", exc_type=ImportError
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Attention(nn.Module):
    """The layers of ultralytics' attention that `RelativeAttention` takes."""

    def __init__(self, heads, channels, side, seed):
        super().__init__()
        source = torch.Generator().manual_seed(seed)
        width = heads * channels
        self.num_heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Identity()
        for weight in (self.qkv.weight, self.qkv.bias):
            weight.data = torch.randn(weight.shape, generator=source) * width**-0.5
        # Terms as large as scores, so that each has its say.
        self.rel_pos_h, self.rel_pos_w = (
            torch.randn(2 * side - 1, channels, generator=source) for _ in range(2)
        )


def published(inner, x, side):
    """The attention as published: windows cut out of the padded picture, and put back."""
    count, height, width, channels = x.shape
    down, across = -(-height // side), -(-width // side)
    padded = x.new_zeros(count, down * side, across * side, channels)
    padded[:, :height, :width] = x
    windows = padded.view(count, down, side, across, side, channels).transpose(2, 3)
    out = inner(windows.reshape(-1, side, side, channels))
    out = out.view(count, down, across, side, side, channels).transpose(2, 3)
    return out.reshape(padded.shape)[:, :height, :width]


@settings(max_examples=12, deadline=None)
@given(
    count=st.integers(1, 2),
    heads=st.integers(1, 3),
    channels=st.sampled_from([16, 32, 48, 80]),
    height=st.integers(1, 18),
    width=st.integers(1, 18),
    side=st.integers(2, 14),
    seed=st.integers(0, 2**31),
)
@example(count=1, heads=2, channels=80, height=16, width=16, side=16, seed=0)  # a row a block
@example(count=2, heads=1, channels=48, height=32, width=32, side=32, seed=1)
@example(count=1, heads=1, channels=16, height=20, width=20, side=20, seed=2)  # one odd window
@example(count=2, heads=2, channels=80, height=15, width=17, side=14, seed=3)  # padded both ways
@example(count=1, heads=1, channels=80, height=1, width=1, side=14, seed=4)
def test_attention_is_what_was_published(count, heads, channels, height, width, side, seed):
    original = Attention(heads, channels, side, seed).double()
    inner = RelativeAttention(original, "plain").double()
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(count, height, width, heads * channels, generator=source).double()
    with torch.inference_mode():
        expected = published(inner, x, side)
        # Its product is torch's on a GPU too; a row is a token.
        qkv = original.qkv(x).flatten(0, 2).half().to(DEVICE)
        bias = original.qkv.bias.half().to(DEVICE)
        tables = torch.stack((inner.rel_h, inner.rel_w)).half().to(DEVICE)
        terms = kernels.position_terms(qkv, tables, heads, (height, width))
        out = kernels.attention(qkv, bias, terms, heads, (height, width), side)
    assert out.dtype == torch.float16
    apart = (out.double().cpu().view(expected.shape) - expected).abs()
    # Queries, keys, terms and shares are rounded to half precision.
    assert float(apart.max()) < 1e-2 * float(expected.abs().max())


def test_channels_of_a_head_are_one_or_two_blocks():
    assert [parts(n) for n in (16, 64, 80, 96)] == [(16, 0), (64, 0), (64, 16), (64, 32)]
    assert [parts(n) for n in (8, 24, 72, 88, 112)] == [None] * 5
    with pytest.raises(ValueError, match="no sum"):
        kernels.attention(
            torch.zeros(4, 72), torch.zeros(72), torch.zeros(1, 1, 4, 4), 1, (2, 2), 2
        )


@pytest.mark.ultralytics
def test_the_encoder_in_kernels_is_the_module(tasks):
    """Two windowed layers around a global one, with windows that the picture does not fill."""
    vit = ultralytics("models.sam.build").ImageEncoderViT
    torch.manual_seed(0)
    net = vit(
        depth=3, embed_dim=96, img_size=320, num_heads=2, use_rel_pos=True, window_size=7,
        global_attn_indexes=[1], out_chans=64,
    ).eval()  # fmt: skip
    source = torch.Generator().manual_seed(1)
    for weight in net.parameters():
        weight.data = torch.randn(weight.shape, generator=source) * weight.shape[-1] ** -0.5
    encoder = SamEncoder(copy.deepcopy(net), "plain").to(DEVICE)
    images = (torch.rand(2, 3, 320, 320, generator=source) * 4 - 2).to(DEVICE)
    with torch.inference_mode():
        expected = encoder(images)
        fast = encoder.halve().with_kernels()
        assert fast is not None
        out = fast(images).float()
    assert out.shape == (2, 64, 20, 20)
    assert float((out - expected).norm() / expected.norm()) < 2e-2


@pytest.mark.ultralytics
def test_kernels_are_made_for_half_precision_and_vits_only(tasks):
    build = ultralytics("models.sam.build")
    vit = {"depth": 1, "embed_dim": 48, "img_size": 64, "num_heads": 1, "use_rel_pos": True}
    encoder = SamEncoder(build.ImageEncoderViT(**vit))
    assert encoder.with_kernels() is None
    assert encoder.halve().with_kernels() is not None
    no_bias = build.ImageEncoderViT(**vit, qkv_bias=False)
    assert SamEncoder(no_bias).with_kernels is None
    other = build.ImageEncoderViT(**vit, act_layer=nn.ReLU)
    assert SamEncoder(other).with_kernels is None
    tiny = build.TinyViT(
        img_size=224, embed_dims=(8, 16, 16, 320), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2)
    )
    assert SamEncoder(tiny).with_kernels is None
