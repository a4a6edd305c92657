"""BlazePose's landmark model: reading a person out of its outputs for one ROI."""

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
"""Shapes of the model's outputs: landmarks, presence, mask, heatmaps, world landmarks."""
MASK = 128
"""Side of the masks that are passed on: half the model's, still finer than its edges are sharp."""
OTHER_SIDE = BLAZEPOSE_33.mirror
"""For each of the 33 landmarks, the one that takes its place in a mirrored picture."""
OFFSET = np.array([-0.5, 0.0])
"""Added to the network's coordinates times its size, it gives crop pixels with centres at whole
numbers. Measured: across, so that a mirrored picture has mirrored answers; down, against true
landmarks of renders."""
KERNEL = 7
"""Side of the neighbourhood in a heatmap that refines a landmark."""
MIN_HEAT = 0.5
"""A landmark is refined where its heatmap reaches this."""


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function of logits, which are clipped so that none overflows."""
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def refine(points: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """Return landmarks (L, 2) moved to the centre of heat around them, as MediaPipe refines them.

    The neighbourhood is 7 x 7, cut at the border. Landmarks whose heat nowhere reaches 0.5 stay.

    Args:
        points: (L, 2) in [0, 1].
        heatmaps: (h, w, L) logits.
    """
    height, width, count = heatmaps.shape
    reach = (KERNEL - 1) // 2
    col = np.floor(points[:, 0] * width).astype(int)
    row = np.floor(points[:, 1] * height).astype(int)
    step = np.arange(-reach, reach + 1)
    rows, cols = row[:, None] + step, col[:, None] + step
    ok = ((rows >= 0) & (rows < height))[:, :, None] & ((cols >= 0) & (cols < width))[:, None]
    # Clipped only to be valid indices: `ok` sets the heat beyond the map to zero.
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
    """The model's outputs for one ROI, ready to be read.

    Attributes:
        points: (39, 2) refined landmarks in [0, 1].
        visibility: (39,) logits.
        presence: How sure the model is that a person is in the ROI, in [0, 1].
        mask: (128, 128) float32 in [0, 1].
        world: (39, 3) metres.
    """

    points: np.ndarray
    visibility: np.ndarray
    presence: float
    mask: np.ndarray
    world: np.ndarray


def presence_of(outputs: Sequence[np.ndarray]) -> float:
    """Return how sure the model is, in [0, 1], that a person is in the ROI."""
    # The model returns a probability here, not a logit.
    return float(outputs[1][0, 0])


def reading_of(outputs: Sequence[np.ndarray]) -> Reading:
    """Return the reading of the model's five outputs.

    These are 39 landmarks of five numbers, the presence, the mask (256, 256) and heatmaps (64, 64,
    39) as logits, and 39 world landmarks in metres.
    """
    values = outputs[0].reshape(39, 5)
    points = refine(values[:, :2] / INPUT, outputs[3][0])
    # Averaged before the sigmoid, which then runs on a quarter of the pixels.
    small = cv2.resize(outputs[2][0, :, :, 0], (MASK, MASK), interpolation=cv2.INTER_AREA)
    mask = sigmoid(small).astype(np.float32)
    return Reading(points, values[:, 3], presence_of(outputs), mask, outputs[4].reshape(39, 3))


def read_person(roi: Roi, reading: Reading, mirrored: bool = False) -> tuple[Person, Roi]:
    """Return the person in an ROI, and the ROI in which to find that person next.

    The last six of the 39 landmarks are not the person's: two of them are MediaPipe's alignment
    points, which give the next ROI. The person's score is the presence or, where that is higher,
    the detector's.

    Args:
        roi: The ROI that the model was given.
        reading: What it returned.
        mirrored: Whether the model was given the ROI mirrored.
    """
    points, logits, mask = reading.points, reading.visibility, reading.mask
    world = reading.world[:LANDMARKS]
    if mirrored:
        # The six extra points have no sides, so they keep their places.
        order = np.concatenate((OTHER_SIDE, np.arange(LANDMARKS, 39)))
        points = (points * (-1, 1) + (1, 0))[order]
        logits, world = logits[order], world[OTHER_SIDE] * (-1, 1, 1)
        mask = np.ascontiguousarray(mask[:, ::-1])
    to_image = roi.to_image(INPUT)
    pixels = (points * INPUT + OFFSET) @ to_image[:, :2].T + to_image[:, 2]
    visibility = sigmoid(logits[:LANDMARKS]).astype(np.float32)
    person = Person(
        box_px=box_around(pixels[:LANDMARKS], visibility),
        score=max(reading.presence, roi.score),
        landmarks_px=pixels[:LANDMARKS].astype(np.float32),
        visibility=visibility,
        world_m=_rotated(world, roi.angle),
        mask=_placed(mask, to_image),
        roi=roi.id,
    )
    following = roi_between(pixels[33], pixels[34], roi.score, roi.id)
    # The limbs' motion in the next frame is measured from these points.
    return person, replace(following, points=person.landmarks_px)


def exchanged(person: Person) -> Person:
    """Return the person with left and right exchanged; the set of points stays the same."""
    return replace(
        person,
        landmarks_px=person.landmarks_px[OTHER_SIDE],
        visibility=person.visibility[OTHER_SIDE],
        world_m=None if person.world_m is None else person.world_m[OTHER_SIDE],
    )


def _rotated(world: np.ndarray, angle: float) -> np.ndarray:
    """World landmarks (33, 3) of the upright crop in the image's axes."""
    c, s = np.cos(angle), np.sin(angle)
    return (world @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])).astype(np.float32)


def _placed(values: np.ndarray, to_image: np.ndarray) -> Mask:
    """A mask (128, 128) over the ROI that ``to_image`` maps from the model's pixels."""
    shrink = INPUT / MASK
    # The centre of a small pixel lies between those of the pixels that it averages.
    middle = (shrink - 1) / 2
    mask_to_image = to_image @ np.array([[shrink, 0, middle], [0, shrink, middle], [0, 0, 1]])
    return Mask(values, mask_to_image.astype(np.float32))


def box_around(points: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Return the box (4,) float32 around the visible landmarks, or all where few are visible."""
    visible = points[visibility > 0.5]
    chosen = visible if len(visible) >= 4 else points
    return np.concatenate((chosen.min(0), chosen.max(0))).astype(np.float32)
