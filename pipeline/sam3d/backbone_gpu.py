"""The backbones on a GPU: torch's products and attention, our kernels between them.

What the modules in `backbone_dinov3` and `backbone_vith` compute, with a quarter of the kernels.
With 8-bit products (Micikevicius et al., FP8 Formats for Deep Learning, 2022) the rows of both
factors have a scale each; attention, norms and the sums stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.sam3d.backbone_dinov3 import DinoV3
from pipeline.sam3d.backbone_vith import VitH
from pipeline.sam3d.kernels_gpu import (
    FP8,
    FP8_LARGEST,
    Rows,
    add_norm,
    as_rows,
    gelu,
    rotate,
    swiglu,
)


class FastBackbone:
    """A backbone's blocks with our kernels. Shares its weights with the module.

    Args:
        backbone: The module, folded, in half precision on a GPU.
        fp8: Whether the products of the blocks compute in 8 bits.
    """

    def __init__(self, backbone: DinoV3 | VitH, fp8: bool = False) -> None:
        self._fp8 = fp8
        self._embed: Callable[[Tensor], Tensor]
        if isinstance(backbone, DinoV3):
            encoder = backbone.encoder
            self._embed, self._blocks, self._norm = encoder.tokens, encoder.blocks, encoder.norm
            self._turn: tuple[Tensor, Tensor] | None = encoder.rope_embed(*encoder.grid)
        else:
            self._embed, self._blocks = backbone.tokens, backbone.blocks
            self._norm, self._turn = backbone.last_norm, None
        self._activate = swiglu if isinstance(backbone, DinoV3) else gelu
        self._layers = [
            tuple(_product(layer, fp8) for layer in _linears(block)) for block in self._blocks
        ]

    def __call__(self, images: Tensor) -> Tensor:
        """Return image features.

        Args:
            images: (B, 3, H, W), normalised, in half precision.

        Returns:
            (B, N, C), the last block's patch tokens after the final norm.
        """
        tokens = self._embed(images)
        count, length, width = tokens.shape
        x = tokens.reshape(count * length, width).contiguous()
        added: Tensor | None = None
        for block, (qkv, proj, into, out) in zip(cast("Any", self._blocks), self._layers):
            heads = block.attn.heads
            both = qkv(self._normed(x, added, block.norm1))
            if self._turn is not None:
                rotate(both, *self._turn, tokens=length, heads=heads)
            q, k, v = both.view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
            added = proj(as_rows(attended.reshape(count * length, width), self._fp8))
            inner = into(self._normed(x, added, block.norm2))
            added = out(self._activate(inner, self._fp8))
        last = add_norm(x, added, self._norm.weight, self._norm.bias, self._norm.eps, False)
        # Tokens before the patches are dropped.
        patches = length if self._turn is None else len(self._turn[0])
        return last.values.view(count, length, width)[:, length - patches :]

    def _normed(self, x: Tensor, added: Tensor | None, norm: nn.LayerNorm) -> Rows:
        return add_norm(x, added, norm.weight, norm.bias, norm.eps, self._fp8)


def _linears(block: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]:
    mlp = block.mlp
    first, second = (mlp.w12, mlp.w3) if hasattr(mlp, "w12") else (mlp.fc1, mlp.fc2)
    return block.attn.qkv, block.attn.proj, first, second


def _product(layer: nn.Linear, fp8: bool) -> Callable[[Rows], Tensor]:
    weight, bias = layer.weight, layer.bias
    if not fp8:
        return lambda rows: F.linear(rows.values, weight, bias)
    scale = (weight.float().abs().amax(1, keepdim=True) / FP8_LARGEST).clamp_min(1e-12)
    small = (weight.float() / scale).to(FP8)
    columns, scales = small.t(), scale.t().contiguous()

    def product(rows: Rows) -> Tensor:
        assert rows.scales is not None
        return torch._scaled_mm(
            rows.values, columns, scale_a=rows.scales, scale_b=scales, bias=bias,
            out_dtype=weight.dtype, use_fast_accum=True,
        )  # fmt: skip

    return product
