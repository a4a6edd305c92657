"""BlazePose: its arithmetic against slow references, its following on stub and on real models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import weights
from pipeline.frame import Frame, Window
from pipeline.perceive import blazepose, detector
from pipeline.perceive.blazepose import BlazePose, Memory
from pipeline.perceive.detector import Region
from pipeline.perceive.landmarks import box_around, crop, refine, sigmoid

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "samples" / "pitch.mp4"


def frames_of(path, count, step=1):
    import av

    out = []
    with av.open(str(path)) as container:
        for index, picture in enumerate(container.decode(video=0)):
            if index % step == 0:
                image = picture.to_ndarray(format="rgb24")
                out.append(Frame(index, "clip", 0, index / 30, image))
            if len(out) == count:
                return out
    return out


def windows_of(frames):
    return [Window(tuple(frames[k : k + 4]), 0, k == 0) for k in range(0, len(frames), 4)]


# The detector's arithmetic


def test_anchors_are_mediapipes():
    anchors = detector.make_anchors()
    assert anchors.shape == (2254, 2)
    assert np.allclose(anchors[:2], 0.5 / 28)
    assert np.allclose(anchors[28 * 28 * 2], 0.5 / 14)
    assert np.allclose(anchors[-1], 1 - 0.5 / 7)
    assert len(np.unique(anchors[-294:], axis=0)) == 49


regions = st.builds(
    Region, st.floats(-200, 1500), st.floats(-200, 900), st.floats(1, 2000), st.floats(-3.1, 3.1),
    st.just(1.0),
)  # fmt: skip


@given(regions, st.integers(2, 300))
def test_a_regions_map_is_a_turn_and_a_scale_about_its_centre(region, size):
    linear = region.to_image(size)[:, :2]
    scale = region.side / size
    assert np.allclose(linear.T @ linear, scale**2 * np.eye(2), rtol=1e-6, atol=1e-9)
    assert np.linalg.det(linear) > 0
    middle = region.to_image(size) @ [size / 2, size / 2, 1]
    assert np.allclose(middle, [region.x, region.y], atol=1e-6)


@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(-300, 300), st.floats(-300, 300))
def test_a_region_turns_its_tip_up(x, y, dx, dy):
    if np.hypot(dx, dy) < 1:
        return
    region = detector.region_between(np.array([x, y]), np.array([x + dx, y + dy]), 1.0)
    assert region.side == pytest.approx(2.5 * np.hypot(dx, dy))
    size = 256
    tip = np.linalg.solve(region.to_image(size)[:, :2], np.array([dx, dy])) + size / 2
    assert np.allclose(tip, [size / 2, size / 2 - size / 2.5], atol=1e-4)


@given(st.integers(40, 900), st.integers(40, 900))
def test_letterboxing_keeps_every_point_in_its_place(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    y, x = height // 3, width // 4
    reach = max(2, max(height, width) // 60)
    image[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = 255
    tensor, to_image = detector.letterbox(image, (0, 0, width, height))
    assert tensor.shape == (224, 224, 3)
    assert tensor.min() == -1.0
    weight = (tensor[..., 0] + 1) / 2
    rows, cols = np.mgrid[:224, :224]
    centre = np.array([(weight * cols).sum(), (weight * rows).sum()]) / weight.sum()
    # A pixel's centre lies half a pixel into the [0, 1] coordinates.
    found = to_image @ [*(centre + 0.5) / 224, 1.0]
    assert np.allclose(found, [x, y], atol=0.02 * max(height, width) + 1)


boxes = hnp.arrays(
    np.float64, st.tuples(st.integers(0, 25), st.just(3)), elements=st.floats(0.05, 0.95)
)


@given(boxes)
def test_suppression_leaves_no_overlap_and_loses_nobody(raw):
    centre, half = raw[:, :2], raw[:, 2:] * 0.2
    score = np.sort(np.linspace(0.5, 0.99, len(raw)))[::-1]
    rows = np.concatenate(
        (centre - half, centre + half, np.zeros((len(raw), 8)), score[:, None]), 1
    )
    kept = detector.suppress(rows)
    assert (len(kept) == 0) == (len(rows) == 0)
    # Every detection overlaps the best of the cluster it went to; that cluster's mean is kept.
    left, clusters = rows, 0
    while len(left):
        near = detector.overlap(left[0], left) > detector.MIN_OVERLAP
        near[0] = True
        weight = left[near][:, -1]
        mean = (left[near][:, :12] * weight[:, None]).sum(0) / weight.sum()
        assert np.allclose(kept[clusters][:12], mean)
        assert kept[clusters][-1] == left[0][-1]
        left, clusters = left[~near], clusters + 1
    assert clusters == len(kept)


@given(boxes)
def test_overlap_is_intersection_over_union(raw):
    rows = np.concatenate((raw[:, :2], raw[:, :2] + raw[:, 2:]), 1)
    for box in rows[:3]:
        shared = detector.overlap(box, rows)
        assert ((shared >= 0) & (shared <= 1 + 1e-9)).all()
        grid = np.linspace(0, 2, 161)
        x, y = np.meshgrid(grid, grid)
        for other, iou in zip(rows[:3], shared):
            inside = [(x >= b[0]) & (x < b[2]) & (y >= b[1]) & (y < b[3]) for b in (box, other)]
            union = (inside[0] | inside[1]).sum()
            assert iou == pytest.approx((inside[0] & inside[1]).sum() / max(union, 1), abs=0.25)


SIZES = [(720, 1280), (1080, 1920), (1920, 1088), (576, 768), (240, 320), (16, 16)]


@pytest.mark.parametrize("size", SIZES)
def test_tiles_lie_in_the_picture_and_cover_its_middle(size):
    height, width = size
    covered = np.zeros(size, bool)
    for x, y, w, h in detector.tiles(height, width):
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        covered[y : y + h, x : x + w] = True
    if max(size) >= 2 * detector.INPUT:
        # A thin strip at top and bottom is left to the whole picture.
        assert covered[height // 10 : -height // 10].all()


# The landmark model's arithmetic


def test_refinement_moves_to_the_centre_of_heat():
    heat = np.full((64, 64, 39), -20.0, np.float32)
    heat[30:33, 40:43] = 5.0
    points = np.full((39, 2), 0.0)
    points[:, 0], points[:, 1] = 40.5 / 64, 30.5 / 64
    moved = refine(points, heat)
    assert np.allclose(moved, [41 / 64, 31 / 64], atol=1e-3)
    cold = refine(points, np.full((64, 64, 39), -20.0, np.float32))
    assert np.array_equal(cold, points)
    outside = refine(np.full((39, 2), 1.7), heat)
    assert np.array_equal(outside, np.full((39, 2), 1.7))


def test_a_crop_shows_the_region_upright():
    image = np.zeros((200, 300, 3), np.uint8)
    image[95:106, 145:156] = 255
    image[95:106, 195:206, 0] = 255
    turned = Region(150.0, 100.0, 160.0, np.pi / 2, 1.0)
    small = crop(image, turned)
    assert small.shape == (256, 256, 3)
    assert small[128, 128].min() == 1.0
    # What lies to the right in the image lies up in a region turned by a quarter.
    up = np.unravel_index(np.where(small[..., 1] < 0.5, small[..., 0], 0).argmax(), (256, 256))
    assert up[0] < 70
    assert abs(up[1] - 128) < 12


def test_sigmoid_and_box():
    assert sigmoid(np.array([-1e9, 0.0, 1e9])).tolist() == pytest.approx([0, 0.5, 1])
    points = np.random.default_rng(0).uniform(0, 100, (33, 2))
    seen = np.zeros(33)
    seen[:5] = 1
    box = box_around(points, seen)
    assert np.allclose(box, [*points[:5].min(0), *points[:5].max(0)])
    assert np.allclose(box_around(points, 0 * seen), [*points.min(0), *points.max(0)])


# Following, with stub models: people are bright squares


class StubPose(BlazePose):
    """BlazePose whose networks are replaced: a person is a region whose middle is bright."""

    def __init__(self, places, max_people=4):
        self.max_people = max_people
        self.places = places
        self.detected = 0
        self._anchors = detector.make_anchors()

    def _detections(self, image, memory, search, all_tiles):
        self.detected += 1
        now = int(image[0, 0, 0])
        return [Region(x, y, 80.0, 0.0, 0.9) for x, y in self.places(now)]

    def _person_in(self, frame, region):
        from dataclasses import replace

        from pipeline.people import Mask, Person

        now = int(frame.image[0, 0, 0])
        for x, y in self.places(now):
            if abs(x - region.x) < 30 and abs(y - region.y) < 30:
                shape = np.random.default_rng(1).uniform(-30, 30, (33, 2)).astype(np.float32)
                points = shape + np.array([x, y], np.float32)
                person = Person(
                    np.array([x - 30, y - 30, x + 30, y + 30], np.float32), 0.9, points,
                    np.ones(33, np.float32), np.zeros((33, 3), np.float32),
                    Mask(np.zeros((4, 4), np.float32), np.eye(2, 3, dtype=np.float32)), region.id,
                )  # fmt: skip
                return person, replace(region, x=x, y=y, missed=0)
        return None


def stub_windows(count):
    frames = [
        Frame(k, "stub", 0, k / 30, np.full((240, 640, 3), k, np.uint8)) for k in range(count)
    ]
    return windows_of(frames)


def follow(perceiver, windows):
    memory, out = None, []
    for window in windows:
        people, memory = perceiver.decode(perceiver.embed(window, memory), window)
        out += people
    return out


def test_a_person_keeps_their_region_while_they_move():
    people = follow(StubPose(lambda t: [(60 + 10 * t, 100)]), stub_windows(40))
    assert [[p.region for p in now] for now in people] == [[0]] * 40


def test_people_come_and_go_with_the_key_frames():
    def places(t):
        return ([(100, 100)] if t < 18 else []) + ([(400, 100)] if t >= 6 else [])

    people = follow(StubPose(places), stub_windows(40))
    seen = [sorted(p.region for p in now) for now in people]
    assert seen[0] == [0]
    assert seen[8] == [0, 1]
    assert seen[18] == [1]
    assert seen[39] == [1]


def test_a_short_absence_keeps_the_region_and_a_long_one_does_not():
    short = StubPose(lambda t: [] if 9 <= t < 11 else [(100, 100)])
    assert {p.region for now in follow(short, stub_windows(24)) for p in now} == {0}
    long = StubPose(lambda t: [] if 8 <= t < 20 else [(100, 100)])
    assert {p.region for now in follow(long, stub_windows(32)) for p in now} == {0, 1}


def test_at_most_so_many_people_are_followed():
    crowd = StubPose(lambda t: [(60 + 90 * k, 100) for k in range(6)], max_people=3)
    assert {len(now) for now in follow(crowd, stub_windows(12))} == {3}


def test_the_key_frame_may_be_any_and_neighbours_follow_outward():
    perceiver = StubPose(lambda t: [(60 + 20 * t, 100)])
    frames = stub_windows(4)[0].frames
    for key in range(4):
        window = Window(frames, key, True)
        people, memory = perceiver.decode(perceiver.embed(window, None), window)
        assert [len(now) for now in people] == [1, 1, 1, 1]
        assert memory.regions[0].x == 60 + 20 * 3


def test_embed_looks_at_the_key_frame_only_and_state_is_the_callers():
    class Watched(StubPose):
        looked = None

        def _detections(self, image, memory, search, all_tiles):
            self.looked = int(image[0, 0, 0])
            return super()._detections(image, memory, search, all_tiles)

    perceiver = Watched(lambda t: [(100 + t, 100)])
    first, second = stub_windows(8)
    embedding = perceiver.embed(first, None)
    assert perceiver.looked == 0
    assert isinstance(embedding, Memory)
    _, memory = perceiver.decode(embedding, first)
    alone = perceiver.decode(perceiver.embed(second, memory), second)[0]
    # Another source in between changes nothing.
    perceiver.decode(perceiver.embed(first, None), first)
    again = perceiver.decode(perceiver.embed(second, memory), second)[0]
    for a, b in zip(alone, again):
        assert [p.region for p in a] == [p.region for p in b]
        assert np.array_equal(a[0].landmarks_px, b[0].landmarks_px)


def test_a_find_on_somebody_elses_mask_is_a_part_of_them():
    from pipeline.people import Mask, Person

    def person(points, mask):
        box = np.concatenate((points.min(0), points.max(0)))
        ones = np.ones(33, np.float32)
        return Person(box, 1.0, points, ones, np.zeros((33, 3), np.float32), mask)

    random = np.random.default_rng(0)
    whole = Mask(np.ones((50, 50), np.float32), np.array([[4.0, 0, 100], [0, 4.0, 50]], np.float32))
    body = person(random.uniform((110, 60), (290, 240), (33, 2)).astype(np.float32), whole)
    leg = person(random.uniform((120, 150), (160, 230), (33, 2)).astype(np.float32), None)
    other = person(random.uniform((400, 60), (500, 240), (33, 2)).astype(np.float32), None)
    assert blazepose._part_of(leg, body)
    assert not blazepose._part_of(other, body)


# With the real models


@pytest.fixture(scope="module")
def real():
    try:
        files = weights.find("blazepose")
    except weights.WeightsError as error:
        pytest.skip(str(error).splitlines()[0])
    perceiver = BlazePose(files)
    yield perceiver
    perceiver.close()


@pytest.mark.weights
def test_the_sample_is_seen_as_its_truth_says(real):
    """One person, followed throughout; landmarks and mask where they are."""
    truth = np.load(ROOT / "samples" / "pitch_truth.npz")
    height, width = truth["mask_shape"]
    frames = frames_of(SAMPLE, 24)
    people = follow(real, windows_of(frames))
    assert [[p.region for p in now] for now in people] == [[0]] * 24
    import cv2

    for index in (0, 11, 23):
        (person,) = people[index]
        off = np.linalg.norm(person.landmarks_px - truth["landmarks_px"][index], axis=1)
        assert np.median(off) < 8
        seen = cv2.warpAffine(person.mask.values, person.mask.to_image, (width, height)) > 0.5
        mask = np.unpackbits(truth["mask"][index])[: height * width].reshape(height, width) > 0
        assert (seen & mask).sum() / (seen | mask).sum() > 0.8
        # World landmarks: metres, hips in the middle, nose above hips, up being -y.
        hips = person.world_m[23:25].mean(0)
        assert np.abs(hips).max() < 0.05
        assert person.world_m[0, 1] < -0.4


@pytest.mark.weights
@pytest.mark.parametrize("size", [(16, 16), (1, 64), (33, 500), (600, 40)])
def test_any_size_of_picture_is_taken(real, size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    window = Window((Frame(0, "noise", 0, 0.0, image),), 0, True)
    people, _ = real.decode(real.embed(window, None), window)
    assert len(people) == 1


@pytest.mark.weights
def test_another_model_file_is_refused(tmp_path):
    try:
        files = dict(weights.find("blazepose"))
    except weights.WeightsError as error:
        pytest.skip(str(error).splitlines()[0])
    with pytest.raises(ValueError, match="another model"):
        BlazePose({**files, "pose_detection.tflite": files["pose_landmark_full.tflite"]})
    broken = tmp_path / "pose_detection.tflite"
    broken.write_bytes(b"not a model at all" * 100)
    with pytest.raises(ValueError, match="not a model"):
        BlazePose({**files, "pose_detection.tflite": broken})
    with pytest.raises(ValueError, match="at least one"):
        BlazePose(files, max_people=0)
