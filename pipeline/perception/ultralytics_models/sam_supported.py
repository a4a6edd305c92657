"""For which image encoders SAM's kernels are made (`sam_gpu`); needs no Triton."""

from __future__ import annotations

from typing import Any

from torch import nn


def has_kernels(net: Any) -> bool:
    """Return whether the kernels are made for an image encoder: a ViT whose windows are square,
    whose products have a bias, and whose activation is the exact GELU."""
    return hasattr(net, "blocks") and all(
        len(set(block.attn.size)) == 1
        and block.attn.qkv.bias is not None
        and parts(block.attn.qkv.in_features // block.attn.heads) is not None
        and isinstance(block.mlp.act, nn.GELU)
        and block.mlp.act.approximate == "none"
        for block in net.blocks
    )


def parts(channels: int) -> tuple[int, int] | None:
    """Return the two powers of two, each 16 or more, that make up a head's channels; the second may
    be 0. None where there are none: the attention's products take such blocks."""
    low = 1 << (channels.bit_length() - 1)
    high = channels - low
    # A power of two has one bit.
    fits = low >= 16 and (high == 0 or (high >= 16 and not high & (high - 1)))
    return (low, high) if fits else None
