"""SAM's image encoder on a GPU: torch's products and convolutions, our kernels between them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.perception.ultralytics_models.sam_kernels_gpu import attention, position_terms
from pipeline.sam3d.kernels_gpu import add_norm, gelu


class SamEncoderKernels(nn.Module):
    """What `sam.SamEncoder` computes of a ViT, with a third of the kernels.

    No window is cut out, padded or put back: the kernels of the attention find a window's tokens
    where they are in the picture. It shares its weights with the module.

    Args:
        net: ultralytics' ImageEncoderViT in half precision, for which `sam.SamEncoder.with_kernels`
            is not None; its attentions are `sam.RelativeAttention`.
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        layers = [block.attn for block in net.blocks]
        self._tables = [torch.stack((layer.rel_h, layer.rel_w)) for layer in layers]
        # Plain tensors, which `triton_launch` knows.
        self._biases = [layer.qkv.bias.detach() for layer in layers]

    def forward(self, images: Tensor) -> Tensor:
        """Return the embedding (B, 256, H, W) of normalised pictures (B, 3, 16 H, 16 W)."""
        net = self.net
        tokens = net.patch_embed(images.to(net.pos_embed.dtype)) + net.pos_embed
        count, height, width, channels = tokens.shape
        x = tokens.reshape(-1, channels).contiguous()
        added: Tensor | None = None
        for block, tables, bias in zip(net.blocks, self._tables, self._biases, strict=True):
            inner = block.attn
            qkv = inner.qkv(_normed(x, added, block.norm1))
            terms = position_terms(qkv, tables, inner.heads, (height, width))
            added = inner.proj(
                attention(qkv, bias, terms, inner.heads, (height, width), inner.size[0])
            )
            wide = block.mlp.lin1(_normed(x, added, block.norm2))
            added = block.mlp.lin2(gelu(wide, False).values)
        x = x + added
        return net.neck(x.view(count, height, width, channels).permute(0, 3, 1, 2))


def _normed(x: Tensor, added: Tensor | None, norm: nn.LayerNorm) -> Tensor:
    return add_norm(x, added, norm.weight, norm.bias, norm.eps, False).values
