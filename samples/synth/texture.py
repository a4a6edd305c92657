"""Paint a person's texture: skin, hair and garments, in MakeHuman's own texture layout."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

from synth.clothes import (
    FIT,
    HAIR,
    HAT,
    SHIRT,
    SKIN,
    TRIM,
    TROUSERS,
    Outfit,
    folds,
    labels,
)
from synth.raster import rasterize

TEXELS = 1024
EYES = 14598
"""The base mesh's eyes: this vertex to the last that a triangle uses."""


def bake(
    uv: np.ndarray,
    skin: np.ndarray,
    faces: np.ndarray,
    joints: np.ndarray,
    outfit: Outfit,
    masks: dict[str, np.ndarray],
    floor: float,
    random: np.random.Generator,
) -> np.ndarray:
    """Return the body's texture (1024, 1024, 4) float32: linear albedo and gloss.

    ``uv`` (F, 3, 2) is in texels; ``skin`` (V, 3) is at rest; ``masks`` are MakeHuman's masks of
    face, lips and ears (1024, 1024), in [0, 1].
    """
    place, triangle = _unwrap(uv, skin, faces)
    points = place.reshape(-1, 3)
    label = labels(points, joints, outfit, floor)
    label[(label == HAIR) & (masks["face"].ravel() > 0.5)] = SKIN
    label[(np.isin(label, (HAIR, HAT))) & (masks["ears"].ravel() > 0.3)] = SKIN
    colors = np.array([outfit.colors[k] for k in range(11)])[label]
    colors = _printed(colors, label, points, joints, outfit)
    skinny = (label == SKIN)[:, None]
    lips = masks["lips"].ravel()[:, None] * skinny
    colors = colors * (1 - 0.8 * lips * (1 - np.array([0.85, 0.66, 0.66])))
    flush = cv2.GaussianBlur(random.normal(0, 1, (TEXELS, TEXELS)), (0, 0), 25).ravel()[:, None]
    colors = colors * (1 + skinny * 1.2 * flush * np.array([0.6, 1.0, 1.0]))
    eyes = skin[EYES:]
    brow = eyes[:, 1].mean() + 0.021
    x = np.abs(points[:, 0])
    arch = np.abs(points[:, 1] - brow - 0.1 * (0.035 - np.abs(x - 0.035))) < 0.0035
    arch &= (x > 0.014) & (x < 0.055) & (points[:, 2] > joints[15, 2] + 0.03) & skinny[:, 0]
    colors[arch] = 0.3 * colors[arch] + 0.7 * np.array(outfit.colors[HAIR])
    in_eye = (faces.min(1) >= EYES)[triangle.ravel()]
    ahead = points[in_eye, 2] - eyes[:, 2].max()
    sides = 0.72 * (1 - 0.1 * (ahead < -0.004)[:, None]) * np.array([1.0, 0.97, 0.94])
    colors[in_eye] = np.where((ahead > -0.0022)[:, None], outfit.colors[HAIR], sides)
    weave = cv2.GaussianBlur(random.normal(0, 1, (TEXELS, TEXELS)), (0, 0), 0.8).ravel()[:, None]
    colors = colors * (1 + np.where(skinny, 0.02, 0.09) * weave)
    crease = 0.045 * folds(points * 1.7, random)[:, None]
    colors = np.where(np.isin(label, (SHIRT, TROUSERS))[:, None], colors * (1 + crease), colors)
    gloss = np.array([FIT[k][3] for k in range(11)])[label]
    out = np.column_stack((np.clip(colors, 0.01, 1) ** 2.2, gloss))
    return out.reshape(TEXELS, TEXELS, 4).astype(np.float32)


def _printed(
    colors: np.ndarray, label: np.ndarray, points: np.ndarray, joints: np.ndarray, outfit: Outfit
) -> np.ndarray:
    """Paint number, button line and pinstripes on a jersey."""
    if not outfit.number:
        return colors
    x, y, z = points.T
    trim = np.array(outfit.colors[TRIM])
    shirt = label == SHIRT
    if outfit.stripes:
        lined = shirt & (np.abs((x + 0.5) % 0.05 - 0.025) < 0.0022)
        colors[lined & (np.abs(x) < 0.16)] = 0.6 * trim + 0.05
    colors[shirt & (np.abs(x) < 0.006) & (z > 0)] *= 0.75
    seam = (label == TROUSERS) & (np.abs(z - 0.6 * joints[4, 2]) < 0.010)
    seam &= np.abs(x) > np.abs(joints[1, 0]) + 0.02 + 0.02 * (y < -0.2)
    if not outfit.stripes:
        colors[seam] = trim
    sheet = np.zeros((200, 240), np.uint8)
    text = str(outfit.number)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 5, 22)
    origin = (120 - width // 2, 100 + height // 2)
    cv2.putText(sheet, text, origin, cv2.FONT_HERSHEY_DUPLEX, 5, 255, 22, cv2.LINE_AA)
    centre = joints[6, 1] + 0.06
    for front, scale in ((False, 800.0), (True, 2000.0)):
        u = 120 + (x - 0.08) * scale if front else 120 - x * scale
        v = 100 - (y - centre - 0.05 * front) * scale
        inked = cv2.remap(sheet, u.astype(np.float32).reshape(TEXELS, -1),
                          v.astype(np.float32).reshape(TEXELS, -1), cv2.INTER_LINEAR)  # fmt: skip
        inked = inked.ravel() / 255 * (shirt & ((z > 0.02) == front) & (np.abs(x) < 0.2))
        colors = colors * (1 - inked[:, None]) + trim * inked[:, None]
    return colors


def _unwrap(uv: np.ndarray, skin: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rest position (T, T, 3) of the skin under each texel, and its triangle (T, T),
    both extended beyond the seams."""
    corners = np.column_stack((uv.reshape(-1, 2), np.ones(uv.size // 2)))
    triangles = np.arange(len(corners)).reshape(-1, 3)
    place = np.zeros((TEXELS, TEXELS, 3))
    for axis in range(3):
        nearest = np.zeros((TEXELS, TEXELS), np.float32)
        ids = np.full((TEXELS, TEXELS), -1, np.int32)
        # The drawn key is the coordinate itself, shifted above 0.
        corners[:, 2] = skin[faces.ravel(), axis] + 10.0
        rasterize(corners, triangles, nearest, ids)
        place[..., axis] = nearest - 10.0
    rows, columns = distance_transform_edt(ids < 0, return_distances=False, return_indices=True)
    return place[rows, columns], ids[rows, columns]
