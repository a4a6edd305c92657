"""``evaluate --reuse DIR``: what a key frame's mask is worth in its neighbours, as a ceiling.

A decoder on the key frame's embedding segments the key frame's pixels. Without any network, the
best that can come of it is the key frame's true mask, brought to the neighbour; here that is held
against the neighbour's own true mask, limb by limb and by how far the limb moved between the two.
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

from app.evaluate.truth import Truth, load_truth
from pipeline.capture.base import SourceOptions
from pipeline.capture.open import open_source

KEY, FRAMES = 2, 4
"""Windows are [t-2, t-1, t, t+1]; t is the key frame."""
WAYS = ("as it is", "moved by the box", "warped by flow")
LIMBS: dict[str, tuple[tuple[int, int], ...]] = {
    "head": ((0, 0), (7, 8)),
    "torso": ((11, 12), (11, 23), (12, 24), (23, 24), (11, 24), (12, 23)),
    "upper arms": ((11, 13), (12, 14)),
    "forearms, hands": ((13, 15), (14, 16), (15, 19), (16, 20)),
    "thighs": ((23, 25), (24, 26)),
    "shins, feet": ((25, 27), (26, 28), (27, 31), (28, 32)),
}
"""Lines between landmarks; a pixel belongs to the limb whose line is nearest."""
MOTION = (0.0, 0.01, 0.02, 0.04, 0.08, np.inf)
"""How far a limb's landmarks moved, in parts of the person's height in the image."""
_ROOM = 0.15
"""What is looked at around both boxes, in parts of the larger side."""


@dataclass
class Reuse:
    """Intersections over unions, by what they were measured on."""

    whole: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    limbs: dict[tuple[str, str, int], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    release: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of windows that hold a throw's release."""
    pixels: list[float] = field(default_factory=list)
    """How many pixels each limb moved, at the image's own size."""

    def as_json(self) -> dict[str, Any]:
        """Means, with how many there were."""
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
        }  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def measure(folder: Path) -> Reuse:
    """Every NAME.mp4 with NAME_truth.npz of a folder. Raises FileNotFoundError where there is
    none, TruthError, SourceError, ValueError for a truth without masks."""
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
    return out


def _truth_of(clip: Path) -> Path:
    return clip.with_name(f"{clip.stem}_truth.npz")


def _release_of(path: Path) -> int:
    """The frame of the release, -1 where nothing is thrown."""
    with np.load(path) as file:
        return int(file["release_frame"]) if "release_frame" in file else -1


def _windows(clip: Path) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Whole windows of a clip: numbers and grey pictures."""
    source = open_source(str(clip), SourceOptions(live=False))
    source.open()
    window: list[tuple[int, np.ndarray]] = []
    try:
        for frame in source.frames():
            window.append((frame.id, cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)))
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
            there = [r for r in truth.rows_of(number) if truth.person[r] == truth.person[row]]
            if k != KEY and there and truth.counted[row] and truth.counted[there[0]]:
                overlaps = _compare(
                    key_image, image, truth, int(row), int(there[0]), abs(k - KEY), out
                )
                for way, overlap in overlaps.items() if thrown else ():
                    out.release[way].append(overlap)


def _compare(
    key_image: np.ndarray, image: np.ndarray, truth: Truth, key: int, row: int, apart: int,
    out: Reuse,
) -> dict[str, float]:  # fmt: skip
    """One neighbour against its key frame; the whole person's overlap each way."""
    size = image.shape[0], image.shape[1]
    before, after = truth.mask(key, size), truth.mask(row, size)
    assert before is not None
    assert after is not None
    if not before.any() or not after.any():
        return {}
    old, new = truth.landmarks_px[key], truth.landmarks_px[row]
    part = _around(before | after)
    brought = (before, moved_by_box(before, old, new), warped(before, key_image, image, part))
    limbs = limb_of(new, part)
    height = float(np.ptp(new[:, 1]))
    overlaps = {}
    for way, mask in zip(WAYS, brought):
        both, either = (mask & after)[part], (mask | after)[part]
        overlaps[way] = float(both.sum() / max(int(either.sum()), 1))
        out.whole[way, apart].append(overlaps[way])
        for number, (name, lines) in enumerate(LIMBS.items()):
            here = limbs == number
            if not (after[part] & here).any():
                continue
            ends = sorted({end for line in lines for end in line})
            shift = float(np.linalg.norm(new[ends] - old[ends], axis=1).max())
            bin_ = int(np.searchsorted(MOTION, shift / height, side="right")) - 1
            overlap = (both & here).sum() / max(int((either & here).sum()), 1)
            out.limbs[way, name, bin_].append(float(overlap))
            if way == WAYS[0]:
                out.pixels.append(shift)
    return overlaps


def _around(mask: np.ndarray) -> tuple[slice, slice]:
    """The part of a picture that a mask is in, with some room."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    room = int(_ROOM * max(np.ptp(rows), np.ptp(columns))) + 8
    return (
        slice(max(rows[0] - room, 0), min(rows[-1] + room, mask.shape[0])),
        slice(max(columns[0] - room, 0), min(columns[-1] + room, mask.shape[1])),
    )


def moved_by_box(mask: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """A mask (H, W) bool moved and scaled as the box around landmarks (33, 2) was."""
    (low, high), (low2, high2) = ((p.min(0), p.max(0)) for p in (old, new))
    scale = (high2 - low2) / np.maximum(high - low, 1.0)
    change = np.array([[scale[0], 0, low2[0] - scale[0] * low[0]],
                       [0, scale[1], low2[1] - scale[1] * low[1]]])  # fmt: skip
    soft = mask.astype(np.float32)
    return np.asarray(cv2.warpAffine(soft, change, mask.shape[::-1])) > 0.5


def warped(
    mask: np.ndarray, old: np.ndarray, new: np.ndarray, part: tuple[slice, slice]
) -> np.ndarray:
    """A mask (H, W) bool taken along by the dense flow between two grey pictures (DIS, Kroeger et
    al., ECCV 2016), within a part of them."""
    there, here = (np.ascontiguousarray(picture[part]) for picture in (old, new))
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(
        here, there, np.zeros((*here.shape, 2), np.float32)
    )
    y, x = np.mgrid[: here.shape[0], : here.shape[1]].astype(np.float32)
    soft = np.ascontiguousarray(mask[part].astype(np.float32))
    out = np.zeros_like(mask)
    taken = cv2.remap(soft, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
    out[part] = np.asarray(taken) > 0.5
    return out


def limb_of(landmarks: np.ndarray, part: tuple[slice, slice]) -> np.ndarray:
    """Which of `LIMBS` each pixel of a part is nearest to."""
    y, x = np.mgrid[part[0], part[1]].astype(np.float32)
    distances = [
        np.min([_to_line(x, y, landmarks[a], landmarks[b]) for a, b in lines], axis=0)
        for lines in LIMBS.values()
    ]
    return np.argmin(distances, axis=0)


def _to_line(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    along = (b - a).astype(np.float32)
    length = max(float(along @ along), 1e-6)
    t = np.clip(((x - a[0]) * along[0] + (y - a[1]) * along[1]) / length, 0, 1)
    return (x - a[0] - t * along[0]) ** 2 + (y - a[1] - t * along[1]) ** 2


def show(found: Reuse, out: TextIO) -> None:
    """The tables."""
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


def run(folder: Path, file: Path | None, out: TextIO) -> int:
    """Measure, show, and write the JSON."""
    found = measure(folder)
    show(found, out)
    if file is not None:
        file.write_text(json.dumps(found.as_json(), indent=1) + "\n")
    return 0
