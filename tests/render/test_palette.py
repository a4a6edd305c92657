"""The colours of tracks: different with any colour vision, and never those of skin."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from render.palette import COLORS, track_color, track_colors

# Linear RGB as seen with no cones of one kind (Machado, Oliveira and Fernandes, 2009, severity 1).
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
# Oklab (Ottosson, 2020).
TO_LMS = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
          [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
TO_LAB = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
          [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip


def seen(colors, sight="normal") -> np.ndarray:
    """Colours (N, 3) in Oklab."""
    rgb = np.asarray(colors, float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.transpose(SIGHT[sight]), 0, 1)
    return np.cbrt(linear @ np.transpose(TO_LMS)) @ np.transpose(TO_LAB)


@pytest.mark.parametrize("sight", SIGHT)
def test_the_first_eight_can_be_told_apart(sight):
    lab = seen(COLORS, sight)
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)) > 0.13


def test_none_has_the_hue_of_skin():
    """Skin of any tone lies between about 30 and 75 degrees; all its shades have its hue."""
    _, a, b = seen(COLORS).T
    hue = np.degrees(np.arctan2(b, a)) % 360
    assert ((hue > 95) | (hue < 5)).all()
    assert (np.hypot(a, b) > 0.09).all()
    skin = seen([(0.95, 0.8, 0.7), (0.78, 0.57, 0.44), (0.45, 0.3, 0.22), (0.25, 0.16, 0.12)])
    own = np.degrees(np.arctan2(skin[:, 2], skin[:, 1]))
    assert ((own > 30) & (own < 75)).all()


@given(st.integers(0, 10**9))
def test_a_track_keeps_its_colour(track):
    assert track_color(track) == track_color(track)
    assert len({track_color(track + k) for k in range(8)}) == 8
    assert track_color(1) == COLORS[0]


@given(st.lists(st.integers(1, 10_000)))
def test_the_colors_of_many_are_those_of_each(tracks):
    expected = np.array([track_color(track) for track in tracks]).reshape(-1, 3)
    assert np.array_equal(track_colors(tracks), expected)
