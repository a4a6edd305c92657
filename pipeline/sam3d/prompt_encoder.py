"""Prompts: keypoints and a mask that say which body is meant, and where its joints are.

The parts are those of SAM's prompt encoder (Kirillov et al., Segment Anything, 2023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.sam3d.config import KEYPOINTS, ModelConfig
from pipeline.sam3d.layers import ChannelNorm

NOT_A_POINT, NO_PROMPT = -1, -2
"""Labels of a prompt beside the numbers of keypoints."""
_MASK_CHANNELS = (1, 4, 16, 64, 256)


class FourierCode(nn.Module):
    """Random Fourier features of positions (Tancik et al., Fourier Features, 2020)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.zeros(2, width // 2))

    def forward(self, positions: Tensor) -> Tensor:
        """Return the codes (..., C) of positions (..., 2) in the crop, x and y in [0, 1]."""
        angles = 2 * math.pi * ((2 * positions - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    def of_cells(self, config: ModelConfig) -> Tensor:
        """Return the codes (rows * columns, C) of the centres of the image features' cells."""
        matrix = self.positional_encoding_gaussian_matrix
        centres = (torch.arange(config.rows, device=matrix.device, dtype=matrix.dtype) + 0.5) / (
            config.rows
        )
        first = config.first_column
        y, x = torch.meshgrid(centres, centres[first : first + config.columns], indexing="ij")
        return self(torch.stack([x, y], dim=-1)).flatten(0, 1)


class PromptEncoder(nn.Module):
    """Codes of keypoint prompts and of masks, as wide as the image features."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.pe_layer = FourierCode(width)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(KEYPOINTS))
        self.not_a_point_embed = nn.Embedding(1, width)
        self.invalid_point_embed = nn.Embedding(1, width)
        steps: list[nn.Module] = []
        for inputs, outputs in zip(_MASK_CHANNELS, _MASK_CHANNELS[1:]):
            steps += [nn.Conv2d(inputs, outputs, 2, stride=2), ChannelNorm(outputs), nn.GELU()]
        self.mask_downscaling = nn.Sequential(*steps, nn.Conv2d(_MASK_CHANNELS[-1], width, 1))
        self.no_mask_embed = nn.Embedding(1, width)

    def forward(self, prompts: Tensor) -> Tensor:
        """Return the codes (B, P, C) of keypoint prompts.

        Args:
            prompts: (B, P, 3): x and y in [0, 1] of the square crop, and the keypoint's number in
                MHR-70, `NOT_A_POINT` or `NO_PROMPT`.
        """
        labels = prompts[..., 2].long()
        embeddings = (self.invalid_point_embed, self.not_a_point_embed, *self.point_embeddings)
        table = torch.cat([embedding.weight for embedding in embeddings])
        at_a_point = (labels >= 0)[..., None]
        code = self.pe_layer(prompts[..., :2])
        return table[labels - NO_PROMPT] + torch.where(at_a_point, code, torch.zeros_like(code))

    def no_prompt(self, count: int) -> Tensor:
        """Return the codes (B, 1, C) of as many people without prompts."""
        return self.invalid_point_embed.weight.expand(count, 1, -1)

    def of_masks(self, masks: Tensor, scores: Tensor) -> Tensor:
        """Return what masks add to the square's image features.

        Args:
            masks: (B, 1, side, side), 1 on the person and 0 elsewhere.
            scores: (B,) how far each mask is trusted; at 0 it counts as none.

        Returns:
            (B, C, rows, rows).
        """
        weights = scores[:, None, None, None]
        return torch.where(weights > 0, weights * self.mask_downscaling(masks), self.without_mask())

    def without_mask(self) -> Tensor:
        """Return what is added to the image features of people without a mask, (1, C, 1, 1)."""
        return self.no_mask_embed.weight[..., None, None]
