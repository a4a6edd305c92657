"""SAM's image encoder on a GPU: torch's products and convolutions, our kernels between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.perception.ultralytics_models.sam_kernels_gpu import (
    attention,
    parts,
    position_terms,
)
from pipeline.sam3d.kernels_gpu import add_norm, gelu


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


class FastSamEncoder(nn.Module):
    """What `sam.SamEncoder` computes of a ViT, with a third of the kernels.

    No window is cut out, padded or put back: the kernels of the attention find a window's tokens
    where they are in the picture. It shares its weights with the module.

    Args:
        net: ultralytics' ImageEncoderViT in half precision that `has_kernels`, its attentions
            `sam.RelativeAttention`.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self._tables = [torch.stack((b.attn.rel_h, b.attn.rel_w)) for b in net.blocks]

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding (B, 256, H, W) of normalised pictures (B, 3, 16 H, 16 W)."""
        net = self.net
        tokens = net.patch_embed(images.to(net.pos_embed.dtype)) + net.pos_embed
        count, height, width, channels = tokens.shape
        x = tokens.reshape(-1, channels).contiguous()
        added: Tensor | None = None
        for block, tables in zip(net.blocks, self._tables, strict=True):
            inner = block.attn
            qkv = inner.qkv(_normed(x, added, block.norm1))
            terms = position_terms(qkv, tables, inner.heads, (height, width))
            added = inner.proj(
                attention(qkv, inner.qkv.bias, terms, inner.heads, (height, width), inner.size[0])
            )
            wide = block.mlp.lin1(_normed(x, added, block.norm2))
            added = block.mlp.lin2(gelu(wide, False).values)
        x = x + added
        return net.neck(x.view(count, height, width, channels).permute(0, 3, 1, 2))


def _normed(x: Tensor, added: Tensor | None, norm: nn.LayerNorm) -> Tensor:
    return add_norm(x, added, norm.weight, norm.bias, norm.eps, False).values
