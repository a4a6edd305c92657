"""The arithmetic of perception, against slow and obvious versions of itself."""

from __future__ import annotations

import math
from dataclasses import fields

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import numba_loops
from pipeline.core.people import Mask, Person
from pipeline.perception.blazepose import detector, landmarks, resample
from pipeline.perception.blazepose import overlap as likeness
from pipeline.perception.blazepose.roi import SCALE, Roi, roi_between, same_place

rois = st.builds(
    Roi, st.floats(-200, 1500), st.floats(-200, 900), st.floats(1, 2000), st.floats(-3.1, 3.1),
    st.just(1.0),
)  # fmt: skip


def apply(matrix, points):
    return np.asarray(points) @ matrix[:, :2].T + matrix[:, 2]


# Regions


@given(rois, st.integers(2, 300))
def test_a_regions_map_is_a_turn_and_a_scale_about_its_centre(roi, size):
    linear = roi.to_image(size)[:, :2]
    scale = roi.side / size
    assert np.allclose(linear.T @ linear, scale**2 * np.eye(2), rtol=1e-6, atol=1e-9)
    assert np.linalg.det(linear) > 0
    middle = apply(roi.to_image(size), [(size - 1) / 2] * 2)
    assert np.allclose(middle, [roi.x, roi.y], atol=1e-6)


@given(rois)
def test_two_sizes_of_one_region_show_the_same_square(roi):
    """Corners lie half a pixel outside the outer pixels' centres, whatever their number."""
    corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)])
    places = [apply(roi.to_image(n), corners * n - 0.5) for n in (64, 256)]
    assert np.allclose(*places, atol=1e-6)


@given(
    st.floats(0, 1000), st.floats(0, 1000), st.floats(-300, 300), st.floats(-300, 300),
)  # fmt: skip
def test_a_region_turns_its_tip_up(x, y, dx, dy):
    if math.hypot(dx, dy) < 1:
        return
    tip = np.array([x + dx, y + dy])
    roi = roi_between(np.array([x, y]), tip, 0.7, 3)
    assert roi.side == pytest.approx(2 * SCALE * math.hypot(dx, dy))
    assert (roi.score, roi.id, roi.frames_missed) == (0.7, 3, 0)
    size = 256
    up = [(size - 1) / 2, (size - 1) / 2 - size / (2 * SCALE)]
    assert np.allclose(apply(roi.to_image(size), up), tip, atol=1e-4)


def test_the_same_place_is_near_and_about_as_large():
    here = Roi(100, 100, 80, 0.0, 1.0)
    others = [
        Roi(100, 100, 160, 0.0, 1.0),
        Roi(112, 100, 80, 1.0, 1.0),
        Roi(105, 100, 90, 2.0, 1.0),
        Roi(300, 100, 80, 0.0, 1.0),
    ]
    assert same_place(here, others) == 2
    assert same_place(here, others[:1]) is None
    assert same_place(here, others[3:]) is None
    assert same_place(here, []) is None


# What the networks are shown


def ramp(height, width):
    """An image whose red says x and whose green says y."""
    y, x = np.mgrid[:height, :width]
    return np.stack((x, y, np.full_like(x, 128)), -1).astype(np.uint8)


@settings(deadline=None)
@given(st.integers(8, 250), st.integers(8, 250), st.sampled_from([32, 64, 224]))
def test_letterboxing_says_where_every_pixel_came_from(height, width, size):
    tensor, to_image = resample.letterbox(ramp(height, width), (0, 0, width, height), size)
    assert tensor.shape == (size, size, 3)
    assert tensor.dtype == np.float32
    rows, cols = np.mgrid[:size, :size]
    places = apply(to_image, np.stack((cols + 0.5, rows + 0.5), -1) / size)
    inside = ((places >= 0) & (places <= (width - 1, height - 1))).all(-1)
    assert inside.any() or min(height, width) * size < 2 * max(height, width)
    seen = (tensor[inside] + 1) * 127.5
    assert np.abs(seen[:, :2] - places[inside]).max(initial=0) < 1.1
    far = ((places < -1) | (places > (width, height))).any(-1)
    assert (tensor[far] == -1).all()
    side = max(height, width)
    assert np.allclose(apply(to_image, (0.5, 0.5)), ((width - 1) / 2, (height - 1) / 2))
    assert np.allclose(to_image[:, :2], side * np.eye(2))


@settings(deadline=None)
@given(
    st.floats(20, 220), st.floats(20, 220), st.floats(4, 600), st.floats(-3.1, 3.1),
    st.sampled_from([16, 64]),
)  # fmt: skip
def test_a_crop_says_where_every_pixel_came_from(x, y, side, angle, size):
    """Also where it averages blocks of pixels first (a side of many times its size)."""
    roi = Roi(x, y, side, angle, 1.0)
    small = resample.crop(ramp(240, 250), roi, size)
    assert small.shape == (size, size, 3)
    assert small.dtype == np.float32
    rows, cols = np.mgrid[:size, :size]
    places = apply(roi.to_image(size), np.stack((cols, rows), -1))
    block = max(1, side / size)
    inside = ((places >= block) & (places <= (249 - 2 * block, 239 - 2 * block))).all(-1)
    assert np.abs(small[inside][:, :2] * 255 - places[inside]).max(initial=0) < 1.2
    # The border goes on outside.
    assert np.allclose(small[..., 2], 128 / 255)


def test_a_crop_averages_where_it_shrinks():
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    small = resample.crop(noise, Roi(400, 400, 640, 0.3, 1.0), 64) * 255
    assert small.std() < 12  # single pixels have 74
    assert small.mean() == pytest.approx(127.5, abs=3)


SIZES = [
    (720, 1280), (1080, 1920), (1920, 1088), (576, 768), (240, 320), (16, 16), (100, 4000),
    (600, 4000), (4000, 300),
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_tiles_lie_in_the_picture_and_cover_its_middle(size):
    height, width = size
    levels = resample.tiles(height, width, 224)
    assert bool(levels) == (max(resample.parts(height, width)[0][2:]) >= 448)
    for level in levels:
        mask_overlap = np.zeros(size, bool)
        for x, y, w, h in level:
            assert 0 <= x < x + w <= width
            assert 0 <= y < y + h <= height
            assert max(w, h) >= 224
            mask_overlap[y : y + h, x : x + w] = True
        # Thin strips at the sides are left to the whole picture.
        assert mask_overlap[height // 8 : -height // 8, width // 8 : -width // 8].all()


@given(st.integers(1, 3000), st.floats(1, 3), st.booleans())
def test_an_ordinary_picture_is_one_part(shorter, ratio, upright):
    size = (shorter, int(shorter * ratio))[:: -1 if upright else 1]
    assert resample.parts(*size) == [(0, 0, *size[::-1])]


@given(st.integers(10, 600), st.floats(3.1, 60), st.booleans(), st.data())
def test_a_person_as_high_as_an_elongated_picture_is_in_one_of_its_parts(
    shorter, ratio, upright, data
):
    longer = int(shorter * ratio)
    height, width = (longer, shorter) if upright else (shorter, longer)
    spans = [(y, y + h) if upright else (x, x + w) for x, y, w, h in resample.parts(height, width)]
    assert (spans[0][0], spans[-1][1]) == (0, longer)
    assert {end - begin for begin, end in spans} == {2 * shorter}
    room = int(0.85 * shorter)
    begin = data.draw(st.integers(0, longer - room))
    assert any(low <= begin and begin + room <= high for low, high in spans)


@given(st.integers(1, 5000), st.integers(20, 3000))
def test_neighbouring_tiles_share_almost_half(length, side):
    starts = resample._starts(length, side)
    steps = np.diff(starts)
    assert ((steps > 0) & (steps <= 0.55 * side + 1)).all()
    if len(starts) > 1:
        assert (starts[0], starts[-1] + side) == (0, length)
    assert starts[0] >= 0


# The detector


def slow_anchors():
    """The single-shot detector's anchors, layer by layer: layers of equal stride share cells."""
    out, layer = [], 0
    while layer < len(detector.STRIDES):
        stride, count = detector.STRIDES[layer], 0
        while layer < len(detector.STRIDES) and detector.STRIDES[layer] == stride:
            layer, count = layer + 1, count + 2
        cells = math.ceil(detector.INPUT / stride)
        for y in range(cells):
            for x in range(cells):
                out += [((x + 0.5) / cells, (y + 0.5) / cells)] * count
    return np.array(out)


def test_anchors():
    anchors = detector.make_anchors()
    assert anchors.shape == (2254, 2)
    assert np.allclose(anchors, slow_anchors())


@given(
    hnp.arrays(np.float32, (2254,), elements=st.floats(-4, 2, width=32)),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=20)
def test_boxes_are_decoded_against_their_anchors(scores, seed):
    raw = np.random.default_rng(seed).normal(0, 40, (2254, 12)).astype(np.float32)
    anchors = detector.make_anchors()
    rows = detector.decode_boxes(raw, scores, anchors)
    slow = []
    for values, score, (x, y) in zip(raw.astype(float), scores.astype(float), anchors):
        sure = 1 / (1 + math.exp(-score))
        if sure < 0.5:
            continue
        cx, cy, w, h = values[0] / 224 + x, values[1] / 224 + y, values[2] / 224, values[3] / 224
        points = [value / 224 + (x, y)[k % 2] for k, value in enumerate(values[4:])]
        slow.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2, *points, sure])
    assert len(rows) == len(slow)
    slow.sort(key=lambda row: -row[-1])
    assert np.allclose(rows[:, -1], [row[-1] for row in slow])
    if len(set(scores.tolist())) == len(scores):
        assert np.allclose(rows, np.array(slow).reshape(-1, 13), atol=1e-5)


corner = st.integers(0, 12)
boxes = st.lists(
    st.tuples(corner, corner, st.integers(1, 8), st.integers(1, 8)).map(
        lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
    ),
    max_size=14,
)


def slow_overlap(a, b):
    """Intersection over union by counting cells."""
    cells = [{(x, y) for x in range(r[0], r[2]) for y in range(r[1], r[3])} for r in (a, b)]
    return len(cells[0] & cells[1]) / len(cells[0] | cells[1])


@given(boxes)
def test_overlap_is_intersection_over_union(rows):
    table = np.array(rows, float).reshape(-1, 4)
    for a, row in zip(rows, table):
        got = [detector.overlap(row, other) for other in table]
        assert np.allclose(got, [slow_overlap(a, b) for b in rows])


@given(boxes, st.data())
def test_suppression_is_the_slow_one(rows, data):
    scores = data.draw(
        st.lists(st.floats(0.5, 1), min_size=len(rows), max_size=len(rows), unique=True)
    )
    left = sorted(zip(scores, rows), reverse=True)
    table = np.array([[*row, *np.arange(8) * score, score] for score, row in left], float)
    kept = detector.suppress(table.reshape(-1, 13))
    for row in kept:
        best = left[0]
        near = [item for item in left if slow_overlap(best[1], item[1]) > detector.MIN_OVERLAP]
        left = [item for item in left if item not in near]
        total = sum(score for score, _ in near)
        for k in range(4):
            mean = sum(score * box[k] for score, box in near) / total
            assert row[k] == pytest.approx(mean)
        mean = sum(score * score for score, _ in near) / total
        assert np.allclose(row[4:12], np.arange(8) * mean)
        assert row[-1] == best[0]
    assert not left


def test_a_detections_region_is_about_its_hips():
    row = np.zeros(13)
    row[4:8] = 0.5, 0.6, 0.5, 0.2  # hip centre, and a point straight above it
    row[-1] = 0.8
    (roi,) = detector.rois_of(row[None], np.array([[100.0, 0, 10], [0, 100.0, 20]]))
    assert (roi.x, roi.y, roi.angle) == pytest.approx((60, 80, 0))
    assert roi.side == pytest.approx(2 * 40 * SCALE)
    assert roi.score == 0.8


# The landmark model


def slow_refine(points, heatmaps):
    height, width, count = heatmaps.shape
    out = points.copy()
    for k in range(count):
        col, row = math.floor(points[k, 0] * width), math.floor(points[k, 1] * height)
        if not (0 <= col < width and 0 <= row < height):
            continue
        total = x = y = best = 0.0
        for r in range(max(0, row - 3), min(height, row + 4)):
            for c in range(max(0, col - 3), min(width, col + 4)):
                heat = 1 / (1 + math.exp(-heatmaps[r, c, k]))
                total, x, y, best = total + heat, x + heat * c, y + heat * r, max(best, heat)
        if best >= 0.5 and total > 0:
            out[k] = x / width / total, y / height / total
    return out


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(-6, 3))
def test_refinement_is_the_slow_one(seed, level):
    random = np.random.default_rng(seed)
    heatmaps = random.normal(level, 2, (16, 20, 39)).astype(np.float32)
    points = random.uniform(-0.2, 1.2, (39, 2))
    assert np.allclose(landmarks.refine(points, heatmaps), slow_refine(points, heatmaps), atol=1e-5)


def outputs_with(points, world, presence=0.9, visible=5.0):
    """What the landmark model would say: points (39, 2) in crop pixels from the crop's corner."""
    values = np.zeros((39, 5), np.float32)
    values[:, :2], values[:, 3] = points, visible
    mask = np.full((256, 256), -20.0, np.float32)
    mask[64:128, 128:192] = 20.0
    cold = np.full((1, 64, 64, 39), -20.0, np.float32)
    return (
        values.reshape(1, 195), np.array([[presence]], np.float32), mask[None, :, :, None], cold,
        world.astype(np.float32).reshape(1, 117),
    )  # fmt: skip


def read_person(roi, outputs, mirrored=False):
    """The person in one ROI, and the next ROI."""
    return landmarks.read_people([roi], landmarks.readings_of(outputs), [mirrored])[0]


@settings(deadline=None)
@given(rois, st.integers(0, 2**32 - 1))
def test_a_person_lies_in_the_image_as_in_the_crop(roi, seed):
    """Points, world landmarks and mask go through the region's turn and scale together."""
    random = np.random.default_rng(seed)
    points = random.uniform(10, 246, (39, 2))
    world = np.zeros((39, 3))
    world[:, :2], world[:, 2] = (points - 128) / 200, random.normal(size=39)
    person, _ = read_person(roi, outputs_with(points, world))
    assert person.landmarks_px.shape == (33, 2)
    expected = apply(roi.to_image(256), points[:33] + landmarks.OFFSET)
    assert np.allclose(person.landmarks_px, expected, rtol=1e-4, atol=0.02)
    centre = apply(roi.to_image(256), 128 + landmarks.OFFSET)
    metres_a_pixel = 256 / 200 / roi.side
    moved = (person.landmarks_px - centre) * metres_a_pixel
    assert np.allclose(person.world_m[:, :2], moved, atol=2e-3 + 0.1 * metres_a_pixel)
    assert np.allclose(person.world_m[:, 2], world[:33, 2], atol=1e-5)
    rows, cols = np.nonzero(person.mask.values > 0.5)
    middle = apply(person.mask.to_image, [cols.mean(), rows.mean()])
    assert np.allclose(middle, apply(roi.to_image(256), [159.5, 95.5]), rtol=1e-4, atol=0.05)
    assert person.mask.values.min() >= 0
    assert person.mask.values.max() <= 1


def test_the_next_region_lies_between_the_alignment_points():
    points = np.full((39, 2), 100.0)
    points[33], points[34] = (128, 140), (128, 60)
    roi = Roi(300.0, 200.0, 512.0, 0.0, 0.0, id=7, frames_missed=2)
    _, following = read_person(roi, outputs_with(points, np.zeros((39, 3))))
    assert (following.x, following.y) == pytest.approx((300, 225 + 2 * landmarks.OFFSET[1]))
    assert following.side == pytest.approx(2 * 160 * SCALE)
    assert (following.angle, following.id, following.frames_missed) == (0, 7, 0)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_mirror_changes_nothing_but_what_it_shows(seed):
    """What the model says of the mirrored picture, its sides exchanged, read as mirrored, is what
    it says of the picture."""
    random = np.random.default_rng(seed)
    points, world = random.uniform(10, 246, (39, 2)), random.normal(size=(39, 3))
    order = [*landmarks.OTHER_SIDE, *range(33, 39)]
    straight = list(outputs_with(points, world))
    straight[2] = random.normal(size=(1, 256, 256, 1)).astype(np.float32)
    mirrored = list(outputs_with(points[order] * (-1, 1) + (256, 0), world[order] * (-1, 1, 1)))
    mirrored[2] = straight[2][:, :, ::-1]
    roi = Roi(300.0, 200.0, 400.0, 0.4, 0.9, 3)
    (a, after), (b, again) = (
        read_person(roi, outputs, flag) for outputs, flag in ((straight, False), (mirrored, True))
    )
    assert np.allclose(a.landmarks_px, b.landmarks_px, atol=1e-3)
    assert np.allclose(a.world_m, b.world_m, atol=1e-5)
    assert np.allclose(a.mask.values, b.mask.values, atol=1e-5)
    assert (after.x, after.y, after.side) == pytest.approx((again.x, again.y, again.side), abs=1e-2)
    assert np.allclose(after.points, a.landmarks_px)


def test_left_for_right_twice_is_as_before():
    person = person_at(np.random.default_rng(2).uniform(0, 100, (33, 2)))
    other = landmarks.exchanged(person)
    assert np.array_equal(other.landmarks_px[11], person.landmarks_px[12])
    assert np.array_equal(landmarks.exchanged(other).landmarks_px, person.landmarks_px)


def test_scores_and_visibility_are_probabilities():
    points = np.full((39, 2), 100.0)
    faint = outputs_with(points, np.zeros((39, 3)), presence=0.2, visible=0.0)
    person, _ = read_person(Roi(0, 0, 256, 0, 0.0), faint)
    assert person.score == pytest.approx(0.2)
    assert np.allclose(person.visibility, 0.5)
    person, _ = read_person(Roi(0, 0, 256, 0, 0.8), faint)
    assert person.score == 0.8
    assert landmarks.sigmoid(np.array([-1e9, 0.0, 1e9])).tolist() == pytest.approx([0, 0.5, 1])


def test_the_box_is_around_what_is_visible():
    points = np.random.default_rng(0).uniform(0, 100, (33, 2))
    seen = np.zeros(33)
    seen[:5] = 1
    box = landmarks.box_around(points, seen)
    assert np.allclose(box, [*points[:5].min(0), *points[:5].max(0)])
    assert np.allclose(landmarks.box_around(points, 0 * seen), [*points.min(0), *points.max(0)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_box_is_compiled_ahead_for_all_who_ask(dtype):
    """Landmarks of either precision, and parts of longer rows: a live picture would stop."""
    numba_loops.compile_ahead()
    before = set(landmarks._surround.signatures)
    rows = np.random.default_rng(0).normal(0, 300, (33, 5)).astype(dtype)
    landmarks.box_around(rows[:, 1:3], rows[:, 4])
    assert set(landmarks._surround.signatures) == before


# Which person is which


def person_at(points, mask=None):
    box = np.concatenate((points.min(0), points.max(0)))
    ones, zeros = np.ones(33, np.float32), np.zeros((33, 3), np.float32)
    return Person(box, 1.0, points.astype(np.float32), ones, zeros, mask)


def square_mask(x, y, side):
    """A person's mask that fills a square of the image, in the middle half of its own region."""
    values = np.zeros((128, 128), np.float32)
    values[32:96, 32:96] = 1
    scale = side / 64
    to_image = np.array([[scale, 0, x - 32 * scale], [0, scale, y - 32 * scale]], np.float32)
    return Mask(values, to_image)


SIZE = (2000, 2000)
shape = np.random.default_rng(3).uniform(0, 1, (33, 2))


@given(st.floats(10, 500), st.floats(-100, 1000), st.floats(-3, 3), st.floats(0, 0.5))
def test_people_are_apart_by_their_size(size, x, turn, step):
    """The measure does not change with the picture's scale, place or order of the two."""
    a, b = shape * size + x, shape * size + x + (step * size, 0)
    longest = np.ptp(shape, axis=0).max()
    assert likeness.median_distance(person_at(a), person_at(b)) == pytest.approx(
        step / longest, abs=1e-4
    )
    assert likeness.median_distance(person_at(b), person_at(a)) == pytest.approx(
        step / longest, abs=1e-4
    )


def test_what_lies_on_others_is_covered():
    body = person_at(shape * 200, square_mask(0, 0, 200))
    leg = person_at(shape * 40 + 80, square_mask(80, 80, 40))
    beside = person_at(shape * 200 + 300, square_mask(300, 300, 200))
    half = person_at(shape * 200 + (100, 0), square_mask(100, 0, 200))
    assert likeness.mask_overlap(leg, [body], SIZE) == 1
    assert likeness.mask_overlap(beside, [body], SIZE) == 0
    assert likeness.mask_overlap(half, [body], SIZE) == pytest.approx(0.5, abs=0.05)
    # A mixture of two who are there already.
    assert (
        likeness.mask_overlap(half, [body, person_at(shape, square_mask(200, 0, 200))], SIZE) > 0.95
    )
    assert likeness.mask_overlap(leg, [], SIZE) == 0
    # Without a mask of their own, by landmarks.
    assert likeness.mask_overlap(person_at(shape * 40 + 80), [beside, body], SIZE) == 1
    assert likeness.mask_overlap(leg, [person_at(shape * 200)], SIZE) == 0
    # The picture shows only the part of a giant that lies on another person.
    giant = person_at(shape * 900, square_mask(-500, -700, 900))
    assert likeness.mask_overlap(giant, [body], SIZE) < 0.6
    assert likeness.mask_overlap(giant, [body], (200, 200)) == 1


def test_a_turned_mask_covers_what_it_shows():
    """Against the mask drawn into the picture."""
    random = np.random.default_rng(1)
    values = cv2.GaussianBlur(random.normal(size=(128, 128)).astype(np.float32), (0, 0), 9)
    mask = Mask((values > 0).astype(np.float32), np.array([[2, -1, 150], [1, 2, 50]], np.float32))
    other = person_at(shape, mask)
    drawn = cv2.warpAffine(mask.values, mask.to_image, (600, 600), flags=cv2.INTER_NEAREST)
    for x, y in [(60, 100), (150, 150), (250, 300)]:
        find = person_at(shape, square_mask(x, y, 120))
        share = drawn[y : y + 120, x : x + 120].mean()
        assert likeness.mask_overlap(find, [other], SIZE) == pytest.approx(share, abs=0.06)


@given(st.floats(10, 500), st.floats(-300, 300), st.floats(-300, 300))
def test_who_moves_as_a_whole_has_not_strayed(size, dx, dy):
    person = person_at(shape * size + (dx, dy))
    there, swapped = likeness.limb_drift(person, shape * size)
    assert there == pytest.approx(0, abs=1e-3)
    assert swapped > 0.05
    exchanged = landmarks.exchanged(person)
    assert likeness.limb_drift(exchanged, shape * size) == pytest.approx((swapped, there), abs=1e-3)


@given(st.integers(0, 2**32 - 1))
def test_limbs_drift_by_their_mean_distance_beyond_the_common_motion(seed):
    random = np.random.default_rng(seed)
    person, before = person_at(random.uniform(0, 400, (33, 2))), random.uniform(0, 400, (33, 2))
    expected = []
    for order in (np.arange(33), landmarks.OTHER_SIDE):
        now, then = person.landmarks_px[order][11:], before[11:]
        apart = (now - now.mean(0)) - (then - then.mean(0))
        size = np.ptp(person.landmarks_px, axis=0).max()
        expected.append(np.linalg.norm(apart, axis=1).mean() / size)
    assert likeness.limb_drift(person, before) == pytest.approx(expected, rel=1e-5)


def test_landmarks_that_are_made_up_lie_off_the_mask():
    assert likeness.on_mask(person_at(shape * 200, square_mask(0, 0, 200)), 500, 500) == 1
    half = likeness.on_mask(person_at(shape * 200, square_mask(0, 0, 100)), 500, 500)
    assert half == pytest.approx(((shape * 200 < 100.8).all(1)).mean(), abs=0.1)
    # What is outside the picture is not asked for.
    assert likeness.on_mask(person_at(shape * 200, square_mask(0, 0, 100)), 100, 100) == 1
    assert likeness.on_mask(person_at(shape * 200), 500, 500) == 1


def test_painting_over_takes_the_person_out_of_a_turned_crop():
    image = np.full((400, 400, 3), 50, np.uint8)
    image[150:250, 150:250] = 250
    roi = Roi(200.0, 200.0, 300.0, 0.5, 1.0)
    view = resample.crop(image, roi, 64)
    painted = resample.painted_over(view, roi, square_mask(144, 144, 112))
    assert painted.dtype == np.float32
    assert view.max() > 0.9
    assert np.abs(painted - 50 / 255).max() < 0.08
    beside = resample.painted_over(view, roi, square_mask(800, 800, 100))
    assert np.allclose(beside, view)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.lists(st.booleans(), min_size=2, max_size=5))
def test_people_are_read_together_as_each_alone(seed, mirrored):
    random = np.random.default_rng(seed)
    count = len(mirrored)
    uniform = random.uniform((0, 0, 50, -3, 0), (1920, 1080, 900, 3, 1), (count, 5))
    rois = [Roi(*numbers, k) for k, numbers in enumerate(uniform.tolist())]
    readings = landmarks.Readings(
        random.uniform(0, 1, (count, 39, 2)), random.normal(size=(count, 39)).astype(np.float32),
        [0.5] * count, random.uniform(0, 1, (count, 128, 128)).astype(np.float32),
        random.normal(size=(count, 39, 3)).astype(np.float32),
    )  # fmt: skip
    together = landmarks.read_people(rois, readings, mirrored)
    for k, (a, a_roi) in enumerate(together):
        own = landmarks.Readings(*(getattr(readings, f.name)[k : k + 1] for f in fields(readings)))
        ((b, b_roi),) = landmarks.read_people(rois[k : k + 1], own, mirrored[k : k + 1])
        for name in ("box_px", "landmarks_px", "visibility", "world_m"):
            assert np.allclose(getattr(a, name), getattr(b, name), rtol=1e-5, atol=1e-5), name
        assert np.array_equal(a.mask.values, b.mask.values)
        assert np.allclose(a.mask.to_image, b.mask.to_image)
        assert (a.roi, a.score, a_roi.id) == (b.roi, b.score, b_roi.id)
        assert (a_roi.x, a_roi.y, a_roi.angle) == pytest.approx((b_roi.x, b_roi.y, b_roi.angle))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.2, 1.0, 9.0]))
def test_a_box_surrounds_what_is_visible_or_all_where_that_is_little(seed, power):
    random = np.random.default_rng(seed)
    points, visibility = random.normal(0, 300, (33, 2)), random.random(33) ** power
    box, seen = landmarks.box_around(points, visibility), visibility.astype(np.float32) > 0.5
    within = points[seen] if seen.sum() >= 4 else points
    assert np.array_equal(box, np.float32([*within.min(0), *within.max(0)]))
