"""BlazePose's landmark model: reading a person out of its outputs for one ROI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from numba_loops import compiled
from pipeline.core.people import Mask, Person
from pipeline.core.skeleton import BLAZEPOSE_33, LANDMARKS
from pipeline.perception.blazepose.roi import Roi, Row, roi_between

INPUT = 256
OUTPUTS = ((1, 195), (1, 1), (1, 256, 256, 1), (1, 64, 64, 39), (1, 117))
"""Shapes of the model's outputs: landmarks, presence, mask, heatmaps, world landmarks."""
MASK = 128
"""Side of the masks that are passed on: half the model's, still finer than its edges are sharp."""
OTHER_SIDE = BLAZEPOSE_33.mirror
"""For each of the 33 landmarks, the one that takes its place in a mirrored picture."""
_MIRRORED = np.concatenate((OTHER_SIDE, np.arange(LANDMARKS, 39)))
"""The same for all 39 points; the six extra ones have no sides, so they keep their places."""
_SHRINK = INPUT / MASK
OFFSET = np.array([-0.5, 0.0])
"""Added to the network's coordinates times its size, it gives crop pixels with centres at whole
numbers. Measured: across, so that a mirrored picture has mirrored answers; down, against true
landmarks of renders."""
KERNEL = 7
"""Side of the neighbourhood in a heatmap that refines a landmark."""
MIN_HEAT = 0.5
"""A landmark is refined where its heatmap reaches this."""
PARTS = (39 * 2, 39, 1, 39 * 3, MASK * MASK)
"""How many numbers of a row are landmarks in the picture, visibilities, presence, landmarks in the
world and the mask, where torch reads the outputs."""
WIDTH = sum(PARTS)
"""How many numbers such a row has."""


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the logistic function of logits, which are clipped so that none overflows."""
    # Two ufuncs: `np.clip` takes several times as long to begin.
    return 1 / (1 + np.exp(-np.maximum(np.minimum(x, 60), -60)))


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
class Readings:
    """The model's outputs for N ROIs, ready to be read.

    Attributes:
        points: (N, 39, 2) refined landmarks in [0, 1].
        visibility: (N, 39) logits.
        presence: For each ROI, how sure the model is that a person is in it, in [0, 1].
        masks: (128, 128) float32 in [0, 1] for each ROI, which its person keeps.
        world: (N, 39, 3) metres.
    """

    points: np.ndarray
    visibility: np.ndarray
    presence: Sequence[float]
    masks: Sequence[np.ndarray]
    world: np.ndarray


def presence_of(outputs: Sequence[np.ndarray]) -> float:
    """Return how sure the model is, in [0, 1], that a person is in the ROI."""
    # The model returns a probability here, not a logit.
    return float(outputs[1][0, 0])


def readings_of(outputs: Sequence[np.ndarray]) -> Readings:
    """Return the readings of the model's five outputs for one ROI.

    These are 39 landmarks of five numbers, the presence, the mask (256, 256) and heatmaps (64, 64,
    39) as logits, and 39 world landmarks in metres.
    """
    values = outputs[0].reshape(39, 5)
    points = refine(values[:, :2] / INPUT, outputs[3][0])
    # Averaged before the sigmoid, which then runs on a quarter of the pixels.
    small = cv2.resize(outputs[2][0, :, :, 0], (MASK, MASK), interpolation=cv2.INTER_AREA)
    mask = sigmoid(small).astype(np.float32)
    world = outputs[4].reshape(1, 39, 3)
    return Readings(points[None], values[None, :, 3], [presence_of(outputs)], [mask], world)


def read_people(
    rois: Sequence[Roi], readings: Readings, mirrored: Sequence[bool]
) -> list[tuple[Person, Roi]]:
    """Return the person in each ROI, and the ROI in which to find that person next.

    The last six of the 39 landmarks are not the person's: two of them are MediaPipe's alignment
    points, which give the next ROI. The person's score is the presence or, where that is higher,
    the detector's.

    Args:
        rois: The N ROIs that the model was given, one or more.
        readings: What it returned for them.
        mirrored: Whether the model was given the ROI mirrored.
    """
    points, logits, masks = readings.points, readings.visibility, list(readings.masks)
    world = readings.world[:, :LANDMARKS]
    flipped = [k for k, flag in enumerate(mirrored) if flag]
    if flipped:
        points, logits, world = points.copy(), logits.copy(), world.copy()
        points[flipped] = (points[flipped] * (-1, 1) + (1, 0))[:, _MIRRORED]
        logits[flipped] = logits[flipped][:, _MIRRORED]
        world[flipped] = world[flipped][:, OTHER_SIDE] * (-1, 1, 1)
        for k in flipped:
            masks[k] = np.ascontiguousarray(masks[k][:, ::-1])
    points = np.ascontiguousarray(points, np.float64)
    logits = np.ascontiguousarray(logits, np.float32)
    world = np.ascontiguousarray(world, np.float32)
    found = []
    for k, (roi, presence) in enumerate(zip(rois, readings.presence)):
        # Arrays of its own, or a person would keep those of the whole batch in memory.
        marks, visibility = np.empty((LANDMARKS, 2), np.float32), np.empty(LANDMARKS, np.float32)
        world_m, box = np.empty((LANDMARKS, 3), np.float32), np.empty(4, np.float32)
        to_image = roi.rows_to_image(INPUT)
        ends = _place(
            points[k], logits[k], world[k], to_image, roi.angle, marks, visibility, world_m, box
        )
        person = Person(
            box_px=box,
            score=max(presence, roi.score),
            landmarks_px=marks,
            visibility=visibility,
            world_m=world_m,
            mask=Mask(masks[k], _mask_to_image(to_image)),
            roi=roi.id,
        )
        # The limbs' motion in the next frame is measured from these points.
        centre, tip = ends
        found.append((person, roi_between(centre, tip, roi.score, roi.id, marks)))
    return found


def exchanged(person: Person) -> Person:
    """Return the person with left and right exchanged; the set of points stays the same."""
    return replace(
        person,
        landmarks_px=person.landmarks_px[OTHER_SIDE],
        visibility=person.visibility[OTHER_SIDE],
        world_m=None if person.world_m is None else person.world_m[OTHER_SIDE],
    )


def _mask_to_image(to_image: tuple[Row, Row]) -> np.ndarray:
    """The map (2, 3) float32 from a mask's pixels to the image, of that from the crop's."""
    (a, b, left), (c, d, top) = to_image
    # The centre of a small pixel lies between those of the pixels that it averages.
    middle = (_SHRINK - 1) / 2
    rows = (
        (a * _SHRINK, b * _SHRINK, left + (a + b) * middle),
        (c * _SHRINK, d * _SHRINK, top + (c + d) * middle),
    )
    return np.array(rows, np.float32)


def box_around(points: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Return the box (4,) float32 around the visible landmarks, or all where few are visible.

    Args:
        points: (K, 2) landmarks.
        visibility: (K,) in [0, 1].
    """
    box = np.empty(4, np.float32)
    _surround(
        np.ascontiguousarray(points, np.float64), np.ascontiguousarray(visibility, np.float32), box
    )
    return box


@compiled("void(f8[:, ::1], f4[::1], f4[::1])")
def _surround(points, visibility, box):
    """Fill the box of `box_around`."""
    # Of few visible landmarks the box would say nothing.
    all_of_them = (visibility > 0.5).sum() < 4
    low_x = low_y = np.inf
    high_x = high_y = -np.inf
    for k in range(len(points)):
        if all_of_them or visibility[k] > 0.5:
            x, y = points[k, 0], points[k, 1]
            low_x, low_y = min(low_x, x), min(low_y, y)
            high_x, high_y = max(high_x, x), max(high_y, y)
    box[0], box[1], box[2], box[3] = low_x, low_y, high_x, high_y


_ROWS = "UniTuple(UniTuple(f8, 3), 2)"


@compiled(
    f"UniTuple(UniTuple(f8, 2), 2)(f8[:, ::1], f4[::1], f4[:, ::1], {_ROWS}, f8,"
    " f4[:, ::1], f4[::1], f4[:, ::1], f4[::1])"
)
def _place(points, logits, world, to_image, angle, marks, visibility, world_m, box):
    """Fill a person's arrays and return the two alignment points in the image.

    Args:
        points: (39, 2) as `Readings.points`; so are ``logits`` and ``world``.
        logits: (39,)
        world: (33, 3)
        to_image: The map from the crop's pixels to the image's.
        angle: The crop's rotation in radians.
        marks: (33, 2)
        visibility: (33,)
        world_m: (33, 3) in the image's axes.
        box: (4,) as of `box_around`.
    """
    (a, b, left), (c, d, top) = to_image
    placed = np.empty((LANDMARKS + 2, 2))
    for k in range(LANDMARKS + 2):
        x, y = points[k, 0] * INPUT + OFFSET[0], points[k, 1] * INPUT + OFFSET[1]
        placed[k, 0], placed[k, 1] = a * x + b * y + left, c * x + d * y + top
    cosine, sine = np.cos(angle), np.sin(angle)
    for k in range(LANDMARKS):
        marks[k, 0], marks[k, 1] = placed[k, 0], placed[k, 1]
        visibility[k] = 1 / (1 + np.exp(-max(min(logits[k], 60.0), -60.0)))
        world_m[k, 0] = cosine * world[k, 0] - sine * world[k, 1]
        world_m[k, 1] = sine * world[k, 0] + cosine * world[k, 1]
        world_m[k, 2] = world[k, 2]
    _surround(placed[:LANDMARKS], visibility, box)
    # The points behind the person's own are MediaPipe's alignment points.
    centre, tip = placed[LANDMARKS], placed[LANDMARKS + 1]
    return (centre[0], centre[1]), (tip[0], tip[1])
