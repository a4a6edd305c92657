"""The choices of a seed besides the people: place, camera, light, speed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synth.backdrop import PLACES, Light


@dataclass(frozen=True)
class Setup:
    """The choices of a seed besides the people: the ``place``, of `PLACES`; the camera's
    ``yaw_deg`` around the first person (0: seen from where the person faces at rest, 90: from the
    left), its ``height_m`` and its focal length ``focal`` in diagonals of the picture; the
    ``share`` of the picture's height that a person fills; the sun's ``azimuth_deg`` and
    ``elevation_deg``; ``cloud`` from 0 to 1; ``exposure``; ``shutter``, the exposure's share of a
    frame; and the ``tempo`` and ``manner`` of the motions."""

    place: str
    yaw_deg: float
    height_m: float
    focal: float
    share: float
    azimuth_deg: float
    elevation_deg: float
    cloud: float
    exposure: float
    shutter: float
    tempo: float
    manner: float


SAMPLE = Setup("ballpark", 22.0, 1.55, 1.0, 0.62, -28.0, 47.0, 0.15, 1.1, 0.32, 1.0, 0.0)
"""The setup of the shipped sample: a pitch by one person, seed `SAMPLE_SEED`."""
SAMPLE_SEED = 11


def random_setup(seed: int, throws: bool) -> Setup:
    """Return the setup of a seed. Consecutive seeds look from all sides: each view is turned by the
    golden angle. Every thousand starts at another angle, so that suites do not see a motion from
    the same side."""
    random = np.random.default_rng([seed, 1])
    return Setup(
        place="ballpark" if throws else PLACES[random.integers(1, len(PLACES))],
        yaw_deg=(137.508 * seed + 140.0 * (seed // 1000)) % 360 - 180,
        height_m=random.uniform(0.9, 2.4),
        focal=random.uniform(0.75, 1.5),
        share=random.uniform(0.38, 0.72),
        azimuth_deg=random.uniform(-180, 180),
        elevation_deg=random.uniform(28, 70),
        cloud=random.choice([random.uniform(0, 0.3), random.uniform(0.7, 1)]),
        exposure=random.uniform(0.9, 1.5),
        shutter=random.uniform(0.12, 0.5),
        tempo=random.uniform(0.85, 1.2),
        manner=1.0,
    )


def make_light(setup: Setup) -> Light:
    """Return sun and sky that together light level ground by 1."""
    up, way = np.radians(setup.elevation_deg), np.radians(setup.azimuth_deg)
    towards = np.array([np.cos(up) * np.sin(way), np.sin(up), np.cos(up) * np.cos(way)])
    sky = 0.24 + 0.46 * setup.cloud
    if setup.place == "hall":
        sky = 0.55
    sun = (1 - sky) / np.sin(up)
    low = np.clip((50 - setup.elevation_deg) / 50, 0, 1) * (1 - setup.cloud)
    warm = np.array([1.0, 1.0 - 0.10 * low, 1.0 - 0.28 * low])
    blue = 1 - (1 - setup.cloud) * np.array([0.18, 0.08, -0.12])
    spread = 0.006 + 0.05 * setup.cloud + 0.05 * (setup.place == "hall")
    return Light(towards, sun * warm, sky * blue, spread)
