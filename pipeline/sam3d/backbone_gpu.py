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
        module: Any = backbone.encoder if isinstance(backbone, DinoV3) else backbone
        self._patches, self._tokens = module.patch_embed.proj, module.tokens
        self._blocks = module.blocks
        self._turn: tuple[Tensor, Tensor] | None
        if isinstance(backbone, DinoV3):
            self._norm, self._turn = module.norm, module.rope_embed(*module.grid)
        else:
            self._norm, self._turn = module.last_norm, None
        self._activate = swiglu if isinstance(backbone, DinoV3) else gelu
        self._layers = [
            tuple(_product(layer, fp8) for layer in _linears(block)) for block in self._blocks
        ]

    def __call__(self, patches: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return image features.

        Args:
            patches: (B, N, 3 * patch * patch) of `crop_patches`, in half precision.
            dtype: The features' type; None: that of the patches.

        Returns:
            (B, N, C), the last block's patch tokens after the final norm.
        """
        embed = self._patches
        tokens = self._tokens(F.linear(patches, embed.weight.flatten(1), embed.bias))
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
        last = add_norm(x, added, self._norm.weight, self._norm.bias, self._norm.eps, False, dtype)
        # Tokens before the patches are dropped.
        return last.values.view(count, length, width)[:, length - patches.shape[1] :]

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
