"""The colours of tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COLORS: tuple[tuple[float, float, float], ...] = (
    (0.3, 0.6, 1.0),
    (1.0, 0.9, 0.2),
    (0.7, 0.1, 0.5),
    (0.4, 1.0, 1.0),
    (0.7, 0.7, 0.1),
    (0.4, 0.1, 1.0),
    (0.5, 0.5, 0.1),
    (1.0, 0.2, 0.7),
)
"""Eight colours, RGB from 0 to 1, none of the hue of skin.

They are the eight of a grid that lie farthest from each other in Oklab (Ottosson, 2020), seen with
normal sight and with protanopia, deuteranopia and tritanopia (Machado et al., 2009): at least 0.13,
where 0.02 is just seen.
"""
_COLORS = np.array(COLORS)


def track_color(track: int) -> tuple[float, float, float]:
    """Return the colour of a track, RGB from 0 to 1: always the same one.

    Tracks are counted from 1. Eight in a row have eight colours; the ninth has the first one's
    again.
    """
    return COLORS[(track - 1) % len(COLORS)]


def track_colors(tracks: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the colour of each of P tracks, as `track_color` does: (P, 3) float64."""
    return _COLORS[(np.asarray(tracks, np.int64) - 1) % len(COLORS)]
