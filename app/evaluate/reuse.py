"""``evaluate --reuse DIR``: how well a key frame's mask fits the neighbouring frames, at best, and,
by `app.evaluate.reuse_bodies`, its body.

A decoder that reuses the key frame's embedding segments the key frame's pixels. Its best possible
result is the key frame's true mask, moved to the neighbour. This module compares that with the
neighbour's own true mask, for each limb and by how far the limb moved between the two frames.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from app.evaluate import reuse_bodies
from app.evaluate.truth import Truth, TruthError, load_truth
from app.outputs.streams import open_text
from pipeline.capture.base import SourceOptions
from pipeline.capture.open import open_source
from pipeline.core.npz import read_npz
from pipeline.core.user_file import reading

KEY, FRAMES = 2, 4
"""Windows are [t-2, t-1, t, t+1]; t is the key frame."""
WAYS = ("as it is", "moved by the box", "warped by flow")
"""The ways to move a mask from the key frame to its neighbour."""
LIMBS: dict[str, tuple[tuple[int, int], ...]] = {
    "head": ((0, 0), (7, 8)),
    "torso": ((11, 12), (11, 23), (12, 24), (23, 24), (11, 24), (12, 23)),
    "upper arms": ((11, 13), (12, 14)),
    "forearms, hands": ((13, 15), (14, 16), (15, 19), (16, 20)),
    "thighs": ((23, 25), (24, 26)),
    "shins, feet": ((25, 27), (26, 28), (27, 31), (28, 32)),
}
"""Limbs as lines between landmarks; a pixel belongs to the limb with the nearest line."""
MOTION = (0.0, 0.01, 0.02, 0.04, 0.08, np.inf)
"""The edges of the bins of motion: how far a limb's landmarks moved, as a part of the person's
height in the image."""
_ROOM = 0.15
"""The margin around both masks, as a part of the larger side."""


@dataclass
class Reuse:
    """Intersections over union: of whole people by way and frames apart, of limbs by way, limb and
    bin of motion."""

    whole: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    limbs: dict[tuple[str, str, int], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    release: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of whole people, in windows with a throw's release only."""
    pixels: list[float] = field(default_factory=list)
    """How far each limb moved, in pixels of the image."""
    bodies: list[reuse_bodies.Neighbour] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the means and the number of values of each."""
        return {
            "windows": [
                {"way": way, "frames_apart": apart, "iou": _mean(values), "count": len(values)}
                for (way, apart), values in sorted(self.whole.items())
            ],
            "release": [
                {"way": way, "iou": _mean(values), "count": len(values)}
                for way, values in sorted(self.release.items())
            ],
            "limbs": [
                {
                    "way": way, "limb": limb, "motion": [MOTION[bin_], MOTION[bin_ + 1]],
                    "iou": _mean(values), "count": len(values),
                }
                for (way, limb, bin_), values in sorted(self.limbs.items())
            ],
            "bodies": reuse_bodies.as_json(self.bodies),
        }  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def measure(folder: Path) -> Reuse:
    """Measure every NAME.mp4 with a NAME_truth.npz of a folder.

    Raises:
        FileNotFoundError: There is no such pair.
        TruthError: A truth cannot be read.
        SourceError: A clip cannot be read.
        ValueError: A truth has no masks or no joints.
    """
    clips = [c for c in sorted(folder.glob("*.mp4")) if _truth_of(c).exists()]
    if not clips:
        raise FileNotFoundError(2, "no NAME.mp4 with a NAME_truth.npz", str(folder))
    out = Reuse()
    for clip in clips:
        truth = load_truth(_truth_of(clip))
        if truth.masks is None:
            raise ValueError(f"{truth.name} has no masks")
        release = _release_of(_truth_of(clip))
        for frames in _windows(clip):
            thrown = any(number == release for number, _ in frames)
            _measure_window(frames, truth, out, thrown)
            out.bodies += reuse_bodies.neighbours(truth, [k for k, _ in frames], KEY, thrown=thrown)
    return out


def _truth_of(clip: Path) -> Path:
    return clip.with_name(f"{clip.stem}_truth.npz")


def _release_of(path: Path) -> int:
    """Return the frame of the release; -1 if nothing is thrown."""
    with reading(path, error=TruthError):
        return int(read_npz(path).get("release_frame", -1))


def _windows(clip: Path) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Yield the full windows of a clip: frame numbers and grey pictures (H, W)."""
    source = open_source(str(clip), SourceOptions(live=False))
    source.open()
    window: list[tuple[int, np.ndarray]] = []
    try:
        for frame in source.frames():
            window.append((frame.id, cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)))
            # Full windows only: a shorter one has no key frame with both neighbours.
            if len(window) == FRAMES:
                yield window
                window = []
    finally:
        source.close()


def _measure_window(
    frames: list[tuple[int, np.ndarray]], truth: Truth, out: Reuse, thrown: bool
) -> None:
    key_id, key_image = frames[KEY]
    for row in truth.rows_of(key_id):
        for k, (number, image) in enumerate(frames):
            # A person may be out of the picture in one of the frames.
            same = [r for r in truth.rows_of(number) if truth.person[r] == truth.person[row]]
            if k != KEY and same and truth.counted[row] and truth.counted[same[0]]:
                overlaps = _compare(
                    key_image, image, truth, int(row), int(same[0]), abs(k - KEY), out
                )
                for way, overlap in overlaps.items() if thrown else ():
                    out.release[way].append(overlap)


def _compare(
    key_image: np.ndarray, image: np.ndarray, truth: Truth, key: int, row: int, apart: int,
    out: Reuse,
) -> dict[str, float]:  # fmt: skip
    """Compare a neighbour with its key frame; return the whole person's overlap for each way."""
    size = image.shape[0], image.shape[1]
    before, after = truth.mask(key, size), truth.mask(row, size)
    assert before is not None
    assert after is not None
    if not before.any() or not after.any():
        return {}
    old, new = truth.landmarks_px[key], truth.landmarks_px[row]
    # Only around the person: flow over the whole picture takes many times as long.
    part = _around(before | after)
    moved = (before, moved_by_box(before, old, new), warped(before, key_image, image, part))
    limbs = limb_of(new, part)
    height = float(np.ptp(new[:, 1]))
    overlaps = {}
    for way, mask in zip(WAYS, moved):
        both, either = (mask & after)[part], (mask | after)[part]
        overlaps[way] = float(both.sum() / max(int(either.sum()), 1))
        out.whole[way, apart].append(overlaps[way])
        for number, (name, lines) in enumerate(LIMBS.items()):
            of_limb = limbs == number
            # A hidden limb has no pixels to compare.
            if not (after[part] & of_limb).any():
                continue
            ends = sorted({end for line in lines for end in line})
            shift = float(np.linalg.norm(new[ends] - old[ends], axis=1).max())
            bin_ = int(np.searchsorted(MOTION, shift / height, side="right")) - 1
            overlap = (both & of_limb).sum() / max(int((either & of_limb).sum()), 1)
            out.limbs[way, name, bin_].append(float(overlap))
            if way == WAYS[0]:  # Once for each limb: the motion is the same for every way.
                out.pixels.append(shift)
    return overlaps


def _around(mask: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and the columns of a mask, with a margin."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    room = int(_ROOM * max(np.ptp(rows), np.ptp(columns))) + 8
    return (
        slice(max(rows[0] - room, 0), min(rows[-1] + room, mask.shape[0])),
        slice(max(columns[0] - room, 0), min(columns[-1] + room, mask.shape[1])),
    )


def moved_by_box(mask: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Move and scale a mask as the box around the landmarks moved.

    Args:
        mask: The mask of the old frame, bool (H, W).
        old: The landmarks in the old frame (33, 2), pixels.
        new: The landmarks in the new frame (33, 2), pixels.
    """
    (low, high), (low2, high2) = ((p.min(0), p.max(0)) for p in (old, new))
    scale = (high2 - low2) / np.maximum(high - low, 1.0)
    change = np.array([[scale[0], 0, low2[0] - scale[0] * low[0]],
                       [0, scale[1], low2[1] - scale[1] * low[1]]])  # fmt: skip
    soft = mask.astype(np.float32)
    return np.asarray(cv2.warpAffine(soft, change, mask.shape[::-1])) > 0.5


def warped(
    mask: np.ndarray, old: np.ndarray, new: np.ndarray, part: tuple[slice, slice]
) -> np.ndarray:
    """Warp a mask by the dense optical flow between two pictures (DIS, Kroeger et al., ECCV 2016).

    Args:
        mask: The mask of the old picture, bool (H, W).
        old: The old picture, grey uint8 (H, W).
        new: The new picture, grey uint8 (H, W).
        part: The rows and columns to which the flow is limited; the mask is empty outside.
    """
    before, after = (np.ascontiguousarray(picture[part]) for picture in (old, new))
    # From the new picture to the old one: for each new pixel, where its value comes from.
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(
        after, before, np.zeros((*after.shape, 2), np.float32)
    )
    y, x = np.mgrid[: after.shape[0], : after.shape[1]].astype(np.float32)
    soft = np.ascontiguousarray(mask[part].astype(np.float32))
    out = np.zeros_like(mask)
    moved = cv2.remap(soft, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
    out[part] = np.asarray(moved) > 0.5
    return out


def limb_of(landmarks: np.ndarray, part: tuple[slice, slice]) -> np.ndarray:
    """Return the number of the nearest of `LIMBS` for each pixel of a part, (H, W).

    Args:
        landmarks: The landmarks (33, 2), pixels.
        part: The rows and columns.
    """
    y, x = np.mgrid[part[0], part[1]].astype(np.float32)
    distances = [
        np.min([_to_line(x, y, landmarks[a], landmarks[b]) for a, b in lines], axis=0)
        for lines in LIMBS.values()
    ]
    return np.argmin(distances, axis=0)


def _to_line(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the squared distances of pixels from the line between two points."""
    along = (b - a).astype(np.float32)
    length = max(float(along @ along), 1e-6)
    t = np.clip(((x - a[0]) * along[0] + (y - a[1]) * along[1]) / length, 0, 1)
    return (x - a[0] - t * along[0]) ** 2 + (y - a[1] - t * along[1]) ** 2


def show(found: Reuse, out: TextIO) -> None:
    """Print the tables."""
    console = Console(file=out, width=None if out.isatty() else 110, highlight=False)
    table = Table(title="the key frame's true mask in its neighbours: IoU with their own")
    for heading in ("", "one frame apart", "two frames apart", "about a release"):
        table.add_column(heading, justify="right" if heading else "left")
    for way in WAYS:
        groups = (found.whole[way, 1], found.whole[way, 2], found.release[way])
        table.add_row(way, *(f"{_mean(g):.3f} ({len(g)})" if g else "" for g in groups))
    console.print(table)
    for way in WAYS[1:]:
        table = Table(title=f"{way}, by how far the limb moved (parts of the height)")
        for heading in ("", *(f"{low:g} to {high:g}" for low, high in zip(MOTION, MOTION[1:]))):
            table.add_column(heading, justify="right" if heading else "left")
        for name in LIMBS:
            cells = [found.limbs.get((way, name, k), []) for k in range(len(MOTION) - 1)]
            words = [f"{_mean(v):.2f} ({len(v)})" if v else "" for v in cells]
            table.add_row(name, *words)
        console.print(table)
    p50, p95 = np.percentile(np.array(found.pixels), (50, 95))
    console.print(f"limbs moved {p50:.1f} px at the median, {p95:.0f} at the 95th percentile")
    reuse_bodies.show(found.bodies, out)


def run(folder: Path, file: Path | None, out: TextIO) -> int:
    """Measure a folder, print the tables and write the JSON; return the exit code."""
    found = measure(folder)
    show(found, out)
    if file is not None:
        with open_text(file) as text:
            text.write(json.dumps(found.as_json(), indent=1) + "\n")
    return 0
