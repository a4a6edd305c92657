"""People are found by detectors and followed by a crop network, in a scene whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Person
from pipeline.core.skeleton import BLAZEPOSE_33, COCO_17, MHR_70
from pipeline.perception.areas import EVERYWHERE, Area, Areas
from pipeline.perception.blazepose.overlap import inside
from pipeline.perception.blazepose.perceiver import BlazePose
from pipeline.perception.blazepose.queries import DetectionQuery
from pipeline.perception.crop_tracking import in_picture, limbs_mask, roi_of
from pipeline.perception.crops import CropNetwork
from pipeline.perception.top_down import TopDown

SIZE = (360, 640)
STANDING = {
    "nose": (0, -0.85), "shoulder": (0.17, -0.62), "elbow": (0.23, -0.3), "wrist": (0.25, -0.02),
    "hip": (0.1, 0), "knee": (0.11, 0.45), "ankle": (0.11, 0.9),
}  # fmt: skip


def figure(keypoints, x, y, half):
    """A standing person's points (K, 2) about the hips, ``half`` its height."""
    out = []
    for name in keypoints.names:
        part = next((p for p in STANDING if p in name), "wrist" if "hand" in name else None)
        part = part or ("ankle" if "heel" in name or "foot" in name or "toe" in name else "nose")
        px, py = STANDING[part]
        out.append((x + half * px * (-1 if "right" in name else 1), y + half * py))
    return np.array(out, np.float32)


@dataclass
class Walker:
    """A person in the scene: where, how fast (pixels a frame), how tall, and in which frames."""

    x: float
    y: float
    vx: float = 0.0
    half: float = 80.0
    frames: range = range(10_000)

    def points(self, keypoints, frame):
        return figure(keypoints, self.x + self.vx * frame, self.y, self.half)


class Scene:
    """What there is to see of each source."""

    def __init__(self, **sources) -> None:
        self.sources = sources

    def people(self, frame):
        return [w for w in self.sources[frame.source] if frame.id in w.frames]

    def nearest(self, frame, keypoints, box):
        """The points of the person whose box is most like a box, with how like it is."""
        best, points = 0.0, None
        for walker in self.people(frame):
            each = walker.points(keypoints, frame.id)
            low, high = each.min(0), each.max(0)
            shared = np.clip(np.minimum(high, box[2:]) - np.maximum(low, box[:2]), 0, None).prod()
            share = shared / max(np.prod(high - low), np.prod(box[2:] - box[:2]))
            if share > best:
                best, points = share, each
        return best, points


def person_at(points, keypoints, score, roi=-1):
    box = np.concatenate((points.min(0), points.max(0)))
    return Person(
        box, score, points, np.full(len(points), score, np.float32), None, None, roi,
        keypoints=keypoints,
    )  # fmt: skip


class Finder(BlazePose):
    """BlazePose's rules; its networks know the scene."""

    def __init__(self, scene, people=8, areas=EVERYWHERE) -> None:
        self.scene, self.max_people, self.areas = scene, people, areas
        self.blind = False

    def close(self):
        self.closed = True

    def answer(self, queries):
        return [self._one(query) for query in queries]

    def _one(self, query):
        if isinstance(query, DetectionQuery):
            if self.blind:
                return []
            seen = [w.points(BLAZEPOSE_33, query.frame.id) for w in self.scene.people(query.frame)]
            return [replace(roi_of(person_at(p, BLAZEPOSE_33, 0.9)), score=0.9) for p in seen]
        roi = query.roi
        reach = roi.side / 2.5
        box = np.array([roi.x - reach, roi.y - reach, roi.x + reach, roi.y + reach])
        share, points = self.scene.nearest(query.frame, BLAZEPOSE_33, box)
        if points is None or share < 0.1 or self.blind:
            return None
        person = person_at(points, BLAZEPOSE_33, 0.9, roi.id)
        return person, replace(roi_of(person), score=roi.score, id=roi.id)


class Network(CropNetwork):
    """Sees the person that a crop shows best."""

    name, reports = "scene", ("a report",)

    def __init__(self, scene, keypoints=COCO_17, has_confidence=True) -> None:
        self.scene, self.keypoints, self.has_confidence = scene, keypoints, has_confidence
        self.batches = []

    def measure(self, queries):
        self.batches.append(len(queries))
        return [self._one(query) for query in queries]

    def _one(self, query):
        share, points = self.scene.nearest(query.frame, self.keypoints, query.box)
        if points is None:
            # Networks always answer: here a person who fills the crop.
            x0, y0, x1, y1 = query.box
            points = figure(self.keypoints, (x0 + x1) / 2, (y0 + y1) / 2, (y1 - y0) / 2)
        score = min(1.0, 0.2 + share) if self.has_confidence else 1.0
        return person_at(points, self.keypoints, score)


def perceiver(scene, people=8, areas=EVERYWHERE, **network):
    made = Network(scene, **network)
    return TopDown(Finder(scene, people, areas), made), made


def window_of(source="a", first=0, count=4, reset=False):
    image = np.zeros((*SIZE, 3), np.uint8)
    frames = tuple(Frame(k, source, 0, k / 30, image) for k in range(first, first + count))
    return Window(frames, count // 2, reset)


def play(top, windows, memory=None):
    """The people of all frames, and the memory."""
    out = []
    for window in windows:
        people, memory = top.decode(top.embed(window, memory), window)
        out += people
    return out, memory


@pytest.mark.parametrize("keypoints", [COCO_17, MHR_70, BLAZEPOSE_33], ids=lambda k: k.name)
@pytest.mark.parametrize("has_confidence", [True, False])
@pytest.mark.parametrize("speed", [0, 4, -7])
def test_a_person_is_measured_in_every_frame_under_one_id(keypoints, has_confidence, speed):
    scene = Scene(a=[Walker(320, 180, speed)])
    top, _ = perceiver(scene, keypoints=keypoints, has_confidence=has_confidence)
    people, _ = play(top, [window_of(first=4 * k) for k in range(8)])
    for frame, found in enumerate(people):
        (person,) = found
        assert np.allclose(person.landmarks_px, scene.sources["a"][0].points(keypoints, frame))
        assert person.roi == people[0][0].roi
        assert person.keypoints is keypoints
        assert 0 < person.score <= 1


def test_people_keep_their_ids_side_by_side():
    walkers = [Walker(100, 180, 2), Walker(300, 170, 0, 60), Walker(500, 200, -2, 90)]
    top, _ = perceiver(Scene(a=walkers))
    people, _ = play(top, [window_of(first=4 * k) for k in range(10)])
    places = [{p.roi: p.landmarks_px[0, 0] for p in found} for found in people]
    assert all(set(each) == set(places[0]) for each in places)
    assert len(places[0]) == 3
    for key in places[0]:
        steps = np.diff([each[key] for each in places])
        assert np.abs(steps - steps[0]).max() < 1e-3


def test_all_people_and_frames_of_all_sources_are_one_batch():
    sources = {"a": [Walker(200, 180, 1)], "b": [Walker(150, 180), Walker(450, 180, 2)], "c": []}
    top, network = perceiver(Scene(**sources))
    memories = [None] * 3
    for k in range(4):
        network.batches.clear()
        windows = [window_of(name, 4 * k) for name in sources]
        found = top.perceive_many(windows, memories)
        memories = [memory for _, memory in found]
    assert network.batches == [12]
    assert [len(people[0]) for people, _ in found] == [1, 2, 0]
    # A source by itself has the same people.
    alone, _ = play(top, [window_of("b", 4 * k) for k in range(4)])
    together = found[1][0]
    for one, other in zip(alone[-4:], together, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a.roi, a.landmarks_px.tolist()) == (b.roi, b.landmarks_px.tolist())


def test_the_order_of_sources_changes_nothing():
    sources = {"a": [Walker(200, 180, 1)], "b": [Walker(150, 180), Walker(450, 180, 2)]}
    top, _ = perceiver(Scene(**sources))
    forward = top.perceive_many([window_of("a"), window_of("b")], [None, None])
    backward = top.perceive_many([window_of("b"), window_of("a")], [None, None])
    for (people, _), (same, _) in zip(forward, backward[::-1]):
        assert [[p.landmarks_px.tolist() for p in f] for f in people] == [
            [p.landmarks_px.tolist() for p in f] for f in same
        ]


@pytest.mark.parametrize("has_confidence", [True, False])
def test_a_person_who_leaves_is_not_drawn_on(has_confidence):
    """The network answers for an empty crop too."""
    scene = Scene(a=[Walker(320, 180, 0, frames=range(16)), Walker(100, 180)])
    top, _ = perceiver(scene, has_confidence=has_confidence)
    people, memory = play(top, [window_of(first=4 * k) for k in range(12)])
    assert all(len(found) == 2 for found in people[:16])
    # Detections count for two passes, so an absent person may stay for a window.
    assert all(len(found) == 1 for found in people[24:])
    assert len(memory.found.rois) == 1


def test_a_person_whose_crop_was_missed_is_taken_again_where_it_is():
    """Faster than the motion before can tell."""
    walker = Walker(300, 180)
    top, network = perceiver(Scene(a=[walker]))
    _, memory = play(top, [window_of(first=4 * k) for k in range(3)])
    walker.x += 45
    network.batches.clear()
    people, _ = play(top, [window_of(first=12)], memory)
    assert network.batches == [4, 4]
    assert all(len(found) == 1 for found in people)


def test_of_two_crops_on_one_person_the_one_that_belongs_there_stays():
    still, passing = Walker(400, 180, 0, 80), Walker(330, 180, 0, 80)
    scene = Scene(a=[still, passing])
    top, _ = perceiver(scene)
    people, memory = play(top, [window_of(first=4 * k) for k in range(3)])
    ids = {round(float(p.landmarks_px[0, 0])): p.roi for p in people[-1]}
    passing.frames = range(0)  # hidden: its crop shows the other one
    people, _ = play(top, [window_of(first=12)], memory)
    assert [p.roi for p in people[0]] == [ids[400]]


def test_places_are_limited_and_the_others_counted():
    walkers = [Walker(80 + 120 * k, 180, 0, 50 + 10 * k) for k in range(5)]
    top, _ = perceiver(Scene(a=walkers), people=2)
    people, memory = play(top, [window_of(first=4 * k) for k in range(3)])
    assert {len(found) for found in people} == {2}
    assert top.unfollowed(memory) == 3
    # With a free place, what was detected and is not followed is no person.
    top._finder.max_people = 3
    assert top.unfollowed(memory) == 0


def test_people_outside_of_the_areas_are_not_followed():
    walkers = [Walker(100, 180), Walker(500, 180)]
    top, network = perceiver(Scene(a=walkers), areas=Areas((Area(0, 0, 0.5, 1),)))
    people, memory = play(top, [window_of(first=4 * k) for k in range(3)])
    assert all(len(found) == 1 and found[0].landmarks_px[0, 0] < 200 for found in people)
    assert len(memory.found.rois) == 1
    assert max(network.batches) == 4


def test_a_reset_and_a_new_source_begin_anew():
    top, _ = perceiver(Scene(a=[Walker(320, 180)]))
    _, memory = play(top, [window_of(first=4 * k) for k in range(3)])
    again, _ = play(top, [window_of(first=12, reset=True)], memory)
    fresh, _ = play(top, [window_of(first=12)])
    assert [p.roi for found in again for p in found] == [p.roi for found in fresh for p in found]


def test_a_memory_can_be_used_twice():
    """After an error the same window is handed in again."""
    top, _ = perceiver(Scene(a=[Walker(320, 180, 3)]))
    _, memory = play(top, [window_of()])
    first, second = (play(top, [window_of(first=4)], memory)[0] for _ in range(2))
    for one, other in zip(first, second):
        assert [p.landmarks_px.tolist() for p in one] == [p.landmarks_px.tolist() for p in other]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_windows_share_a_detector_pass(count):
    scene = Scene(a=[Walker(320, 180, 2)])
    top, _ = perceiver(scene)
    people, memory = play(top, [window_of(first=count * k, count=count) for k in range(6)])
    assert all(len(found) == 1 for found in people)
    assert memory.found.turn <= -(-6 * count // 4) + 1


def test_without_confidence_the_landmark_model_has_the_word():
    scene = Scene(a=[Walker(320, 180)])
    top, _ = perceiver(scene, has_confidence=False)
    _, memory = play(top, [window_of(first=4 * k) for k in range(3)])
    top._finder.blind = True
    people, memory = play(top, [window_of(first=12 + 4 * k) for k in range(6)], memory)
    assert people[-1] == ()
    assert memory.found.rois == ()


def test_reports_and_close_reach_both():
    top, _ = perceiver(Scene(a=[]))
    assert top.reports == ("a report",)
    assert top.name == "scene"
    top.close()
    assert top._finder.closed


def test_a_box_has_a_margin_and_ends_with_the_picture():
    box = in_picture(np.array([100.0, 50, 160, 150]), SIZE)
    assert box.tolist() == [95, 45, 165, 155]
    assert in_picture(np.array([-50.0, 300, 30, 420]), SIZE).tolist() == [-0.5, 294, 36, 359.5]


def test_limbs_are_on_their_mask_and_the_background_is_not():
    points = figure(BLAZEPOSE_33, 300, 180, 100)
    mask = limbs_mask(person_at(points, BLAZEPOSE_33, 1.0))
    assert inside(points[11:29].astype(float), mask).mean() > 0.9
    assert not inside(np.array([[300.0, 60], [220, 100], [390, 200]]), mask).any()
