"""The second person detector: boxes, views, ROIs, scores; LiteRT and torch side by side."""

from __future__ import annotations

from dataclasses import astuple

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.perception.blazepose import person_detector as ssd
from pipeline.perception.blazepose.litert import load_model
from pipeline.perception.blazepose.person_detector_torch import PersonDetectorNet
from pipeline.perception.blazepose.resample import parts, stretch, tiles
from pipeline.perception.blazepose.tflite import read_graph
from tests.support.paths import SAMPLES

SIZE = (720, 1280)
"""A picture's height and width."""
ANCHORS = ssd.make_anchors()
_ROWS, _COLUMNS = np.mgrid[:600, :700]
RAMP = np.stack((_COLUMNS * 255 / 699, _ROWS * 255 / 599, 0 * _ROWS), -1).astype(np.uint8)
"""A picture whose red grows to the right, and its green downwards."""
parts_of_one = st.floats(0.05, 0.95)


def frame_of_the_sample(index=0):
    capture = cv2.VideoCapture(str(SAMPLES / "pitch.mp4"))
    capture.set(cv2.CAP_PROP_POS_FRAMES, index)
    return np.ascontiguousarray(capture.read()[1][..., ::-1])


def encoded(box, anchor):
    """What the network returns for a box at an anchor: the inverse of `decode`."""
    (x0, y0, x1, y1), (x, y, width, height) = box, anchor
    return np.array(
        [
            10 * ((y0 + y1) / 2 - y) / height,
            10 * ((x0 + x1) / 2 - x) / width,
            5 * np.log((y1 - y0) / height),
            5 * np.log((x1 - x0) / width),
        ]
    )


def boxes_of(*rows):
    return np.array(rows, float).reshape(-1, 5)


def test_every_cell_has_its_anchors_inside_the_input():
    assert ANCHORS.shape == (1917, 4)
    assert (ANCHORS > 0).all()
    assert (ANCHORS[:, :2] < 1).all()
    # Of each shape there is one a cell.
    shapes, counts = np.unique(ANCHORS[:, 2:].round(5), axis=0, return_counts=True)
    assert sorted(counts) == sorted([361] * 3 + [100] * 6 + [25] * 6 + [9] * 6 + [4] * 6 + [1] * 6)


@settings(deadline=None)
@given(st.integers(0, 1916), parts_of_one, parts_of_one, parts_of_one, parts_of_one)
def test_a_box_is_read_as_it_was_encoded(index, x, y, width, height):
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    raw, logits = np.zeros((1917, 4)), np.full(1917, -20.0)
    raw[index], logits[index] = encoded(box, ANCHORS[index]), 1.0
    (row,) = ssd.decode(raw, logits, ANCHORS)
    np.testing.assert_allclose(row[:4], box, atol=1e-5)
    assert row[4] == pytest.approx(1 / (1 + np.exp(-1)))


@settings(deadline=None)
@given(st.lists(st.floats(-1e30, 1e30), min_size=4, max_size=4), st.floats(-1e30, 1e30))
def test_no_output_is_more_than_numbers(raw, logit):
    rows = ssd.decode(np.tile(raw, (1917, 1)), np.full(1917, logit), ANCHORS)
    assert np.isfinite(rows).all()
    assert (np.diff(rows[:, 4]) <= 0).all()


def test_a_tile_leaves_what_it_cuts_off_to_others_and_the_picture_keeps_it():
    cut = boxes_of((0.0, 0.2, 0.1, 0.9, 0.6), (0.9, 0.2, 1.0, 0.9, 0.5), (0.4, 0.5, 0.5, 1.0, 0.4))
    whole = boxes_of((0.3, 0.2, 0.5, 0.8, 0.5))
    both = np.concatenate((cut, whole))
    assert len(ssd.in_picture(both, (0, 0, 1280, 720), SIZE)) == 4
    (row,) = ssd.in_picture(both, (200, 100, 400, 400), SIZE)
    np.testing.assert_allclose(row[:4], (319.5, 179.5, 399.5, 419.5))
    # A tile in the picture's corner: its outer edges are the picture's own.
    assert len(ssd.in_picture(both, (0, 0, 640, 720), SIZE)) == 3


def test_people_in_several_views_are_one_each():
    views = [(0, 0, 1280, 720), (100, 60, 640, 640)]
    people = [(300.0, 200.0, 420.0, 560.0), (500.0, 180.0, 640.0, 600.0)]
    outputs = []
    for x, y, width, height in views:
        raw, logits = np.zeros((1917, 4)), np.full(1917, -20.0)
        for k, person in enumerate(people):
            place = np.array([x, y] * 2)
            box = (np.array(person) + 0.5 - place) / ([width, height] * 2)
            raw[1000 + k], logits[1000 + k] = encoded(box, ANCHORS[1000 + k]), -0.3 + 0.1 * k
        outputs.append((raw, logits))
    rows = ssd.merged(outputs, views, SIZE, ANCHORS)
    np.testing.assert_allclose(rows[:, :4], people[::-1], atol=1e-3)
    assert ssd.merged([], [], SIZE, ANCHORS).shape == (0, 5)


boxes_inside = st.tuples(
    st.floats(300, 600), st.floats(100, 200), st.floats(50, 200), st.floats(100, 300)
)


@settings(deadline=None)
@given(boxes_inside, st.floats(0.5, 2), st.integers(-100, 100))
def test_rois_move_and_grow_with_the_picture(box, scale, shift):
    x, y, width, height = box
    row = np.array([x, y, x + width, y + height, 0.5])
    (roi,) = ssd.rois_of(row[None], SIZE)
    (moved,) = ssd.rois_of(row[None] + [shift, 0, shift, 0, 0], SIZE)
    assert (moved.x, moved.y, moved.side) == pytest.approx((roi.x + shift, roi.y, roi.side))
    size = (round(SIZE[0] * scale), round(SIZE[1] * scale))
    (grown,) = ssd.rois_of(row[None] * [scale, scale, scale, scale, 1], size)
    assert (grown.x, grown.y) == pytest.approx((scale * roi.x, scale * roi.y))
    assert grown.side == pytest.approx(scale * roi.side)
    # All of the person is inside.
    assert roi.y + roi.side / 2 >= y + height
    assert roi.y - roi.side / 2 <= y


@settings(deadline=None)
@given(st.floats(100, 400), st.floats(100, 300))
def test_a_person_who_is_cut_off_below_goes_on_beyond_the_picture(width, height):
    free = boxes_of((400, 300 - height, 400 + width, 300, 0.5))
    cut = free + [0, 719 - 300, 0, 719 - 300, 0]
    (roi,), (longer,) = ssd.rois_of(free, SIZE), ssd.rois_of(cut, SIZE)
    # Up to rounding: the two are computed at different heights of the picture.
    assert longer.side >= roi.side * (1 - 1e-12)
    assert longer.x == roi.x
    if width > height:
        assert longer.side > 1.2 * roi.side
        assert longer.y - cut[0, 1] > roi.y - free[0, 1]


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_calibrated_scores_rise_with_raw_ones(one, other):
    low, high = sorted((one, other))
    assert 0 <= ssd.calibrated(low) <= ssd.calibrated(high) <= 1


def test_rois_are_plain_numbers():
    (roi,) = ssd.rois_of(boxes_of((10, 10, 50, 90, 0.5)), SIZE)
    plain = {float, int, bool, tuple, type(None)}
    assert {type(value) for value in astuple(roi)} <= plain


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(0, 100), st.integers(60, 400), st.integers(60, 400))
def test_a_stretched_view_shows_its_part_from_edge_to_edge(x, y, width, height):
    view = (stretch(RAMP, (x, y, width, height), 300) + 1) * 255 / 2
    left, right = view[100, 20, 0], view[100, -21, 0]
    assert left == pytest.approx((x + width * 20.5 / 300 - 0.5) * 255 / 699, abs=2)
    assert right == pytest.approx((x + width * 279.5 / 300 - 0.5) * 255 / 699, abs=2)
    assert view[40, 9, 1] == pytest.approx((y + height * 40.5 / 300 - 0.5) * 255 / 599, abs=2)


@pytest.mark.weights
def test_another_model_is_refused(files):
    with pytest.raises(ValueError, match="another model"):
        ssd.PersonDetector(files["pose_detection.tflite"])


@pytest.mark.weights
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_pitcher_is_found_once(person_detector_file, mirrored):
    image = frame_of_the_sample()
    image = np.ascontiguousarray(image[:, ::-1]) if mirrored else image
    height, width = image.shape[:2]
    views = [*parts(height, width), *tiles(height, width, ssd.INPUT)[0]]
    (roi,) = ssd.PersonDetector(person_detector_file).detect(image, views)
    assert roi.x == pytest.approx(775 if mirrored else 505, abs=40)
    assert roi.side == pytest.approx(600, rel=0.2)
    assert 0 < roi.score < 1


@pytest.mark.weights
@pytest.mark.parametrize("kind", ["noise", "clip"])
@torch.inference_mode()
def test_torch_finds_what_litert_finds(person_detector_file, kind):
    net = PersonDetectorNet(read_graph(person_detector_file)).eval()
    if kind == "noise":
        draw = np.random.default_rng(3)
        images = draw.uniform(-1, 1, (2, 300, 300, 3)).astype(np.float32)
    else:
        pictures = [frame_of_the_sample(k) for k in (0, 17)]
        images = np.stack([stretch(p, (0, 0, p.shape[1], p.shape[0]), 300) for p in pictures])
    rows = net(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert rows.shape == (2, 1917, 5)
    model = load_model(person_detector_file, ssd.OUTPUTS, 1)
    for image, row in zip(images, rows):
        boxes, logits = model(image)
        np.testing.assert_allclose(row[:, :4], boxes[0], atol=2e-4 * np.abs(boxes).max())
        np.testing.assert_allclose(row[:, 4], logits[0, :, ssd.PERSON], atol=2e-3)
        theirs = ssd.decode(boxes[0], logits[0, :, ssd.PERSON], ANCHORS)
        np.testing.assert_allclose(ssd.decode(row[:, :4], row[:, 4], ANCHORS), theirs, atol=1e-3)


@pytest.mark.weights
@torch.inference_mode()
def test_half_precision_finds_the_same_people(person_detector_file):
    graph = read_graph(person_detector_file)
    picture = frame_of_the_sample()
    view = (0, 0, picture.shape[1], picture.shape[0])
    image = torch.from_numpy(stretch(picture, view, 300)).permute(2, 0, 1)[None]
    full, half = PersonDetectorNet(graph), PersonDetectorNet(graph).halve()
    rows = [net(x)[0].numpy() for net, x in ((full, image), (half, image.half()))]
    (best, *_), (other, *_) = (
        ssd.merged([(row[:, :4], row[:, 4])], [view], picture.shape[:2], ANCHORS) for row in rows
    )
    np.testing.assert_allclose(best[:4], other[:4], atol=0.01 * np.ptp(best[:4]))
    assert best[4] == pytest.approx(other[4], abs=0.02)


@pytest.mark.slow
@pytest.mark.weights
def test_the_network_can_be_traced(person_detector_file):
    net = PersonDetectorNet(read_graph(person_detector_file)).eval()
    image = torch.zeros(2, 3, 300, 300)
    with torch.no_grad():
        exported = torch.export.export(net, (image,))
        torch.testing.assert_close(exported.module()(image), net(image))
