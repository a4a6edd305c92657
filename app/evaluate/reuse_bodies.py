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

from app.evaluate.truth import Truth
from pipeline.core.camera import project
from pipeline.core.skeleton import BLAZEPOSE_33, PARENTS, SMPL_24

WAYS = ("as it is", "with four joints in place")
PROMPTS = 4
"""How many joints a neighbour is prompted with."""
MOTION = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, np.inf)
"""The edges of the bins of motion: how far the fastest visible landmark moved in the picture, as a
part of the person's height there."""
_PROMPTED = [joint for joint, name in enumerate(SMPL_24.names) if name in BLAZEPOSE_33]
"""The joints that are landmarks too, from shoulders and hips to wrists and ankles."""
_ENDS = [SMPL_24.index(f"{side}_{end}") for side in ("left", "right") for end in ("hand", "foot")]
"""Joints that follow a prompted one."""
_FAST = SMPL_24.indices("left_wrist", "right_wrist", "left_ankle", "right_ankle")
_HIPS = list(SMPL_24.hips)


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
        ValueError: The truth has no joints or no lens.
    """
    if truth.joints_m is None or truth.intrinsics is None:
        raise ValueError(f"{truth.name} has no joints in space, or no lens")
    for row in truth.rows_of(frames[key]):
        for place, frame in enumerate(frames):
            # A person may be out of the picture in one of the frames.
            same = [r for r in truth.rows_of(frame) if truth.person[r] == truth.person[row]]
            if place != key and same and truth.counted[[row, same[0]]].all():
                motion, errors_m = _compare(
                    truth, truth.joints_m[[row, same[0]]], truth.intrinsics, int(row), int(same[0])
                )
                yield Neighbour(abs(place - key), thrown, motion, errors_m)


def _compare(
    truth: Truth, joints_m: np.ndarray, intrinsics: np.ndarray, key: int, row: int
) -> tuple[float, np.ndarray]:
    """Return `Neighbour.motion` and `Neighbour.errors_m` of two rows, joints (2, 24, 3)."""
    pixels = project(joints_m, intrinsics)
    before_m, after_m = joints_m - joints_m[:, _HIPS].mean(1, keepdims=True)
    seen = truth.visible[key] & truth.visible[row]
    prompted_m = put_in_place(before_m, after_m, fastest(pixels[0], pixels[1], seen))
    old, new = truth.landmarks_px[key], truth.landmarks_px[row]
    moved_px = np.linalg.norm(new - old, axis=-1)[seen].max(initial=0.0)
    errors_m = np.linalg.norm(np.stack((before_m, prompted_m)) - after_m, axis=-1)
    return float(moved_px / np.ptp(new[:, 1])), errors_m


def fastest(old: np.ndarray, new: np.ndarray, seen: np.ndarray) -> list[int]:
    """Return the joints to prompt: those of the visible ones that moved farthest in the picture.

    Args:
        old: SMPL's joints in the key frame (24, 2), pixels.
        new: Those of the neighbour.
        seen: The landmarks visible in both (33,), bool.
    """
    visible = [j for j in _PROMPTED if seen[BLAZEPOSE_33.index(SMPL_24.names[j])]]
    return sorted(visible, key=lambda j: -float(np.linalg.norm(new[j] - old[j])))[:PROMPTS]


def put_in_place(before_m: np.ndarray, after_m: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Return the joints (24, 3) of a body with the chosen ones where another body has them.

    A hand moves along with its wrist, and a foot with its ankle.

    Args:
        before_m: The body's joints (24, 3).
        after_m: The other body's joints (24, 3).
        chosen: The joints to move.
    """
    moves = np.zeros_like(before_m)
    moves[chosen] = (after_m - before_m)[chosen]
    moves[_ENDS] = moves[[PARENTS[end] for end in _ENDS]]
    return before_m + moves


def _groups(found: Sequence[Neighbour]) -> Iterator[tuple[str, list[Neighbour]]]:
    """Yield the groups of neighbours that the figures are of, each with a heading."""
    for apart, heading in ((1, "one frame apart"), (2, "two frames apart")):
        yield heading, [one for one in found if one.apart == apart]
    yield "about a release", [one for one in found if one.thrown]
    for low, high in zip(MOTION, MOTION[1:]):
        yield f"moved {low:g} to {high:g}", [one for one in found if low <= one.motion < high]
    for limit in MOTION[2:-1]:
        yield f"all below {limit:g}", [one for one in found if one.motion < limit]


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
    """Print the table."""
    console = Console(file=out, width=None if out.isatty() else 110, highlight=False)
    table = Table(title="the key frame's true body in its neighbours: mm from their own")
    table.add_column("")
    for heading in ("neighbours", *WAYS, "wrists, ankles", WAYS[1]):
        table.add_column(heading, justify="right")
    for heading, group in _groups(found):
        cells = [f"{mm:.1f}" for mm in _means_mm(group).T.flat] if group else [""] * 4
        table.add_row(heading, str(len(group)), *cells)
    console.print(table)
