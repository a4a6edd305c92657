"""SAM in two halves: the image encoder, and the mask decoder prompted with people's boxes.

Kirillov et al., Segment Anything, 2023; MobileSAM: Zhang et al., Faster Segment Anything, 2023. The
layers are ultralytics'. Rewritten is only what a batch of people in several pictures, a captured
graph and fast attention need; the tests compare each part with ultralytics' own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad, scaled_dot_product_attention

from pipeline.perception.ultralytics_models.sam_supported import has_kernels

ATTENTION = ("plain", "bias", "folded")
"""How the encoder computes attention, with equal results. "plain": as published, with all scores in
memory. "bias": fused, with the relative positions as a bias, which flash attention does not
support. "folded": fused, with the positions folded into longer queries and keys, which it does."""


@dataclass(frozen=True, eq=False)
class Sam:
    """The two halves of one SAM; ``weights`` is "real" or "random"."""

    encoder: SamEncoder
    decoder: SamDecoder
    weights: str


class SamEncoder(nn.Module):
    """Embedding (B, 256, 64, 64) of normalised pictures (B, 3, 1024, 1024)."""

    def __init__(self, net: nn.Module, attention: str = "folded") -> None:
        super().__init__()
        if attention not in ATTENTION:
            raise ValueError(f"there is no attention '{attention}'; choose {', '.join(ATTENTION)}")
        self.net = net.eval().requires_grad_(False)
        for block in getattr(net, "blocks", ()):
            block.attn = RelativeAttention(block.attn, attention)
        for part in net.modules():
            if hasattr(part, "attention_bias_idxs"):
                _register_biases(part)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.to(next(self.net.parameters()).dtype))

    def halve(self) -> SamEncoder:
        """Convert to half precision, in place."""
        return self.half()

    @property
    def with_kernels(self) -> Callable[[], nn.Module | None] | None:
        """What returns the encoder in kernels of its own, for a GPU and half precision, and None in
        single precision. None for other networks than ViTs like SAM's."""
        return self._in_kernels if has_kernels(self.net) else None

    def _in_kernels(self) -> nn.Module | None:
        if next(self.net.parameters()).dtype != torch.float16:
            return None
        # Imported here: Triton is only sure to be there with a GPU.
        from pipeline.perception.ultralytics_models.sam_gpu import SamEncoderKernels

        return SamEncoderKernels(self.net)


class RelativeAttention(nn.Module):
    """Self-attention over (B, H, W, C) with decomposed relative positions.

    The score of a query at (y, x) and a key at (v, u) also has the terms q . rel_h[y - v] and
    q . rel_w[x - u] (Li et al., MViTv2, 2022, eq. 4). H and W are those of ``original``,
    ultralytics' attention, whose layers it takes; ``kind`` is one of `ATTENTION`.
    """

    rel_h: Tensor
    rel_w: Tensor
    key_places: Tensor

    def __init__(self, original: Any, kind: str) -> None:
        super().__init__()
        self.heads, self.kind = original.num_heads, kind
        self.qkv, self.proj = original.qkv, original.proj
        height, width = ((len(t) + 1) // 2 for t in (original.rel_pos_h, original.rel_pos_w))
        self.size = height, width
        self.register_buffer("rel_h", _table(original.rel_pos_h.detach()), persistent=False)
        self.register_buffer("rel_w", _table(original.rel_pos_w.detach()), persistent=False)
        rows = one_hot(torch.arange(height), height).repeat_interleave(width, 0)
        columns = one_hot(torch.arange(width), width).repeat(height, 1)
        places = torch.cat((rows, columns), 1).to(self.rel_h.dtype)
        self.register_buffer("key_places", places, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        count = height * width
        q, k, v = (
            self.qkv(x).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        )
        depth = q.shape[-1]
        at = q.reshape(batch, self.heads, height, width, depth)
        by_row = torch.einsum("bnhwc,hkc->bnhwk", at, self.rel_h)
        by_column = torch.einsum("bnhwc,wkc->bnhwk", at, self.rel_w)
        scale = depth**-0.5
        if self.kind == "folded":
            # A key's one-hot row and column pick their terms out of the longer query.
            longer = (q * scale, by_row.flatten(2, 3), by_column.flatten(2, 3))
            places = self.key_places.expand(batch, self.heads, -1, -1)
            # Flash attention needs values as long as keys.
            out = scaled_dot_product_attention(
                torch.cat(longer, -1),
                torch.cat((k, places), -1),
                pad(v, (0, height + width)),
                scale=1.0,
            )[..., :depth]
        else:
            bias = (by_row[..., :, None] + by_column[..., None, :]).reshape(
                batch, self.heads, count, count
            )
            if self.kind == "bias":
                out = scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
            else:
                out = ((q * scale) @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        return self.proj(out.transpose(1, 2).reshape(batch, height, width, channels))


class SamDecoder(nn.Module):
    """Mask logits (B, 256, 256) over the whole picture, positive inside, and SAM's quality (B,).

    From embeddings (B, 256, 64, 64) and a box in each picture (B, 4): x0, y0, x1, y1 in pixels of
    the 1024-pixel picture, centres at whole numbers. The mask is SAM's for unambiguous prompts,
    which boxes are.
    """

    tokens: Tensor
    places: Tensor
    no_mask: Tensor
    corner_kinds: Tensor
    frequencies: Tensor

    def __init__(self, prompts: Any, decoder: Any) -> None:
        super().__init__()
        self.side = int(prompts.input_image_size[0])
        self.transformer = decoder.transformer
        self.upscaling = decoder.output_upscaling
        self.weigher = decoder.output_hypernetworks_mlps[0]
        self.judge = decoder.iou_prediction_head
        kinds = torch.cat([prompts.point_embeddings[k].weight for k in (2, 3)])
        constants = {
            "tokens": torch.cat((decoder.iou_token.weight, decoder.mask_tokens.weight)),
            "places": prompts.get_dense_pe(),
            "no_mask": prompts.no_mask_embed.weight.reshape(1, -1, 1, 1),
            "corner_kinds": kinds,
            "frequencies": prompts.pe_layer.positional_encoding_gaussian_matrix,
        }
        for name, value in constants.items():
            self.register_buffer(name, value.detach().clone(), persistent=False)
        self.requires_grad_(False).eval()

    def halve(self) -> SamDecoder:
        """Convert to half precision, in place, except the boxes' sines, whose angles are large."""
        kinds, frequencies = self.corner_kinds, self.frequencies
        self.half()
        self.corner_kinds, self.frequencies = kinds, frequencies
        return self

    def forward(self, embedding: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = embedding.shape
        corners = self._corners(boxes.float()).to(self.tokens.dtype)
        tokens = torch.cat((self.tokens.expand(batch, -1, -1), corners), 1)
        source = embedding.to(self.tokens.dtype) + self.no_mask
        tokens, source = self.transformer(source, self.places.expand(batch, -1, -1, -1), tokens)
        source = source.transpose(1, 2).reshape(batch, channels, height, width)
        # Token 0 judges the quality; token 1 makes the mask for unambiguous prompts.
        masks = torch.einsum("bc,bchw->bhw", self.weigher(tokens[:, 1]), self.upscaling(source))
        return masks, self.judge(tokens[:, 0])[:, 0]

    def _corners(self, boxes: Tensor) -> Tensor:
        """Random Fourier features (B, 2, 256) of the boxes' corners (Tancik et al., 2020)."""
        # SAM counts from a pixel's corner, hence the half.
        places = 2 * (boxes.reshape(-1, 2, 2) + 0.5) / self.side - 1
        angles = 2 * math.pi * (places @ self.frequencies)
        return torch.cat((angles.sin(), angles.cos()), -1) + self.corner_kinds


def split(model: Any, weights: str, attention: str = "folded") -> Sam:
    """Return the halves of an ultralytics SAMModel, which must not be used afterwards."""
    decoder = SamDecoder(model.prompt_encoder, model.mask_decoder)
    return Sam(SamEncoder(model.image_encoder, attention), decoder, weights)


def _table(line: Tensor) -> Tensor:
    """Relative positions (2n - 1, C) as a table (n, n, C), indexed by query, then key."""
    count = (len(line) + 1) // 2
    at = torch.arange(count)
    return line[at[:, None] - at[None, :] + count - 1].contiguous()


def _register_biases(attention: Any) -> None:
    """Make TinyViT's table of biases a buffer, which changes precision and device with the module;
    as the plain attribute that it was, it does not."""
    biases = attention.attention_biases.detach()[:, attention.attention_bias_idxs]
    attention.__dict__.pop("ab", None)
    attention.register_buffer("ab", biases.clone(), persistent=False)
