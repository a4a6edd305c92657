"""BlazePose's landmark model: one person's region in, 33 landmarks, world landmarks, mask out."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from pipeline.people import Mask, Person
from pipeline.perceive.detector import Region, region_between

INPUT = 256
MASK = 128
"""Side of the masks handed on: half the model's, which is finer than its edges are sharp."""
_KERNEL = 7
_MIN_HEAT = 0.5


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def crop(image: np.ndarray, region: Region) -> np.ndarray:
    """The region upright as the landmark model's input (256, 256, 3) float32 in [0, 1]."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    small = cv2.warpAffine(
        image, region.to_image(INPUT), (INPUT, INPUT), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return small * np.float32(1 / 255)


def refine(points: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Move landmarks (L, 2) in [0, 1] to the centre of heat around them.

    ``heatmaps`` (h, w, L) are logits. As MediaPipe's refinement: a 7 x 7 neighbourhood, cut at
    the border; landmarks whose heat nowhere reaches 0.5 stay.
    """
    height, width, count = heatmaps.shape
    reach = (_KERNEL - 1) // 2
    col = (points[:, 0] * width).astype(int)
    row = (points[:, 1] * height).astype(int)
    step = np.arange(-reach, reach + 1)
    rows, cols = row[:, None] + step, col[:, None] + step
    ok = ((rows >= 0) & (rows < height))[:, :, None] & ((cols >= 0) & (cols < width))[:, None]
    r, c = np.clip(rows, 0, height - 1), np.clip(cols, 0, width - 1)
    heat = sigmoid(heatmaps[r[:, :, None], c[:, None, :], np.arange(count)[:, None, None]]) * ok
    inside = (col >= 0) & (col < width) & (row >= 0) & (row < height)
    total = heat.sum((1, 2))
    sure = inside & (heat.max((1, 2)) >= _MIN_HEAT) & (total > 0)
    x = (heat * cols[:, None, :]).sum((1, 2)) / np.maximum(total, 1e-9) / width
    y = (heat * rows[:, :, None]).sum((1, 2)) / np.maximum(total, 1e-9) / height
    return np.where(sure[:, None], np.stack((x, y), 1), points)


def read_person(
    region: Region,
    landmarks: np.ndarray,
    presence: float,
    mask: np.ndarray,
    heatmaps: np.ndarray,
    world: np.ndarray,
) -> tuple[Person, Region]:
    """The model's five outputs for a region -> the person, and the region to look in next.

    ``landmarks`` (195,), ``mask`` (256, 256) and ``heatmaps`` (64, 64, 39) logits, ``world``
    (117,) metres.
    """
    values = landmarks.reshape(39, 5)
    points = refine(values[:, :2] / INPUT, heatmaps)
    to_image = region.to_image(INPUT)
    pixels = (points * INPUT) @ to_image[:, :2].T + to_image[:, 2]
    visibility = sigmoid(values[:33, 3]).astype(np.float32)
    c, s = np.cos(region.angle), np.sin(region.angle)
    turned = world.reshape(39, 3)[:33].copy()
    turned[:, :2] = turned[:, :2] @ np.array([[c, s], [-s, c]])

    small = cv2.resize(mask, (MASK, MASK), interpolation=cv2.INTER_AREA)
    shrink = INPUT / MASK
    # A small pixel's centre lies between those of the pixels it averages.
    mask_map = to_image @ np.array(
        [[shrink, 0, (shrink - 1) / 2], [0, shrink, (shrink - 1) / 2], [0, 0, 1]]
    )
    followed = region_between(pixels[33], pixels[34], presence, region.id)
    person = Person(
        box_px=box_around(pixels[:33], visibility),
        score=presence,
        landmarks_px=pixels[:33].astype(np.float32),
        visibility=visibility,
        world_m=turned.astype(np.float32),
        mask=Mask(sigmoid(small).astype(np.float32), mask_map.astype(np.float32)),
        region=region.id,
    )
    return person, replace(followed, missed=0)


def box_around(points: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Box (4,) float32 around the visible landmarks, or around all when few are visible."""
    seen = points[visibility > 0.5]
    chosen = seen if len(seen) >= 4 else points
    return np.concatenate((chosen.min(0), chosen.max(0))).astype(np.float32)
