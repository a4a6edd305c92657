"""The decoders on a GPU: what `Branch` computes, with a tenth of the kernels.

Products of tokens are in half precision (FP16, whose fraction has as many bits as TF32's), those of
the heads and the rig in float32. Tokens, norms and all geometry are float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
import triton
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.sam3d import decoder_kernels_gpu as kernels
from pipeline.sam3d.branch import HAND_BOXES, Branch, Estimate, ImageFeatures
from pipeline.sam3d.config import KEYPOINTS
from pipeline.sam3d.crops import Crops, ray_features
from pipeline.sam3d.decoder import DecoderLayer
from pipeline.sam3d.kernels_gpu import add_norm
from pipeline.sam3d.layers import CHANNEL_NORM_EPS, Mlp, attend, linear_of
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.rig_gpu import FastHeads, Places

Product = Callable[[Tensor], Tensor]


class Looked(ImageFeatures):
    """What a decoder needs of crops: in half precision, and the cells (B, cells, C) one after
    another."""


class FastDecoders:
    """Both decoders of a network, with its own names for what they do.

    Args:
        network: The network, prepared.

    Attributes:
        half: The type in which products of tokens are computed.
    """

    def __init__(self, network: Sam3dBody) -> None:
        self._network = network
        self.rig = network.rig
        self.body = network.body
        # On a CPU, where the kernels are only tested, halves would hide errors.
        self.half = torch.float16 if network.cells.is_cuda else torch.float32
        self._branches = tuple(
            _FastBranch(network, branch, self.half) for branch in (network.body, network.hand)
        )

    def look(self, features: Tensor, crops: Crops, hand: bool = False) -> Looked:
        """Return what a decoder needs of crops.

        Args:
            features: (B, cells, C) of the backbone.
            crops: The crops.
            hand: Whether it is for the hands' decoder.
        """
        return self._branches[hand].look(features, crops)

    def decode(
        self,
        looked: Looked,
        prompts: Tensor | None = None,
        previous: Estimate | None = None,
        hand: bool = False,
    ) -> Estimate:
        """Return the estimate of a decoder. Arguments as of `Sam3dBody.decode`."""
        encoder = self._network.prompt_encoder
        codes = encoder.no_prompt(len(looked.cells)) if prompts is None else encoder(prompts)
        tokens = self._network.prompt_to_token(codes)
        return self._branches[hand].decode(looked, tokens, previous)


class _FastBranch:
    """`Branch` with our kernels."""

    def __init__(self, network: Sam3dBody, branch: Branch, half: torch.dtype) -> None:
        self._config, self._branch = network.config, branch
        self._heads = FastHeads(branch, network.rig)
        self._half = half
        self._centres = network.cells
        conv, width = branch.ray_cond_emb.conv.weight.flatten(1), network.config.width
        self._of_features = conv[:, :width].to(half).contiguous()
        self._of_rays = conv[:, width:].t().to(half).contiguous()
        without_mask = network.prompt_encoder.without_mask().flatten()
        self._features_bias = (conv[:, :width] @ without_mask).to(half)
        weight, bias = branch.decoder.of_keys_values
        self._of_keys_values = weight.t().to(half).contiguous()
        self._keys_values_bias = bias.to(half)
        self._plain = (
            torch.ones(width, device=conv.device),
            torch.zeros(width, device=conv.device),
        )
        layers = cast("list[DecoderLayer]", branch.decoder.layers)
        self._layers = [_FastLayer(layer, half) for layer in layers]
        self._feature_token = _product(branch.keypoint_feat_linear, half)
        self._in_image = _product(_last(branch.keypoint_posemb_linear), half)
        self._in_space = _product(_last(branch.keypoint3d_posemb_linear), half)

    def look(self, features: Tensor, crops: Crops) -> Looked:
        rays = ray_features(crops, self._centres, self._config).flatten(2).transpose(1, 2)
        count, cells, width = features.shape
        of_image = F.linear(features.to(self._half), self._of_features, self._features_bias)
        joined = torch.addmm(
            of_image.flatten(0, 1), rays.flatten(0, 1).to(self._half), self._of_rays
        )
        norm = self._branch.ray_cond_emb.norm
        known = add_norm(joined, None, norm.weight, norm.bias, CHANNEL_NORM_EPS, False).values
        normed = add_norm(known, None, *self._plain, CHANNEL_NORM_EPS, False).values
        both = torch.baddbmm(
            self._keys_values_bias.expand(count, -1, -1),
            normed.view(count, cells, width),
            self._of_keys_values.expand(count, -1, -1),
        )
        parts = both.chunk(2 * len(self._layers), dim=-1)
        return Looked(crops, known.view(count, cells, width), parts[0::2], parts[1::2])

    def decode(self, looked: Looked, prompts: Tensor, previous: Estimate | None) -> Estimate:
        branch = self._branch
        x, augment = branch.first_tokens(looked.crops, prompts, previous)
        x, augment = x.contiguous(), augment.contiguous()
        final = branch.decoder.norm_final
        for i, layer in enumerate(self._layers):
            added = layer(x, augment, looked.keys[i], looked.values[i])
            tokens = _add_and_norm(x, added, final, None, torch.float32)
            estimate, places = self._heads(tokens[:, 0], looked.crops)
            if i + 1 < len(self._layers):
                self._move_keypoints(x, augment, looked.cells, places)
        boxes = branch.bbox_embed(tokens[:, HAND_BOXES]).sigmoid()
        return replace(estimate, hand_boxes=boxes)

    def _move_keypoints(self, x: Tensor, augment: Tensor, cells: Tensor, places: Places) -> None:
        """`Branch.move_keypoints`, in place."""
        branch, config = self._branch, self._config
        (count, tokens, width), channels = x.shape, cells.shape[2]
        rows = count * KEYPOINTS
        sampled = cells.new_empty(rows, channels)
        hidden = [cells.new_empty(rows, width) for _ in range(2)]
        first = [
            _first(each)
            for each in (branch.keypoint_posemb_linear, branch.keypoint3d_posemb_linear)
        ]
        kernels.sample[(rows,)](
            cells, places.in_crop, places.seen, sampled, *hidden,
            first[0].weight, first[0].bias, first[1].weight, first[1].bias, places.from_hips,
            channels, width, config.rows / config.columns,
            ROWS=config.rows, COLUMNS=config.columns, KEYPOINTS=KEYPOINTS,
            CHANNELS=triton.next_power_of_2(channels), WIDTH=triton.next_power_of_2(width),
        )  # fmt: skip
        kernels.move[(rows,)](
            x, augment, self._feature_token(sampled), self._in_image(hidden[0]),
            self._in_space(hidden[1]), places.seen, tokens, width,
            KEYPOINTS=KEYPOINTS, BLOCK=triton.next_power_of_2(width),
        )  # fmt: skip


class _FastLayer:
    """`DecoderLayer` with our kernels."""

    def __init__(self, layer: DecoderLayer, half: torch.dtype) -> None:
        self._layer, self._half = layer, half
        own, image = layer.self_attn, layer.cross_attn
        # Queries and keys of the tokens have the same input.
        self._qk = _product(_stacked(own.q_proj, own.k_proj), half)
        self._v, self._proj = _product(own.v_proj, half), _product(own.proj, half)
        self._image_q, self._image_proj = _product(image.q_proj, half), _product(image.proj, half)
        self._into, self._out = (
            _product(each, half) for each in (_first(layer.ffn), _last(layer.ffn))
        )

    def __call__(self, x: Tensor, augment: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return what is to be added to the tokens after the layer; x gets what comes before."""
        layer = self._layer
        own, placed, position = self._first_norms(x, augment)
        q, k = self._qk(placed).chunk(2, dim=-1)
        heads = layer.self_attn.heads
        added = self._proj(attend(q, k, self._v(own), heads))
        placed = _add_and_norm(x, added, layer.ln2_1, position, self._half)
        added = self._image_proj(attend(self._image_q(placed), keys, values, heads))
        normed = _add_and_norm(x, added, layer.ln3, None, self._half)
        return self._out(F.gelu(self._into(normed)))

    def _first_norms(self, x: Tensor, augment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layer, width = self._layer, x.shape[2]
        own, placed = (torch.empty_like(x, dtype=self._half) for _ in range(2))
        position = torch.empty_like(x)
        kernels.first_norms[(x.shape[0] * x.shape[1],)](
            x, augment, layer.ln1.weight, layer.ln1.bias, layer.ln_pe_1.weight, layer.ln_pe_1.bias,
            own, placed, position, width, layer.ln1.eps,
            FIRST=layer.first, BLOCK=triton.next_power_of_2(width),
        )  # fmt: skip
        return own, placed, position


def _add_and_norm(
    x: Tensor, added: Tensor, norm: nn.LayerNorm, position: Tensor | None, dtype: torch.dtype
) -> Tensor:
    out = torch.empty_like(x, dtype=dtype)
    width = x.shape[2]
    kernels.add_and_norm[(x.shape[0] * x.shape[1],)](
        x, added, norm.weight, norm.bias, x if position is None else position, out, width, norm.eps,
        PLACED=position is not None, BLOCK=triton.next_power_of_2(width),
    )  # fmt: skip
    return out


def _product(layer: nn.Linear, half: torch.dtype) -> Product:
    weight, bias = layer.weight.to(half), layer.bias.to(half)
    return lambda values: F.linear(values, weight, bias)


def _stacked(*layers: nn.Linear) -> nn.Linear:
    """One layer for several of the same input, their outputs side by side."""
    weight = torch.cat([layer.weight for layer in layers])
    return linear_of(weight, torch.cat([layer.bias for layer in layers]))


def _first(mlp: Mlp) -> nn.Linear:
    return cast("Any", mlp.layers[0])[0]


def _last(mlp: Mlp) -> nn.Linear:
    return cast(nn.Linear, mlp.layers[1])
