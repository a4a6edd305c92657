"""A body's distance from the camera over time: a filter of what single frames show.

One camera reads the distance off the size in the image. An error of one per cent in the size, which
BlazePose's landmarks have from frame to frame, is four centimetres at four metres, and errors of
the landmarks of a frame are alike, so the fit takes them for motion. The filter moves the whole
body along the ray through its pelvis, by a distance that changes its size in the picture little.
"""

from __future__ import annotations

import torch
from torch import Tensor

FADE = 0.9
"""What is left of the weight of a distance after a thirtieth of a second, as a square root, for a
person who stands."""
SPEED = 0.02
"""The change of the logarithm of the distance in a thirtieth of a second that halves that: two and
a half metres a second at four metres. So who moves fast is followed at once (as in the 1 euro
filter, Casiez et al., CHI 2012)."""
MOST = 0.015
"""Beyond this share of the distance, half of what the filter adds is taken back: a body that jumps
or falls keeps its size in the picture, and one wrong frame still moves it by half at most."""


def steady_depth(
    depth_m: Tensor, held: Tensor, known: Tensor, interval_30hz: Tensor
) -> tuple[Tensor, Tensor]:
    """Return filtered distances and what the filter holds after the last of them.

    It is the fading-memory filter of second order (Morrison, Introduction to Sequential Smoothing
    and Prediction, 1969) on the logarithm of the distance: a straight line fitted to the past, with
    weights that fade, the faster the faster the distance changes. It follows a steady approach
    without a lag, which a plain average would not.

    Args:
        depth_m: (P, T) distances of the pelvis along z in metres, positive.
        held: (P, 2) logarithm of the distance and its change a thirtieth of a second, as returned
            for the frame before.
        known: (P,) 1 where ``held`` holds something, else 0.
        interval_30hz: (P,) the time between frames, in thirtieths of a second.
    """
    first = torch.stack((depth_m[:, 0].log(), torch.zeros_like(known)), 1)
    place, speed = torch.where(known[:, None] > 0, held, first).unbind(1)
    out = []
    for log_m in depth_m.log().unbind(1):
        fade = (FADE / (1 + speed.abs() / SPEED)) ** interval_30hz
        ahead = place + speed * interval_30hz
        off = log_m - ahead
        place = ahead + (1 - fade**2) * off
        added = place - log_m
        place = log_m + 0.5 * (added + added.clamp(-MOST, MOST))
        speed = speed + (1 - fade) ** 2 * off / interval_30hz
        out.append(place)
    return torch.stack(out, 1).exp(), torch.stack((place, speed), 1)
