"""The grounds: functions that return the linear albedo (..., 3) at places x, z in metres, where a
pixel of the picture is ``pixel`` metres wide."""

from __future__ import annotations

import cv2
import numpy as np


class Noise:
    """Smooth noise over the plane, the same at every call: octaves of a periodic random table,
    without the ones that are finer than a pixel."""

    def __init__(self, random: np.random.Generator) -> None:
        self._table = random.uniform(-1, 1, (257, 257)).astype(np.float32)
        self._table[-1], self._table[:, -1] = self._table[0], self._table[:, 0]

    def __call__(
        self, u: np.ndarray, v: np.ndarray, waves_m: tuple[float, ...], pixel_m: np.ndarray | float
    ) -> np.ndarray:
        total = np.zeros(u.shape, np.float32)
        for k, wave in enumerate(waves_m):
            x = np.mod(u / wave + 37.3 * k, 256).astype(np.float32)
            y = np.mod(v / wave + 11.7 * k, 256).astype(np.float32)
            visible = np.clip(wave / np.maximum(pixel_m, 1e-6) - 0.7, 0, 1)
            total += visible * cv2.remap(self._table, x, y, cv2.INTER_LINEAR)
        return total / np.sqrt(len(waves_m))


def _grass(
    x: np.ndarray, z: np.ndarray, pixel: np.ndarray, noise: Noise, random: np.random.Generator
) -> np.ndarray:
    coarse = noise(x, z, (1.9, 0.9, 0.45), pixel)
    fine = noise(x, z, (0.11, 0.05, 0.024), pixel)
    way = random.uniform(0, np.pi)
    mown = np.tanh(3 * np.sin((x * np.cos(way) + z * np.sin(way)) * np.pi / 2.2))
    value = 1 + 0.09 * mown + 0.10 * coarse + 0.22 * fine
    tone = np.array([0.095, 0.185, 0.042]) * random.uniform(0.85, 1.15, 3)
    return tone * np.clip(value, 0.2, 2)[..., None] * (1 + 0.06 * coarse[..., None] * [1, 0, -1])


def _dirt(x: np.ndarray, z: np.ndarray, pixel: np.ndarray, noise: Noise) -> np.ndarray:
    coarse = noise(x + 31, z, (1.1, 0.5, 0.25), pixel)
    fine = noise(x, z + 17, (0.09, 0.045, 0.02), pixel)
    specks = np.clip(noise(x + 5, z + 3, (0.035, 0.016), pixel) - 0.75, 0, 1)
    value = 1 + 0.10 * coarse + 0.12 * fine - 0.7 * specks
    return np.array([0.34, 0.185, 0.095]) * np.clip(value, 0.25, 2)[..., None]


def _ballpark(
    x: np.ndarray, z: np.ndarray, pixel: np.ndarray, noise: Noise, random: np.random.Generator
) -> np.ndarray:
    grass, dirt = _grass(x, z, pixel, noise, random), _dirt(x, z, pixel, noise)
    ragged = 0.035 * noise(x, z, (0.6, 0.3, 0.12, 0.06), pixel)
    edge = np.hypot((x - 0.7) / 3.0, z / 2.6) + ragged
    mix = np.clip((1.0 - edge) / 0.025, 0, 1)[..., None]
    # Spikes have dug up and darkened the soil in front of the rubber and where the stride lands.
    worn = np.exp(-(((x - 0.25) / 0.35) ** 2) - (z / 0.3) ** 2)
    worn += np.exp(-(((x - 1.55) / 0.4) ** 2) - ((z - 0.2) / 0.3) ** 2)
    dug = noise(x + 3, z + 9, (0.22, 0.1, 0.05), pixel)
    dirt = dirt * (1 - worn * (0.22 + 0.22 * dug))[..., None]
    rubber = np.clip((0.075 - np.abs(x + 0.135)) / 0.01, 0, 1) * np.clip(
        (0.305 - np.abs(z)) / 0.01, 0, 1
    )
    dirt = dirt + (0.62 - dirt) * (0.85 * rubber)[..., None]
    return dirt * mix + grass * (1 - mix)


def _park(
    x: np.ndarray, z: np.ndarray, pixel: np.ndarray, noise: Noise, random: np.random.Generator
) -> np.ndarray:
    grass = _grass(x, z, pixel, noise, random)
    way, off = random.uniform(0, np.pi), random.uniform(1.5, 4)
    across = np.abs(x * np.cos(way) + z * np.sin(way) - off)
    across = across + 0.08 * noise(x, z, (0.9, 0.3, 0.1), pixel)
    gravel = np.array([0.36, 0.32, 0.26]) * (
        1 + 0.12 * noise(x, z, (0.4, 0.05, 0.02), pixel)[..., None]
    )
    mix = np.clip((1.0 - across) / 0.05, 0, 1)[..., None]
    return gravel * mix + grass * (1 - mix)


def _plaza(
    x: np.ndarray, z: np.ndarray, pixel: np.ndarray, noise: Noise, random: np.random.Generator
) -> np.ndarray:
    size = random.uniform(0.4, 0.8)
    row = np.floor(z / size)
    column = np.floor(x / size + 0.5 * (row % 2))
    tile = np.sin(row * 12.9898 + column * 78.233) * 43758.5453
    tile = tile - np.floor(tile)
    edge = np.maximum(np.abs((x / size + 0.5 * (row % 2)) % 1 - 0.5), np.abs(z / size % 1 - 0.5))
    joint = np.clip((edge - 0.485) / 0.01, 0, 1) * np.clip(0.03 / np.maximum(pixel, 1e-3), 0, 1)
    value = 0.9 + 0.16 * tile + 0.08 * noise(x, z, (1.3, 0.2, 0.05, 0.02), pixel) - 0.35 * joint
    tone = np.array([0.38, 0.36, 0.33]) * random.uniform(0.6, 1.1)
    return tone * value[..., None]


def _hall(
    x: np.ndarray, z: np.ndarray, pixel: np.ndarray, noise: Noise, random: np.random.Generator
) -> np.ndarray:
    plank = np.floor(x / 0.09)
    tone = np.sin(plank * 12.9898 + np.floor(z / 1.8 + plank * 0.37) * 4.1) * 43758.5453
    tone = tone - np.floor(tone)
    grain = noise(x * 9, z * 0.8, (0.3, 0.1), pixel)
    value = 0.92 + 0.14 * tone * np.clip(0.05 / np.maximum(pixel, 1e-3), 0, 1) + 0.07 * grain
    wood = np.array([0.46, 0.29, 0.15]) * random.uniform(0.8, 1.2) * value[..., None]
    off = random.uniform(0.8, 2.5)
    line = (np.abs(np.abs(x) - off - 1.2) < 0.025) | (np.abs(z + off) < 0.025)
    return np.where(line[..., None], np.array([0.75, 0.75, 0.72]), wood)


GROUNDS = {"ballpark": _ballpark, "park": _park, "plaza": _plaza, "hall": _hall}
