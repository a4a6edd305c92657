"""``bench --compare-masks CLIP``: how well the networks that segment people agree.

The default perceiver finds the people once. Every network then segments them in every frame,
without reusing the key frame's embedding. The masks are compared pixel by pixel in the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.capture.base import SourceOptions
from pipeline.capture.open import open_source
from pipeline.core.frame import Window
from pipeline.core.people import Mask, Person
from pipeline.gpu.device import EngineOptions, choose_device
from pipeline.runtime.make import make_estimator, make_segmenter
from pipeline.runtime.window import Windower
from pipeline.weights import store as weights

OWN = "own"
"""The name of the default perceiver's own masks."""
NETWORKS = ("sam-h", "sam-b", "mobile-sam", "fastsam-s", "fastsam-x")
Segmenters = dict[str, Callable[[Any], Any]]
"""By name, functions that wrap a perceiver so that a network replaces its masks
(`pipeline.perception.with_masks`)."""


@dataclass
class Agreement:
    """The intersections over union of two networks' masks, one for each person in each frame, and
    the frames' numbers."""

    overlaps: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        values = np.array(self.overlaps)
        worst = int(values.argmin())
        return {
            "persons": len(values),
            "iou_mean": round(float(values.mean()), 4),
            "iou_p5": round(float(np.percentile(values, 5)), 4),
            "worst": {"frame": self.frames[worst], "iou": round(float(values[worst]), 4)},
        }


class _Replayed:
    """A perceiver that returns the people that another one found before."""

    name = "replayed"

    def __init__(self, people: dict[int, tuple[Person, ...]]) -> None:
        self._people = people

    def prepare(self, window: Window) -> Window:
        return window

    def embed(self, window: Window, memory: Any) -> None:
        return None

    def decode(self, embedding: Any, window: Window) -> tuple[list[tuple[Person, ...]], Any]:
        return [self._people[frame.id] for frame in window.frames], None

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def compare(clip: Path, people: int, folder: Path | None, device: str) -> dict[str, Any]:
    """Compare the masks of all networks whose weights are installed, in pairs.

    Args:
        clip: The path of the clip.
        people: The most people to track.
        folder: A folder that is searched for weights first.
        device: The device of the networks, as on the command line.

    Returns:
        An object for JSON: the agreement of every pair, and why networks were not measured.

    Raises:
        FileNotFoundError: There is no such clip.
        SourceError: The clip cannot be read.
        WeightsError: The default perceiver's weights are missing.
    """
    if not clip.exists():
        raise FileNotFoundError(2, "no such clip", str(clip))
    absent: dict[str, str] = {}
    made: Segmenters = {}
    for name in NETWORKS:
        try:
            # First, so that a network without its weights is named in the result and not built.
            weights.find(name, folder)
            made[name] = make_segmenter(
                name, people, choose_device(device), EngineOptions("eager"), folder
            )
        except (weights.WeightsError, RuntimeError) as error:
            absent[name] = str(error).splitlines()[-1]
    estimator = make_estimator(people=people, device="cpu", model_folder=folder)
    pairs = {pair: Agreement() for pair in combinations((OWN, *made), 2)}
    state = estimator.begin()
    for window in _windows(clip) if made else ():
        found = estimator.perceive([window], [state])[0].people
        by_frame = {f.id: tuple(p.values()) for f, p in zip(window.frames, found)}
        masks = {OWN: list(by_frame.values())}
        for name, segmented in made.items():
            # Every network gets the same people, so that only the masks differ.
            perceiver = segmented(_Replayed(by_frame))
            masks[name] = perceiver.decode(perceiver.embed(window, None), window)[0]
        add(pairs, window, masks)
    return {
        "clip": clip.name,
        "pairs": {
            f"{a}/{b}": agreement.as_json()
            for (a, b), agreement in pairs.items()
            if agreement.overlaps
        },
        "not_measured": absent,
    }


def add(
    pairs: dict[tuple[str, str], Agreement],
    window: Window,
    masks: dict[str, list[tuple[Person, ...]]],
) -> None:
    """Compare a window's masks and add the overlaps.

    Args:
        pairs: The pairs of networks; their agreement is extended.
        window: The window.
        masks: By network, the people of every frame; the same people in the same order.
    """
    height, width = window.key_frame.size
    for t, frame in enumerate(window.frames):
        drawn = {
            name: [on_image(person.mask, height, width) for person in people[t]]
            for name, people in masks.items()
        }
        for (a, b), agreement in pairs.items():
            # strict: the lists hold the same people in the same order, or the pairs would be wrong.
            for one, other in zip(drawn[a], drawn[b], strict=True):
                either = int((one | other).sum())
                # Two empty masks agree.
                agreement.overlaps.append(int((one & other).sum()) / either if either else 1.0)
                agreement.frames.append(frame.id)


def on_image(mask: Mask | None, height: int, width: int) -> np.ndarray:
    """Return where a mask's value is above one half, bool (height, width); all False for None."""
    if mask is None:
        return np.zeros((height, width), bool)
    flags = cv2.INTER_LINEAR
    return (
        np.asarray(cv2.warpAffine(mask.values, mask.to_image, (width, height), flags=flags)) > 0.5
    )


def _windows(clip: Path) -> Iterator[Window]:
    source, windower = (
        open_source(str(clip), SourceOptions(live=False)),
        Windower(max_wait_ms=float("inf")),
    )
    source.open()
    try:
        for frame in source.frames():
            yield from windower.add(frame)
        yield from windower.finish()
    finally:
        source.close()


def show(result: dict[str, Any], out: TextIO) -> None:
    """Print the comparison as a table."""
    table = Table(title=f"masks of {result['clip']}: intersection over union")
    for heading in ("", "persons", "mean", "5th percentile", "worst", "in frame"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, row in result["pairs"].items():
        worst = row["worst"]
        cells = (row["persons"], row["iou_mean"], row["iou_p5"], worst["iou"], worst["frame"])
        table.add_row(name, *map(str, cells))
    console = Console(file=out, width=None if out.isatty() else 100, highlight=False)
    if result["pairs"]:
        console.print(table)
    for name, why in result["not_measured"].items():
        console.print(f"{name}: not measured: {why}", markup=False)
