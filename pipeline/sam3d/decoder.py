"""The decoder: a few tokens of one person that look at each other and at the image features."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.sam3d.config import ModelConfig
from pipeline.sam3d.layers import Mlp, attend

_NORM_EPS = 1e-6


class Decoder(nn.Module):
    """Its layers and the norm before the heads."""

    _weight: Tensor
    _bias: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layers = (DecoderLayer(config, first=i == 0) for i in range(config.layers))
        self.layers = nn.ModuleList(layers)
        self.norm_final = nn.LayerNorm(config.token_width, eps=_NORM_EPS)

    @torch.no_grad()
    def prepare(self, positions: Tensor) -> None:
        """Compute the constants of `image_keys_values`; call it once the weights are loaded.

        Each layer applies its own gain and bias to the same normalised features F before the
        products, and adds the same code of positions to the keys. Both are linear:

            W (g F + b) + c  =  (W g) F + (W b + c)

        so one product gives the keys and values of all layers.

        Args:
            positions: (cells, C) codes of the cells' positions.
        """
        weights, biases = [], []
        for layer in cast("list[DecoderLayer]", self.layers):
            norm, attention = layer.ln2_2, layer.cross_attn
            at_cells = norm.bias + layer.ln_pe_2(positions)
            for product, added in (
                (attention.k_proj, at_cells),
                (attention.v_proj, norm.bias.expand_as(at_cells)),
            ):
                weights.append(product.weight * norm.weight)
                biases.append(product(added))
        # Not persistent: they follow from the weights.
        self.register_buffer("_weight", torch.cat(weights), persistent=False)
        self.register_buffer("_bias", torch.cat(biases, dim=1), persistent=False)

    @property
    def of_keys_values(self) -> tuple[Tensor, Tensor]:
        """The weight (all layers' keys and values, C) and the bias (cells, likewise) of
        `image_keys_values`."""
        return self._weight, self._bias

    def image_keys_values(self, features: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the image's keys and its values for each layer, (B, cells, C) each.

        They do not depend on the tokens.

        Args:
            features: (B, C, rows, columns) conditioned image features.
        """
        cells = features.flatten(2).transpose(1, 2)
        normalised = F.layer_norm(cells, cells.shape[-1:], eps=_NORM_EPS)
        both = F.linear(normalised, self._weight) + self._bias
        parts = both.chunk(2 * len(self.layers), dim=-1)
        return parts[0::2], parts[1::2]


class _Attention(nn.Module):
    def __init__(self, config: ModelConfig, image_width: int) -> None:
        super().__init__()
        self.heads = config.token_heads
        self.q_proj = nn.Linear(config.token_width, config.token_inner)
        self.k_proj = nn.Linear(image_width, config.token_inner)
        self.v_proj = nn.Linear(image_width, config.token_inner)
        self.proj = nn.Linear(config.token_inner, config.token_width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the attention (B, N, C) of queries to keys and values that are projected."""
        return self.proj(attend(self.q_proj(queries), keys, values, self.heads))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the image, a feed-forward layer; each after a norm."""

    def __init__(self, config: ModelConfig, first: bool) -> None:
        super().__init__()
        width = config.token_width

        def norm(channels: int) -> nn.LayerNorm:
            return nn.LayerNorm(channels, eps=_NORM_EPS)

        self.first = first
        self.ln_pe_1, self.ln_pe_2 = norm(width), norm(config.width)
        self.ln1 = norm(width)
        self.self_attn = _Attention(config, width)
        self.ln2_1, self.ln2_2 = norm(width), norm(config.width)
        self.cross_attn = _Attention(config, config.width)
        self.ln3 = norm(width)
        self.ffn = Mlp(width, width, width, nn.GELU())

    def forward(self, x: Tensor, augment: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the tokens after this layer.

        Args:
            x: Tokens (B, N, C).
            augment: (B, N, C), what is added to queries (and to keys of tokens) as a position.
            keys: (B, cells, C) of the image, projected for this layer.
            values: Likewise.
        """
        position = self.ln_pe_1(augment)
        own = self.ln1(x)
        placed = own if self.first else own + position
        attention = self.self_attn
        x = x + attention(placed, attention.k_proj(placed), attention.v_proj(own))
        x = x + self.cross_attn(self.ln2_1(x) + position, keys, values)
        return x + self.ffn(self.ln3(x))
