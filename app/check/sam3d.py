"""Whether a release of SAM 3D Body sees drawn people where they are, and what half precision costs.

The network was not trained on drawings, so the limits are wide: they tell a network that works from
one with wrong weights or wrong arithmetic, not a good one from a better one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from app.check.pictures import POINTS, DrawnPerson, draw_people
from pipeline.core.skeleton import MHR_70
from pipeline.sam3d.checkpoint import load_sam3d
from pipeline.sam3d.crops import BODY_PADDING, crops_of_boxes
from pipeline.sam3d.engine import Sam3dEngine
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.people import MhrPeople
from pipeline.sam3d.release import ReleaseFiles

LEAST_INSIDE = 0.9
"""Of the 70 keypoints of a person in its crop."""
MOST_OFF = 0.08
"""From the drawn joints in the picture, mean of a person, in parts of its height."""
HEIGHTS_M = (1.3, 2.2)
MOST_DEPTH_OFF = 0.25
"""Of the distance of the hips, in parts of the drawn one: the size of a person is guessed."""
MOST_HALF_MM, MOST_HALF_PX = 3.0, 2.0
"""From float32 to half precision: mean of a person's vertices, and of its keypoints."""


@dataclass(frozen=True)
class Finding:
    """One line of the check: what was looked at, whether it is plausible, and the figures."""

    name: str
    right: bool
    detail: str


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says of the drawn people.

    Attributes:
        people: Their bodies.
        vertices_m: (B, 18439, 3), without the translations.
        seconds: How long it took, for all of them in one batch.
    """

    people: MhrPeople
    vertices_m: np.ndarray
    seconds: float


def check_sam3d(
    files: ReleaseFiles, device: torch.device, cache: Path | None = None
) -> Iterator[Finding]:
    """Yield what is found, as it is found.

    Args:
        files: The files of one release.
        device: Where to compute.
        cache: As for `load_sam3d`.

    Raises:
        CheckpointError: A file is not the release's.
        OSError: A file cannot be read.
    """
    drawn = draw_people()
    network = load_sam3d(files, device, cache, half=False)
    yield Finding("files", True, f"weights of {network.config.backbone} and the MHR rig, complete")
    side = network.config.side
    whole = ask(network, drawn)
    # Both at once need twice the memory.
    del network
    half = ask(load_sam3d(files, device, cache), drawn)
    yield from judge(drawn, whole, half, side)
    where = "the CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    yield Finding(
        "time",
        True,
        f"{len(drawn)} people on {where}: {whole.seconds:.3g} s in float32, "
        f"{half.seconds:.3g} s in half precision",
    )


def ask(network: Sam3dBody, drawn: Sequence[DrawnPerson]) -> Answers:
    """Return a network's answers for drawn people."""
    engine = Sam3dEngine(network)
    frames = [person.image for person in drawn]
    boxes = np.stack([person.box for person in drawn])
    intrinsics = np.stack([person.intrinsics for person in drawn])
    # The first answer of a GPU takes longer than all others.
    for _ in range(1 if network.cells.device.type == "cpu" else 2):
        begin = time.perf_counter()
        people = engine(frames, range(len(drawn)), boxes, intrinsics)
        seconds = time.perf_counter() - begin
    return Answers(people, engine.vertices(people), seconds)


def judge(
    drawn: Sequence[DrawnPerson], whole: Answers, half: Answers, side: int
) -> Iterator[Finding]:
    """Yield whether answers are plausible.

    Args:
        drawn: The people who were drawn.
        whole: The answers in float32.
        half: The answers in half precision, which all runs use.
        side: Side of the network's crops, pixels.
    """
    finite = all(map(_finite, (whole, half)))
    yield Finding("finite", finite, "every number" if finite else "some numbers are not")
    # Of numbers that are not finite there is nothing more to say.
    if not finite:
        return
    inside = _inside(drawn, half.people, side)
    yield Finding(
        "keypoints",
        bool((inside >= LEAST_INSIDE).all()),
        f"at worst {inside.min():.0%} in a person's crop (at least {LEAST_INSIDE:.0%})",
    )
    off = _off(drawn, half.people)
    yield Finding(
        "joints",
        bool((off <= MOST_OFF).all()),
        f"at worst {off.max():.1%} of the height away from the drawn ones (at most {MOST_OFF:.0%})",
    )
    heights, (least, most) = np.ptp(half.vertices_m[..., 1], axis=1), HEIGHTS_M
    yield Finding(
        "height",
        bool(((heights >= least) & (heights <= most)).all()),
        f"{heights.min():.2f} to {heights.max():.2f} m, drawn "
        f"{min(p.height_m for p in drawn):.2f} to {max(p.height_m for p in drawn):.2f} "
        f"({least:g} to {most:g})",
    )
    depth_off = _depth_off(drawn, half.people)
    yield Finding(
        "depth",
        bool((depth_off <= MOST_DEPTH_OFF).all()),
        f"at worst {depth_off.max():.0%} away from the drawn one (at most {MOST_DEPTH_OFF:.0%})",
    )
    apart_mm = 1000 * np.linalg.norm(half.vertices_m - whole.vertices_m, axis=-1).mean(axis=1)
    pixels = half.people.keypoints_px - whole.people.keypoints_px
    apart_px = np.linalg.norm(pixels, axis=-1).mean(axis=1)
    yield Finding(
        "half precision",
        bool((apart_mm <= MOST_HALF_MM).all() and (apart_px <= MOST_HALF_PX).all()),
        f"at worst {apart_mm.max():.2f} mm a vertex and {apart_px.max():.2f} px a keypoint "
        f"from float32 (at most {MOST_HALF_MM:g} and {MOST_HALF_PX:g})",
    )


def _finite(answers: Answers) -> bool:
    arrays = [getattr(answers.people, field.name) for field in fields(answers.people)]
    return all(np.isfinite(array).all() for array in (*arrays, answers.vertices_m))


def _inside(drawn: Sequence[DrawnPerson], people: MhrPeople, side: int) -> np.ndarray:
    """The share of each person's keypoints that are in its crop (B,)."""
    boxes = torch.from_numpy(np.stack([person.box for person in drawn]))
    intrinsics = torch.from_numpy(np.stack([person.intrinsics for person in drawn]))
    crops = crops_of_boxes(boxes, intrinsics, side, BODY_PADDING)
    places = crops.from_image(torch.from_numpy(people.keypoints_px)).numpy()
    return ((places >= 0) & (places <= side)).all(axis=-1).mean(axis=1)


def _off(drawn: Sequence[DrawnPerson], people: MhrPeople) -> np.ndarray:
    """The mean distance of each person's joints from the drawn ones in the picture, in parts of the
    person's height (B,)."""
    found = people.keypoints_px[:, MHR_70.indices(*POINTS)]
    apart = np.linalg.norm(found - np.stack([person.points_px for person in drawn]), axis=-1)
    return apart.mean(axis=1) / np.array([person.height_px for person in drawn])


def _depth_off(drawn: Sequence[DrawnPerson], people: MhrPeople) -> np.ndarray:
    """How far each person's hips are from their drawn distance, in parts of it (B,)."""
    hips = people.keypoints_m[:, list(MHR_70.hips), 2].mean(axis=1) + people.translation_m[:, 2]
    depths = np.array([person.depth_m for person in drawn])
    return np.abs(hips - depths) / depths
