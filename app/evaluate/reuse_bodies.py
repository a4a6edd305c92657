"""``evaluate --reuse DIR``: how well a key frame's body fits the neighbouring frames, at best.

A decoder that reuses the key frame's features sees the person of the key frame. Of a neighbour it
knows only where a few keypoints are. Its best possible result is the key frame's true body with the
prompted joints at their true places. This module compares that with the neighbour's own true body,
by how far the person moved between the two frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
from rich.console import Console
from rich.table import Table

from app.evaluate.metrics import LIMBS, from_hips
from app.evaluate.truth import Truth
from pipeline.core.skeleton import (
    BLAZEPOSE_33,
    LANDMARKS,
    MHR_70,
    PARENTS,
    SMPL_24,
    blazepose_order,
)

WAYS = ("as it is", "four landmarks", "four limbs")
"""The key frame's body as it is; and with the joints in place that the prompts show. Prompts are
the landmarks that moved farthest: of all in the picture, which are often those of one hand; or of
the limbs' twelve about the hips."""
PROMPTS = 4
"""How many landmarks a neighbour is prompted with."""
MOTION = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, np.inf)
"""The edges of the bins of motion: how far the fastest visible landmark moved in the picture, as a
part of the person's height there."""
_ENDS = [SMPL_24.index(f"{side}_{end}") for side in ("left", "right") for end in ("hand", "foot")]
"""Joints that follow the one before them, which has a landmark."""
_FAST = SMPL_24.indices("left_wrist", "right_wrist", "left_ankle", "right_ankle")
_HIPS = list(SMPL_24.hips)
_OF_MHR = blazepose_order(MHR_70)[1]
"""Which landmarks (33,) the network knows as prompts."""
_OF_LIMBS = np.isin(np.arange(LANDMARKS), LIMBS)


def _joint_of(landmark: str) -> int:
    """Return the joint that a landmark shows: that of its name, or the nearest."""
    side = landmark.split("_")[0]
    if landmark in SMPL_24:
        return SMPL_24.index(landmark)
    if landmark in BLAZEPOSE_33.head:
        return SMPL_24.index("head")
    foot = landmark.endswith(("heel", "foot_index"))
    return SMPL_24.index(f"{side}_{'ankle' if foot else 'wrist'}")


_JOINT_OF = np.array([_joint_of(name) for name in BLAZEPOSE_33.names])


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A key frame's body compared with the same person's in a neighbouring frame.

    Attributes:
        apart: The number of frames between the two.
        thrown: Whether the window has a throw's release.
        motion: How far the fastest visible landmark moved, in parts of the person's height.
        errors_m: The distances of the joints (ways, 24), with the middles of the hips aligned.
    """

    apart: int
    thrown: bool
    motion: float
    errors_m: np.ndarray


def neighbours(
    truth: Truth, frames: Sequence[int], key: int, *, thrown: bool
) -> Iterator[Neighbour]:
    """Yield the people of a window's key frame with each neighbour in which they are counted too.

    Args:
        truth: The clip's truth.
        frames: The window's frame numbers.
        key: The place of the key frame among them.
        thrown: Whether a throw's release is in the window.

    Raises:
        ValueError: The truth has no joints.
    """
    if truth.joints_m is None:
        raise ValueError(f"{truth.name} has no joints in space")
    for row in truth.rows_of(frames[key]):
        for place, frame in enumerate(frames):
            # A person may be out of the picture in one of the frames.
            same = [r for r in truth.rows_of(frame) if truth.person[r] == truth.person[row]]
            if place != key and same and truth.counted[[row, same[0]]].all():
                both = [row, same[0]]
                motion, errors_m = compare(
                    truth.joints_m[both],
                    truth.landmarks_px[both],
                    np.all(truth.visible[both], axis=0),
                )
                yield Neighbour(abs(place - key), thrown, motion, errors_m)


def compare(
    joints_m: np.ndarray, landmarks_px: np.ndarray, seen: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return how far a person moved and what its body costs in a neighbour.

    Args:
        joints_m: SMPL's joints (2, 24, 3) in the key frame and in the neighbour.
        landmarks_px: The landmarks (2, 33, 2).
        seen: The landmarks that are visible in both (33,), bool.

    Returns:
        `Neighbour.motion` and `Neighbour.errors_m`.
    """
    before_m, after_m = joints_m - joints_m[:, _HIPS].mean(1, keepdims=True)
    moved_px, turned_px = (
        np.linalg.norm(points[1] - points[0], axis=-1)
        for points in (landmarks_px, from_hips(landmarks_px))
    )
    prompts = (fastest(moved_px, seen & _OF_MHR), fastest(turned_px, seen & _OF_LIMBS))
    prompted_m = [put_in_place(before_m, after_m, _JOINT_OF[chosen]) for chosen in prompts]
    errors_m = np.linalg.norm(np.stack((before_m, *prompted_m)) - after_m, axis=-1)
    return float(moved_px[seen].max(initial=0.0) / np.ptp(landmarks_px[1, :, 1])), errors_m


def fastest(moved_px: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Return the landmarks (up to 4) to prompt: those that moved farthest of the allowed ones.

    Args:
        moved_px: How far each landmark moved (33,), pixels.
        allowed: Which may be chosen (33,), bool.
    """
    order = np.argsort(np.where(allowed, -moved_px, np.inf), kind="stable")
    return order[: min(PROMPTS, int(allowed.sum()))]


def put_in_place(before_m: np.ndarray, after_m: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the joints (24, 3) of a body with the chosen ones where another body has them.

    A hand moves along with its wrist, and a foot with its ankle.

    Args:
        before_m: The body's joints (24, 3).
        after_m: The other body's joints (24, 3).
        chosen: The joints to move (J,).
    """
    moves = np.zeros_like(before_m)
    moves[chosen] = (after_m - before_m)[chosen]
    moves[_ENDS] = moves[[PARENTS[end] for end in _ENDS]]
    return before_m + moves


def _groups(found: Sequence[Neighbour]) -> Iterator[tuple[str, list[Neighbour]]]:
    """Yield the groups of neighbours that the figures are of, each with a heading."""
    for apart, heading in ((1, "one apart"), (2, "two apart")):
        yield heading, [one for one in found if one.apart == apart]
    yield "about a release", [one for one in found if one.thrown]
    for low, high in zip(MOTION, MOTION[1:]):
        yield f"{low:g} to {high:g}", [one for one in found if low <= one.motion < high]
    for limit in MOTION[2:-1]:
        yield f"below {limit:g}", [one for one in found if one.motion < limit]


def _means_mm(group: Sequence[Neighbour]) -> np.ndarray:
    """Return the mean errors (ways, 2) of a group, millimetres: of all joints, and of wrists and
    ankles."""
    errors_mm = 1e3 * np.mean([one.errors_m for one in group], axis=0)
    return np.stack((errors_mm.mean(-1), errors_mm[:, _FAST].mean(-1)), axis=-1)


def as_json(found: Sequence[Neighbour]) -> list[dict[str, Any]]:
    """Return the mean errors of each group and way, and the number of neighbours."""
    return [
        {
            "of": heading, "way": way, "joints_mm": round(float(joints), 2),
            "wrists_ankles_mm": round(float(fast), 2), "count": len(group),
        }
        for heading, group in _groups(found) if group
        for way, (joints, fast) in zip(WAYS, _means_mm(group))
    ]  # fmt: skip


def show(found: Sequence[Neighbour], out: TextIO) -> None:
    """Print the tables."""
    console = Console(file=out, width=None if out.isatty() else 110, highlight=False)
    for part, name in enumerate(("joints", "wrists and ankles")):
        table = Table(title=f"the key frame's true {name} in its neighbours: mm from their own")
        for heading in ("moved", *WAYS, "neighbours"):
            table.add_column(heading, justify="right" if heading != "moved" else "left")
        for heading, group in _groups(found):
            cells = [f"{mm:.1f}" for mm in _means_mm(group)[:, part]] if group else [""] * len(WAYS)
            table.add_row(heading, *cells, str(len(group)))
        console.print(table)
