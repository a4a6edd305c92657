"""Features by which a motion is recognised, of one person's landmarks over time; pure logic.

Heights are over the middle between the shoulders, up in the image, in torso lengths (from there to
between the hips): the vertical shows in every view of a level camera, from behind, the side or
the front, and in a mirror.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.core.people import Person
from pipeline.core.skeleton import LANDMARK_NAMES

Hand = Literal["left", "right"]
HANDS: tuple[Hand, Hand] = ("right", "left")
FEATURES = {
    "peak": "the hand's greatest height within `fall_s`",
    "seconds_above": "how long of that it was `above`",
    "fall_per_s": "how fast it fell from there, torso lengths a second",
    "lowest": "the hand's least height within `back_s`: it came up",
    "other_hand": "the other hand's height, the greater of the last two frames",
    "hands_apart": "between the hands, torso lengths, before the fall",
    "torso_left": "the torso's length in the image over its greatest within `back_s`: it bends",
    "turn_deg": "how far the trunk turned towards the other side within `back_s`",
    "ahead": "the hand ahead of the chest now, torso lengths in space",
    "ahead_before": "the hand ahead of the chest in the sample before",
    "hand": "the hand's height now",
    "elbow": "the elbow's height now",
    "speed": "the hand's speed about the shoulders since the sample before, torso lengths a second",
}
"""Each feature and what it is."""
_SHORTEST = 0.5
"""Least length of a torso in the image, as a share of its greatest in recent samples. A torso that
is seen along its axis looks shorter than this."""
_LATELY = 24
"""Number of samples that count as recent."""

_L = {name: index for index, name in enumerate(LANDMARK_NAMES)}
_SHOULDERS = [_L["left_shoulder"], _L["right_shoulder"]]
_HIPS = [_L["left_hip"], _L["right_hip"]]


@dataclass(frozen=True)
class Sample:
    """One person in one frame.

    Attributes:
        frame_id: The frame.
        pts_s: Its time, seconds in the source.
        torso_px: From between the shoulders to between the hips.
        yaw_deg: Where the chest faces about the vertical, clockwise from above.
        hand: Each hand's height over the shoulders, torso lengths.
        elbow: Each elbow's height, likewise.
        place: (2,) x and y of each hand from between the shoulders, torso lengths.
        ahead: How far each hand is ahead of the chest, torso lengths.
    """

    frame_id: int
    pts_s: float
    torso_px: float
    yaw_deg: float
    hand: dict[Hand, float]
    elbow: dict[Hand, float]
    place: dict[Hand, np.ndarray]
    ahead: dict[Hand, float]


def sample(
    frame_id: int, pts_s: float, person: Person, before: Sequence[Sample] = ()
) -> Sample:  # fmt: skip
    """Return a sample of a person; ``before`` are their last samples."""
    points = person.landmarks_px.astype(np.float64)
    shoulders = points[_SHOULDERS].mean(0)
    torso = float(np.linalg.norm(shoulders - points[_HIPS].mean(0)))
    lately = max((earlier.torso_px for earlier in before[-_LATELY:]), default=torso)
    unit = max(torso, _SHORTEST * lately, 1.0)
    places = {hand: (points[_L[f"{hand}_wrist"]] - shoulders) / unit for hand in HANDS}
    elbows = {hand: (shoulders[1] - points[_L[f"{hand}_elbow"]][1]) / unit for hand in HANDS}
    if person.world_m is None:
        # A perceiver of 2D points cannot tell where the chest faces.
        yaw, ahead = math.nan, dict.fromkeys(HANDS, math.nan)
    else:
        front, ahead = _chest(person.world_m.astype(np.float64))
        yaw = float(np.degrees(np.arctan2(front[0], front[2])))
    return Sample(
        frame_id, pts_s, torso, yaw, {hand: -float(places[hand][1]) for hand in HANDS},
        {hand: float(elbows[hand]) for hand in HANDS}, places, ahead,
    )  # fmt: skip


def _chest(world_m: np.ndarray) -> tuple[np.ndarray, dict[Hand, float]]:
    """Return where the chest faces (3,), and how far each hand is ahead of it, torso lengths."""
    shoulders = world_m[_SHOULDERS].mean(0)
    up = shoulders - world_m[_HIPS].mean(0)
    length = max(float(np.linalg.norm(up)), 1e-3)
    right = world_m[_L["right_shoulder"]] - world_m[_L["left_shoulder"]]
    # In the camera's axes (y down) this product points out of the chest.
    front = np.cross(up, right)
    front = front / max(float(np.linalg.norm(front)), 1e-6)
    ahead = {
        hand: float((world_m[_L[f"{hand}_wrist"]] - shoulders) @ front) / length for hand in HANDS
    }
    return front, ahead


def _turned(yaws_deg: Sequence[float], towards: float) -> float:
    """Return how far the last of ``yaws_deg`` is turned from those before, in degrees.

    ``towards`` is the direction that counts as positive (1: as yaw grows). The result is the upper
    quartile, because a person seen from the side looks turned the wrong way in some frames. NaN
    with fewer than two yaws.
    """
    if len(yaws_deg) < 2:
        return float("nan")
    turns = towards * (yaws_deg[-1] - np.array(yaws_deg[:-1]))
    # Wrapped to the half turn on either side, so that -179 and 179 degrees are close.
    return float(np.percentile((turns + 180.0) % 360.0 - 180.0, 75))


def features(
    samples: Sequence[Sample], hand: Hand, *, above: float, fall_s: float, back_s: float
) -> dict[str, float]:
    """Return `FEATURES` of a hand at the last sample; NaN for what is unknown.

    Args:
        samples: A person's samples in order, at least one.
        hand: The hand.
        above: What counts as high, torso lengths over the shoulders.
        fall_s: How far back a fall is looked for.
        back_s: How far back all else is looked for.
    """
    now, other = samples[-1], HANDS[1 - HANDS.index(hand)]
    past = [earlier for earlier in samples[:-1] if now.pts_s - earlier.pts_s <= back_s]
    recent = [earlier for earlier in past if now.pts_s - earlier.pts_s <= fall_s]
    high = [earlier for earlier in recent if earlier.hand[hand] >= above]
    nan = float("nan")
    last_two = samples[-2:]
    # Seconds instead of samples, because sources differ in their rates.
    spacing = (now.pts_s - recent[0].pts_s) / len(recent) if recent else nan
    fallen_s = max(now.pts_s - high[-1].pts_s, 1e-3) if high else nan
    return {
        "peak": max((earlier.hand[hand] for earlier in recent), default=nan),
        "seconds_above": len(high) * spacing,
        "fall_per_s": (high[-1].hand[hand] - now.hand[hand]) / fallen_s if high else nan,
        "lowest": min((earlier.hand[hand] for earlier in past), default=nan),
        "other_hand": max(earlier.hand[other] for earlier in last_two),
        "hands_apart": (
            float(np.linalg.norm(high[-1].place[hand] - high[-1].place[other])) if high else nan
        ),
        "torso_left": now.torso_px / max((earlier.torso_px for earlier in past), default=nan),
        # A motion of the right hand turns the trunk to the left.
        "turn_deg": _turned(
            [earlier.yaw_deg for earlier in (*past, now)], -1.0 if hand == "right" else 1.0
        ),
        "ahead": now.ahead[hand],
        "ahead_before": samples[-2].ahead[hand] if len(samples) > 1 else nan,
        "hand": now.hand[hand],
        "elbow": now.elbow[hand],
        "speed": _speed(samples[-2], now, hand) if len(samples) > 1 else nan,
    }


def _speed(before: Sample, now: Sample, hand: Hand) -> float:
    step = float(np.linalg.norm(now.place[hand] - before.place[hand]))
    return step / max(now.pts_s - before.pts_s, 1e-3)
