"""DINOv3 ViT-H+/16 (Simeoni et al., DINOv3, 2025), for inference."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.sam3d.config import ModelConfig
from pipeline.sam3d.layers import Patches, linear_of

_STORAGE_TOKENS = 4
_NORM_EPS = 1e-5
_ROPE_BASE = 100.0


class DinoV3(nn.Module):
    """The backbone as the release names it: all weights are under ``encoder``."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = _Encoder(config)

    def forward(self, images: Tensor) -> Tensor:
        """Return image features of normalised crops.

        Args:
            images: (B, 3, H, W), normalised, in the backbone's precision.

        Returns:
            (B, C, rows, columns), the last block's patch tokens after the final norm.
        """
        return self.encoder(images)

    @torch.no_grad()
    def fold(self) -> None:
        """Fuse what is constant at inference into the weights; the results stay the same.

        The state dict no longer has the names of the release afterwards.
        """
        self.encoder.fold()


class _Encoder(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.grid = (config.rows, config.columns)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.storage_tokens = nn.Parameter(torch.zeros(1, _STORAGE_TOKENS, width))
        self.patch_embed = Patches(width, config.patch, padding=0)
        self.rope_embed = _Rope(width // config.heads)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)

    def tokens(self, patches: Tensor) -> Tensor:
        """Return the first block's input (B, N, C), which ends with the embedded patches."""
        first = torch.cat([self.cls_token, self.storage_tokens], dim=1)
        return torch.cat([first.expand(len(patches), -1, -1), patches], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.tokens(self.patch_embed(images))
        sine, cosine = self.rope_embed(*self.grid)
        for block in self.blocks:
            x = block(x, sine, cosine)
        features = self.norm(x[:, 1 + _STORAGE_TOKENS :])
        return features.transpose(1, 2).unflatten(2, self.grid)

    def fold(self) -> None:
        for block in cast("list[_Block]", self.blocks):
            block.fold()


class _Rope(nn.Module):
    """Axial rotary positions (Su et al., RoFormer, 2021): rows turn one half of the channels,
    columns the other."""

    periods: Tensor

    def __init__(self, head_width: int) -> None:
        super().__init__()
        count = head_width // 4
        self.register_buffer("periods", _ROPE_BASE ** (torch.arange(count) / count))

    def forward(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Return sine and cosine of each patch's angles, (rows * columns, head width) float32."""
        periods = self.periods.float()

        def angles(count: int) -> Tensor:
            centres = (torch.arange(count, device=periods.device) + 0.5) / count
            return 2 * math.pi * (2 * centres - 1)[:, None] / periods

        of_rows = angles(rows)[:, None].expand(-1, columns, -1)
        of_columns = angles(columns)[None].expand(rows, -1, -1)
        both = torch.cat([of_rows, of_columns], dim=-1).flatten(0, 1).repeat(1, 2)
        return both.sin(), both.cos()


def _rotate(x: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
    """Turn the patch tokens of x (B, heads, N, head width), in float32; the others stay."""
    first, patches = x.split([x.shape[2] - len(sine), len(sine)], dim=2)
    low, high = patches.float().chunk(2, dim=-1)
    turned = patches * cosine + torch.cat([-high, low], dim=-1) * sine
    return torch.cat([first, turned.to(x.dtype)], dim=2)


class _KeyMaskedLinear(nn.Linear):
    """The projection to q, k and v. ``bias_mask`` zeroes the keys' third of the bias."""

    bias_mask: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width, 3 * width)
        mask = torch.ones(3 * width)
        mask[width : 2 * width] = 0
        self.register_buffer("bias_mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias * self.bias_mask)

    def fold(self) -> nn.Linear:
        return linear_of(self.weight, self.bias * self.bias_mask)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv: nn.Module = _KeyMaskedLinear(width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = _rotate(q, sine, cosine), _rotate(k, sine, cosine)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma

    def fold_into(self, layer: nn.Linear) -> nn.Linear:
        """The layer with each output multiplied by its gain."""
        return linear_of(layer.weight * self.gamma[:, None], layer.bias * self.gamma)


class _SwiGlu(nn.Module):
    """Gated feed-forward layer (Shazeer, GLU Variants Improve Transformer, 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden)
        self.w2 = nn.Linear(width, hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(F.silu(self.w1(x)) * self.w2(x))


class _FoldedSwiGlu(nn.Module):
    """The same with one product for both halves of the gate."""

    def __init__(self, plain: _SwiGlu, scale: _LayerScale) -> None:
        super().__init__()
        weight = torch.cat([plain.w1.weight, plain.w2.weight])
        self.w12 = linear_of(weight, torch.cat([plain.w1.bias, plain.w2.bias]))
        self.w3 = scale.fold_into(plain.w3)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class _Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = _Attention(width, config.heads)
        self.ls1: nn.Module = _LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp: nn.Module = _SwiGlu(width, config.hidden)
        self.ls2: nn.Module = _LayerScale(width)

    def forward(self, x: Tensor, sine: Tensor, cosine: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), sine, cosine))
        return x + self.ls2(self.mlp(self.norm2(x)))

    def fold(self) -> None:
        self.attn.qkv = cast(_KeyMaskedLinear, self.attn.qkv).fold()
        self.attn.proj = cast(_LayerScale, self.ls1).fold_into(self.attn.proj)
        self.mlp = _FoldedSwiGlu(cast(_SwiGlu, self.mlp), cast(_LayerScale, self.ls2))
        self.ls1, self.ls2 = nn.Identity(), nn.Identity()
