"""Crops of people: geometry, pixels, and the rays through the cells of the image features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.sam3d.config import RAY_FREQUENCIES, ModelConfig

BODY_PADDING, HAND_PADDING = 1.25, 0.9
"""Side of a crop in parts of its box's height, once the box has the aspect of a person."""
_ASPECT = 4 / 3
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of RGB in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Crops:
    """Square views of images. Crop pixel u shows image pixel ``(u - side / 2) / scale + centre``.

    Attributes:
        centres: (B, 2) image pixels.
        sides: (B,) image pixels.
        intrinsics: (B, 3, 3) of the images.
        side: Side of the crops, crop pixels.
    """

    centres: Tensor
    sides: Tensor
    intrinsics: Tensor
    side: int

    @property
    def scales(self) -> Tensor:
        """Crop pixels an image pixel, (B,)."""
        return self.side / self.sides

    def to(self, device: torch.device) -> Crops:
        """Return the crops on a device."""
        return Crops(
            self.centres.to(device), self.sides.to(device), self.intrinsics.to(device), self.side
        )

    def singles(self) -> list[Crops]:
        """Return each crop by itself."""
        parts = (self.centres.split(1), self.sides.split(1), self.intrinsics.split(1))
        return [Crops(centre, side, lens, self.side) for centre, side, lens in zip(*parts)]

    def repeated(self, times: int) -> Crops:
        """Return each crop ``times`` times, one after another."""
        parts = (self.centres, self.sides, self.intrinsics)
        centres, sides, intrinsics = (part.repeat_interleave(times, 0) for part in parts)
        return Crops(centres, sides, intrinsics, self.side)

    def to_image(self, points: Tensor) -> Tensor:
        """Return image pixels (B, N, 2) of crop pixels (B or 1, N, 2)."""
        return (points - self.side / 2) / self.scales[:, None, None] + self.centres[:, None]

    def from_image(self, points: Tensor) -> Tensor:
        """Return crop pixels (B, N, 2) of image pixels (B, N, 2)."""
        return (points - self.centres[:, None]) * self.scales[:, None, None] + self.side / 2

    def condition(self) -> Tensor:
        """Return where the crop is in the camera's view and how large, (B, 3), in focal lengths
        (Li et al., CLIFF, ECCV 2022)."""
        focal = self.intrinsics[:, 0, 0, None]
        offset = self.centres - self.intrinsics[:, :2, 2]
        return torch.cat([offset, self.sides[:, None]], dim=1) / focal

    def camera_translation(self, camera: Tensor, scale_factor: float) -> Tensor:
        """Return the translations (B, 3) in metres that put bodies before the camera.

        Args:
            camera: (B, 3): minus the scale, then x to the right and y up, metres.
            scale_factor: Times how much larger a part of the body appears in its crop: 1 for
                bodies, 10 for hands.
        """
        size, x, y = camera.unbind(1)
        # The crop spans two metres at scale 1.
        pixels_per_m = -size * self.sides * scale_factor / 2 + 5e-9
        offset = (self.centres - self.intrinsics[:, :2, 2]) / pixels_per_m[:, None]
        depth = self.intrinsics[:, 0, 0] / pixels_per_m
        return torch.stack([x + offset[:, 0], offset[:, 1] - y, depth], dim=1)

    def project(self, points_m: Tensor) -> Tensor:
        """Return image pixels (B, N, 2) of points (B, N, 3) in metres, in the camera's axes."""
        on_image = points_m @ self.intrinsics.transpose(1, 2)
        return on_image[..., :2] / on_image[..., 2:]


def crops_of_boxes(boxes: Tensor, intrinsics: Tensor, side: int, padding: float) -> Crops:
    """Return the crops of boxes.

    Args:
        boxes: (B, 4): x0, y0, x1, y1 in image pixels.
        intrinsics: (B, 3, 3).
        side: Side of the crops, pixels.
        padding: `BODY_PADDING` or `HAND_PADDING`.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    width, height = (high - low).unbind(1)
    sides = padding * torch.maximum(height, _ASPECT * width)
    return Crops((low + high) / 2, sides, intrinsics, side)


def crop_images(images: Tensor, numbers: Tensor, crops: Crops) -> Tensor:
    """Return the crops' pixels as OpenCV's ``warpAffine`` gives them: bilinear, black outside.

    Args:
        images: (T, H, W, C) uint8.
        numbers: (B,) which image each crop is of.
        crops: Their geometry.

    Returns:
        (B, C, side, side) float32, whole numbers from 0 to 255.
    """
    pixels = torch.arange(crops.side, device=images.device, dtype=crops.sides.dtype)
    places = (pixels - crops.side / 2) / crops.scales[:, None, None] + crops.centres[..., None]
    whole = places.floor()
    (part_x, part_y), (left, top) = (places - whole).unbind(1), whole.long().unbind(1)
    _, height, width, channels = images.shape
    flat = images.reshape(-1, channels)

    def corner(right: int, below: int) -> Tensor:
        """Pixels beside the places, times their share of the place, (B, side, side, C)."""
        columns, rows = (left + right)[:, None], (top + below)[..., None]
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        index = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
        share_x, share_y = part_x if right else 1 - part_x, part_y if below else 1 - part_y
        shares = share_x[:, None] * share_y[..., None] * inside
        return flat[index + numbers[:, None, None] * (height * width)] * shares[..., None]

    blended = corner(0, 0) + corner(1, 0) + corner(0, 1) + corner(1, 1)
    return blended.round().permute(0, 3, 1, 2)


def normalise(pixels: Tensor, config: ModelConfig) -> Tensor:
    """Return the backbone's input (B, 3, side, columns' width) of crops with values 0 to 255."""
    first = config.first_column * config.patch
    pixels = pixels[..., first : first + config.columns * config.patch]
    colours = [
        (colour / 255 - mean) / std for colour, mean, std in zip(pixels.unbind(1), MEAN, STD)
    ]
    return torch.stack(colours, dim=1)


def ray_features(crops: Crops, cells: Tensor, config: ModelConfig) -> Tensor:
    """Return the rays through the image features' cells and their codes, (B, 99, rows, columns).

    Args:
        crops: The crops.
        cells: Of `cell_centres`.
        config: The model's sizes.

    Returns:
        x / z and y / z of the camera, 1, and the sines and cosines of these three.
    """
    pixels = crops.to_image(cells[None])
    focal = crops.intrinsics.diagonal(dim1=1, dim2=2)[:, None, :2]
    plane = (pixels - crops.intrinsics[:, None, :2, 2]) / focal
    rays = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1)
    frequencies = torch.linspace(1, RAY_FREQUENCIES * 2, RAY_FREQUENCIES, device=rays.device)
    angles = (math.pi * rays[..., None] * frequencies).flatten(2)
    features = torch.cat([rays, angles.sin(), angles.cos()], dim=-1)
    return features.transpose(1, 2).unflatten(2, (config.rows, config.columns))


def cell_centres(config: ModelConfig) -> Tensor:
    """Return the places of the image features' cells, (rows * columns, 2), crop pixels."""
    first = config.first_column * config.patch
    x = first + _centres(config.columns, config.patch)
    y, x = torch.meshgrid(_centres(config.rows, config.patch), x, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1).float()


def _centres(cells: int, patch: int) -> Tensor:
    """Places of cells along one side, (cells,) float64, pixels.

    The release shrinks a map of all pixels' rays with a triangle filter of two cells. The mean of
    places under it is the cell's middle; at the rim the filter is cut off, so the mean lies inside.
    """
    pixels = torch.arange(cells * patch, dtype=torch.float64)
    middles = (torch.arange(cells, dtype=torch.float64) + 0.5) * patch - 0.5
    weights = (1 - (pixels - middles[:, None]).abs() / patch).clamp(min=0)
    return (weights @ pixels) / weights.sum(1)
