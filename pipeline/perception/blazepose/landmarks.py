"""BlazePose's landmark model: what its outputs for one region say of the person there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipeline.core.people import Mask, Person
from pipeline.core.skeleton import BLAZEPOSE_33, LANDMARKS
from pipeline.perception.blazepose.roi import Roi, roi_between

INPUT = 256
OUTPUTS = ((1, 195), (1, 1), (1, 256, 256, 1), (1, 64, 64, 39), (1, 117))
MASK = 128
"""Side of the masks handed on: half the model's, which is finer than its edges are sharp."""
OTHER_SIDE = BLAZEPOSE_33.mirror
"""Which landmark each of the 33 is in a mirror: left and right change places."""
OFFSET = np.array([-0.5, 0.0])
"""From the network's coordinates, times its size, to crop pixels with centres at whole numbers.
Across, only so a mirrored picture has mirrored answers; down, renders' true landmarks say so."""
KERNEL = 7
MIN_HEAT = 0.5


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def refine(points: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Move landmarks (L, 2) in [0, 1] to the centre of heat around them.

    ``heatmaps`` (h, w, L) are logits. As MediaPipe's refinement: a 7 x 7 neighbourhood, cut at
    the border; landmarks whose heat nowhere reaches 0.5 stay.
    """
    height, width, count = heatmaps.shape
    reach = (KERNEL - 1) // 2
    col = np.floor(points[:, 0] * width).astype(int)
    row = np.floor(points[:, 1] * height).astype(int)
    step = np.arange(-reach, reach + 1)
    rows, cols = row[:, None] + step, col[:, None] + step
    ok = ((rows >= 0) & (rows < height))[:, :, None] & ((cols >= 0) & (cols < width))[:, None]
    r, c = np.clip(rows, 0, height - 1), np.clip(cols, 0, width - 1)
    heat = sigmoid(heatmaps[r[:, :, None], c[:, None, :], np.arange(count)[:, None, None]]) * ok
    inside = (col >= 0) & (col < width) & (row >= 0) & (row < height)
    total = heat.sum((1, 2))
    sure = inside & (heat.max((1, 2)) >= MIN_HEAT) & (total > 0)
    x = (heat * cols[:, None, :]).sum((1, 2)) / np.maximum(total, 1e-9) / width
    y = (heat * rows[:, :, None]).sum((1, 2)) / np.maximum(total, 1e-9) / height
    return np.where(sure[:, None], np.stack((x, y), 1), points)


@dataclass(frozen=True, eq=False)
class Reading:
    """What the model says of a region, ready to be read: ``points`` (39, 2) refined landmarks in
    [0, 1], ``visibility`` (39,) logits, ``presence`` in [0, 1], ``mask`` (128, 128) float32 in
    [0, 1], ``world`` (39, 3) metres."""

    points: np.ndarray
    visibility: np.ndarray
    presence: float
    mask: np.ndarray
    world: np.ndarray


def presence_of(outputs: Sequence[np.ndarray]) -> float:
    """How sure the model is, in [0, 1], that somebody is in the region."""
    return float(outputs[1][0, 0])


def reading_of(outputs: Sequence[np.ndarray]) -> Reading:
    """The model's five outputs: 39 landmarks of five numbers, the presence, the mask (256, 256)
    and heatmaps (64, 64, 39) as logits, and 39 world landmarks in metres."""
    values = outputs[0].reshape(39, 5)
    points = refine(values[:, :2] / INPUT, outputs[3][0])
    small = cv2.resize(outputs[2][0, :, :, 0], (MASK, MASK), interpolation=cv2.INTER_AREA)
    mask = sigmoid(small).astype(np.float32)
    return Reading(points, values[:, 3], presence_of(outputs), mask, outputs[4].reshape(39, 3))


def read_person(roi: Roi, seen: Reading, mirrored: bool = False) -> tuple[Person, Roi]:
    """What was read in a region -> the person, and the region to look in next.

    The last six landmarks are not the person's: two of them say where the next region is
    (MediaPipe's alignment points). The person's score is the presence or, where it is higher, the
    detector's. ``mirrored`` says that the model was shown the region in a mirror.
    """
    points, logits, world, mask = seen.points, seen.visibility, seen.world[:LANDMARKS], seen.mask
    if mirrored:
        order = np.concatenate((OTHER_SIDE, np.arange(LANDMARKS, 39)))
        points = (points * (-1, 1) + (1, 0))[order]
        logits, world = logits[order], world[OTHER_SIDE] * (-1, 1, 1)
        mask = np.ascontiguousarray(mask[:, ::-1])
    to_image = roi.to_image(INPUT)
    pixels = (points * INPUT + OFFSET) @ to_image[:, :2].T + to_image[:, 2]
    visibility = sigmoid(logits[:LANDMARKS]).astype(np.float32)
    person = Person(
        box_px=box_around(pixels[:LANDMARKS], visibility),
        score=max(seen.presence, roi.score),
        landmarks_px=pixels[:LANDMARKS].astype(np.float32),
        visibility=visibility,
        world_m=_turned(world, roi.angle),
        mask=_placed(mask, to_image),
        roi=roi.id,
    )
    following = roi_between(pixels[33], pixels[34], roi.score, roi.id)
    return person, replace(following, points=person.landmarks_px)


def exchanged(person: Person) -> Person:
    """The same person with left for right; the landmarks stay where they are."""
    return replace(
        person,
        landmarks_px=person.landmarks_px[OTHER_SIDE],
        visibility=person.visibility[OTHER_SIDE],
        world_m=None if person.world_m is None else person.world_m[OTHER_SIDE],
    )


def _turned(world: np.ndarray, angle: float) -> np.ndarray:
    """World landmarks (33, 3) of the upright crop, turned back into the image's axes."""
    c, s = np.cos(angle), np.sin(angle)
    return (world @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])).astype(np.float32)


def _placed(values: np.ndarray, to_image: np.ndarray) -> Mask:
    """A mask (128, 128) over the region that ``to_image`` takes from the model's pixels."""
    shrink = INPUT / MASK
    # A small pixel's centre lies between those of the pixels it averages.
    middle = (shrink - 1) / 2
    mask_to_image = to_image @ np.array([[shrink, 0, middle], [0, shrink, middle], [0, 0, 1]])
    return Mask(values, mask_to_image.astype(np.float32))


def box_around(points: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Box (4,) float32 around the visible landmarks, or around all when few are visible."""
    seen = points[visibility > 0.5]
    chosen = seen if len(seen) >= 4 else points
    return np.concatenate((chosen.min(0), chosen.max(0))).astype(np.float32)
