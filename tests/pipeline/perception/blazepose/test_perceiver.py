"""BlazePose tracking people: the laws with stub networks, the real networks on real video."""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import partial

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.frame import Frame, Window
from pipeline.core.people import Mask, Person
from pipeline.perception.areas import EVERYWHERE, Area, Areas
from pipeline.perception.base import PerceiverOptions
from pipeline.perception.blazepose import detector, make, perceiver_gpu
from pipeline.perception.blazepose.landmarks import OTHER_SIDE
from pipeline.perception.blazepose.overlap import median_distance
from pipeline.perception.blazepose.perceiver import BlazePose, Embedding, Memory
from pipeline.perception.blazepose.perceiver_gpu import BlazePoseTorch
from pipeline.perception.blazepose.queries import DetectionQuery, LandmarkQuery, gather, run_plan
from pipeline.perception.blazepose.roi import Roi
from pipeline.perception.blazepose.roi_tracking import look_ahead
from pipeline.perception.blazepose.views import EAGER_PASSES
from tests.support.paths import SAMPLES
from tests.support.windows import frames_of, track_rois, windows_of

# With stub networks. The picture's first pixel holds the time; `places` gives where people stand.

SHAPE = np.random.default_rng(1).uniform(-30, 30, (33, 2)).astype(np.float32)


class StubPose(BlazePose):
    """BlazePose whose networks are replaced by a rule: ``places(t)`` are the centres of people.

    ``benches`` are places that the detector takes for people and that change when they are queried
    again. ``faint(t)`` is whether people have a low presence; ``blind(t)`` whether the detector
    finds nothing. ``exchanged(t, mirrored)`` is whether the landmark model exchanges left and
    right.
    """

    def __init__(
        self, places, max_people=4, benches=(), faint=None, blind=None, size=60.0, exchanged=None,
        areas=EVERYWHERE,
    ):  # fmt: skip
        self.exchanged = exchanged or (lambda t, mirrored: False)
        self.max_people, self.areas = max_people, areas
        self.places, self.benches = places, benches
        self.faint, self.blind = faint or (lambda t: False), blind or (lambda t: False)
        self.size = size
        self.queries: list[tuple[int, float]] = []
        self.detected: list[int] = []

    def _detections(self, image, views, second_views=()):
        now = int(image[0, 0, 0])
        self.detected.append(now)
        if self.blind(now):
            return []
        side = self.size * 4 / 3
        return [Roi(x, y, side, 0.0, 0.9) for x, y in [*self.places(now), *self.benches]]

    def _people_in(self, queries):
        return [self._shown_in(query) for query in queries]

    def _shown_in(self, query):
        frame, roi, mirrored, without = query.frame, query.roi, query.mirrored, query.without
        now = int(frame.image[0, 0, 0])
        self.queries.append((now, roi.x))
        presence = 0.1 if self.faint(now) else 0.95
        if presence < query.min_presence:
            return None
        scale = self.size / 60
        for x, y in self.places(now):
            middle = (0, 0) if without is None else without.landmarks_px.mean(0) - SHAPE.mean(0)
            hidden = without is not None and np.hypot(*(middle - (x, y))) < 5
            if np.hypot(x - roi.x, y - roi.y) < self.size / 2 and not hidden:
                order = OTHER_SIDE if self.exchanged(now, mirrored) else np.arange(33)
                return self.seen(SHAPE[order] * scale + (x, y), roi, presence, x, y)
        for x, y in self.benches:
            if np.hypot(x - roi.x, y - roi.y) < self.size / 2:
                points = SHAPE * scale * (1, 1 + 3 * roi.angle) + (x, y)
                return self.seen(points, roi, presence, x, y)
        return None

    def seen(self, points, roi, presence, x, y):
        box = np.concatenate((points.min(0), points.max(0))).astype(np.float32)
        cell = self.size / 64
        mask = Mask(
            np.ones((64, 64), np.float32),
            np.array([[cell, 0, x - 32 * cell], [0, cell, y - 32 * cell]], np.float32),
        )
        ones, zeros = np.ones(33, np.float32), np.zeros((33, 3), np.float32)
        person = Person(box, presence, points.astype(np.float32), ones, zeros, mask, roi.id)
        where = replace(roi, x=float(x), y=float(y), angle=0.0, frames_missed=0)
        return person, replace(where, points=person.landmarks_px)


def stub_frames(count, name="stub"):
    return [Frame(k, name, 0, k / 30, np.full((240, 640, 3), k, np.uint8)) for k in range(count)]


def stub_windows(count, key=0, name="stub"):
    return windows_of(stub_frames(count, name), key)


def ids(people):
    return [sorted(p.roi for p in now) for now in people]


@pytest.mark.parametrize("key", range(4))
def test_a_moving_person_keeps_its_track(key):
    # From one window's last frame to the next one's key frame must not be half a person.
    step = 10 if key < 2 else 5
    people = track_rois(StubPose(lambda t: [(60 + step * t, 100)]), stub_windows(40, key))
    assert ids(people) == [[0]] * 40
    for t, (person,) in enumerate(people):
        assert np.allclose(person.landmarks_px, SHAPE + (60 + step * t, 100))


def test_each_frame_is_queried_in_the_rois_of_its_neighbour_nearer_to_the_key():
    perceiver = StubPose(lambda t: [(60 + 20 * t, 100)])
    (window,) = stub_windows(4, key=2)
    embedding = perceiver.embed(window, None)
    perceiver.queries.clear()
    _, memory = perceiver.decode(embedding, window)
    order = list(dict.fromkeys(perceiver.queries))
    others = [query for query in order if query[0] != 2]
    assert others == [(3, 100.0), (1, 100.0), (0, 80.0)]
    assert memory.rois[0].x == 60 + 20 * 3


def test_embed_reads_the_key_frame_only():
    for key in range(4):
        perceiver = StubPose(lambda t: [(100, 100)])
        frames = stub_frames(4)
        window = Window(tuple(frames), key)
        first = perceiver.embed(window, None)
        assert set(perceiver.detected) == {key}
        assert not perceiver.queries
        # The other frames may be anything.
        noise = np.random.default_rng(0).integers(0, 255, (240, 640, 3), np.uint8)
        changed = [f if k == key else replace(f, pixels=noise) for k, f in enumerate(frames)]
        assert perceiver.embed(Window(tuple(changed), key), None) == first


def test_people_come_and_go_with_the_key_frames():
    def places(t):
        return ([(100, 100)] if t < 18 else []) + ([(400, 100)] if t >= 6 else [])

    seen = ids(track_rois(StubPose(places), stub_windows(40)))
    assert seen[:8] == [[0]] * 8
    assert [len(now) for now in seen[8:18]] == [2] * 10
    assert len({now[-1] for now in seen[8:]}) == 1
    assert [len(now) for now in seen[18:]] == [1] * 22


def test_a_short_absence_keeps_the_track_and_a_long_one_ends_it():
    short = StubPose(lambda t: [] if 9 <= t < 12 else [(100, 100)])
    assert {p.roi for now in track_rois(short, stub_windows(24)) for p in now} == {0}
    long = StubPose(lambda t: [] if 8 <= t < 20 else [(100, 100)])
    seen = ids(track_rois(long, stub_windows(32)))
    assert seen[7] == [0]
    assert len(seen[31]) == 1
    assert seen[31] != [0]


def test_a_person_with_low_presence_is_tracked_while_the_detector_confirms():
    def faint(t):
        return t >= 6

    sure = StubPose(lambda t: [(100, 100)], faint=faint)
    seen = ids(track_rois(sure, stub_windows(20)))
    assert seen == [[0]] * 20
    unsure = StubPose(lambda t: [(100, 100)], faint=faint, blind=lambda t: t >= 8)
    seen = ids(track_rois(unsure, stub_windows(20)))
    assert seen[:8] == [[0]] * 8
    assert seen[8:] == [[]] * 12
    # A person with low presence from the start is never confirmed.
    assert ids(
        track_rois(StubPose(lambda t: [(100, 100)], faint=lambda t: True), stub_windows(8))
    ) == ([[]] * 8)


def test_a_candidate_that_changes_when_queried_again_is_refused():
    perceiver = StubPose(lambda t: [(100, 100)], benches=[(400, 100)])
    assert ids(track_rois(perceiver, stub_windows(16))) == [[0]] * 16


def test_a_detection_on_a_tracked_person_is_not_another_person():
    def places(t):
        return [(100, 100), *([(118, 100)] if t >= 4 else [])]

    perceiver = StubPose(places)
    assert ids(track_rois(perceiver, stub_windows(16))) == [[0]] * 16


def test_a_person_behind_another_is_found():
    """Both tracks find the nearer person, who is then painted over for the other track."""

    def places(t):
        near = (200.0, 100.0)
        return [near, (300 - 6 * t if t < 13 else 221.0, 121.0)]

    seen = ids(track_rois(StubPose(places), stub_windows(32)))
    assert seen == [[0, 1]] * 32


def exchanged_frames(people):
    """Frames in which the person's left is where the right should be."""
    shapes = [now[0].landmarks_px - now[0].landmarks_px.mean(0) for now in people]
    right, wrong = (s - s.mean(0) for s in (SHAPE, SHAPE[OTHER_SIDE]))
    return [t for t, s in enumerate(shapes) if np.abs(s - wrong).max() < np.abs(s - right).max()]


def test_left_and_right_stay_where_mirrored_queries_have_them():
    perceiver = StubPose(
        lambda t: [(60 + 5 * t, 100)], exchanged=lambda t, mirrored: 2 <= t < 30 and not mirrored
    )
    assert exchanged_frames(track_rois(perceiver, stub_windows(40))) == []


def answers_of(perceiver, queries):
    """A perceiver's answers on a CPU, those that are waited for as functions."""
    answers = perceiver.answer(queries)
    later = [isinstance(query, DetectionQuery) and query.later for query in queries]
    return [(lambda a=a: a) if wait else a for a, wait in zip(answers, later)]


def in_batches(perceiver, windows):
    """The people of each frame, followed as on a GPU, and the rounds of queries of each window."""
    people, rounds, memory = [], [], None

    def answer(queries):
        if queries:
            rounds[-1].append(queries)
        return answers_of(perceiver, queries)

    for window in windows:
        rounds.append([])
        found, memory = run_plan(BlazePoseTorch._window_plan(perceiver, window, memory), answer)
        people += found
    return people, rounds


@pytest.mark.parametrize("speed", [1, 5])
def test_mirrored_queries_and_second_looks_of_a_window_are_one_round(speed):
    perceiver = StubPose(
        lambda t: [(60 + speed * t, 100)],
        exchanged=lambda t, mirrored: 4 <= t < 30 and not mirrored,
    )
    people, rounds = in_batches(perceiver, stub_windows(40))
    assert exchanged_frames(people) == []
    # A person whose limbs and mask disagree is asked for at other rotations now and then.
    assert sorted(len(each) for each in rounds[1:])[-2] == 2


walk = st.lists(st.integers(-12, 12), min_size=24, max_size=24)


class ScoredPose(StubPose):
    """A stub whose detections have the scores ``score(t)``, and whose people have the larger one of
    presence and score, as the networks' people."""

    def __init__(self, score, *arguments, **options):
        super().__init__(*arguments, **options)
        self.score = score

    def _detections(self, image, views, second_views=()):
        found = super()._detections(image, views, second_views)
        return [replace(roi, score=self.score(int(image[0, 0, 0]))) for roi in found]

    def seen(self, points, roi, presence, x, y):
        person, after = super().seen(points, roi, presence, x, y)
        return replace(person, score=max(presence, roi.score)), after


class TurningPose(ScoredPose):
    """... and whose people turn by ``angle(t)`` radians. In an ROI at another rotation the model is
    as sure of a person at that rotation, whose limbs do not agree with the mask."""

    def __init__(self, angle, *arguments, **options):
        super().__init__(*arguments, **options)
        self.angle = angle

    def _shown_in(self, query):
        found = super()._shown_in(query)
        if found is None:
            return None
        person, after = found
        angle = self.angle(int(query.frame.image[0, 0, 0]))
        is_right = abs(math.remainder(query.roi.angle - angle, 2 * math.pi)) < 0.7
        angle = angle if is_right else query.roi.angle
        centre = np.array([after.x, after.y], np.float32)
        (ax, ay), (bx, by), (cx, cy), (ex, ey) = SHAPE[[11, 12, 23, 24]]
        upright = angle - math.atan2(ax + bx - cx - ex, cy + ey - ay - by)
        turn = np.array(
            [[math.cos(upright), -math.sin(upright)], [math.sin(upright), math.cos(upright)]],
            np.float32,
        )
        points = (person.landmarks_px - centre) @ turn.T + centre
        # Without a mask, limbs agree with it. The presence is low, so that scores are higher.
        person = replace(
            person, landmarks_px=points, mask=None if is_right else person.mask,
            score=max(0.6, query.roi.score),
        )  # fmt: skip
        return person, replace(after, points=points, angle=angle)


def detections_first(perceiver, window, memory):
    """The plan of a window that waits for the detections before it follows people."""
    before = () if memory is None or window.reset else memory.rois
    looks = look_ahead(window, [roi for roi in before if not roi.frames_missed])
    embedding, found = yield from gather([perceiver.detection_plan(window, memory), looks])
    return (yield from perceiver._decode(embedding, window, found))


def values_of(value):
    """All that a person or an ROI holds, also what equality leaves out."""
    if is_dataclass(value):
        return [values_of(getattr(value, field.name)) for field in fields(value)]
    return value.tolist() if isinstance(value, np.ndarray) else value


@contextmanager
def noted(module, name):
    """Note what a function of a module returns, within a ``with`` block."""
    function, results = getattr(module, name), []
    setattr(module, name, lambda *a: results.append(function(*a)) or results[-1])
    try:
        yield results
    finally:
        setattr(module, name, function)


def assert_follows_as_after_detections(perceiver, *sources):
    """Each window's people and memory are those of `detections_first`, with the windows of all
    sources in one batch; return in how many people were followed before the detections were known.
    """
    memories, ahead = [None] * len(sources), 0
    for windows in zip(*sources):
        expected = [
            run_plan(detections_first(perceiver, window, memory), perceiver.answer)
            for window, memory in zip(windows, memories)
        ]
        plans = [
            BlazePoseTorch._window_plan(perceiver, window, memory)
            for window, memory in zip(windows, memories)
        ]
        with noted(perceiver_gpu, "with_scores") as scored:
            found = run_plan(gather(plans), partial(answers_of, perceiver))
        ahead += sum(followed is not None for followed in scored)
        for (people, memory), (wanted, then) in zip(found, expected, strict=True):
            assert [list(map(values_of, p)) for p in people] == [
                list(map(values_of, p)) for p in wanted
            ]
            assert memory == then
            for group in ("rois", "refused", "lost"):
                now, before = getattr(memory, group), getattr(then, group)
                assert list(map(values_of, now)) == list(map(values_of, before))
        memories = [memory for _, memory in found]
    return ahead


chances = st.lists(st.booleans(), min_size=48, max_size=48)


def windows_of_sizes(sizes, key, resets):
    """Windows of as many frames each; those in ``resets`` begin anew."""
    out, frames = [], stub_frames(48)
    for k, size in enumerate(sizes):
        part, frames = frames[:size], frames[size:]
        if part:
            out.append(Window(tuple(part), min(key, len(part) - 1), k in resets))
    return out


@settings(deadline=None, max_examples=60)
@given(
    st.lists(walk, min_size=1, max_size=3), chances, chances,
    st.lists(st.floats(0.01, 1.0), min_size=48, max_size=48), st.integers(0, 3), st.booleans(),
    st.lists(st.sampled_from([4, 4, 4, 1, 2, 3]), min_size=12, max_size=12),
    st.sets(st.integers(0, 11)),
)  # fmt: skip
def test_people_who_are_followed_before_the_detections_come_are_the_same(
    walks, faint, blind, scores, key, bench, sizes, resets
):
    places = [
        (120 + 170 * k + np.cumsum([*walk, *walk]), 60.0 + 60 * k) for k, walk in enumerate(walks)
    ]
    perceiver = ScoredPose(
        lambda t: scores[t],
        lambda t: [(float(x[t]), y) for k, (x, y) in enumerate(places) if t >= 8 * k],
        benches=[(600, 220)] * bench,
        faint=lambda t: faint[t] and t > 12,
        blind=lambda t: blind[t],
    )
    whole = stub_windows(48, key)
    # Three sources that show the same, each at another time or in other windows.
    assert_follows_as_after_detections(
        perceiver, whole, whole[3:], windows_of_sizes(sizes, key, resets)
    )


def test_people_are_followed_before_the_detections_come():
    """In all windows but the first, in which no person is known yet."""
    perceiver = ScoredPose(lambda t: 0.5 + 0.01 * t, lambda t: [(60 + t, 100)])
    assert assert_follows_as_after_detections(perceiver, stub_windows(40)) == 9


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-0.3, 0.3), min_size=48, max_size=48), st.integers(0, 47),
    st.sampled_from([0.5 * math.pi, math.pi, 2.0]), walk,
    st.lists(st.floats(0.01, 1.0), min_size=48, max_size=48), st.integers(0, 3),
    st.integers(150, 400),
)  # fmt: skip
def test_people_who_spin_are_the_same_before_the_detections_come(
    steps, fall, further, drift, scores, key, other
):
    """They are asked for frame by frame, at other rotations, and over one another."""
    angles = np.cumsum(steps) + np.where(np.arange(48) >= fall, further, 0.0)
    walked = np.cumsum([*drift, *drift])
    perceiver = TurningPose(
        lambda t: float(angles[t]), lambda t: scores[t],
        lambda t: [(200.0 + walked[t], 100.0), (float(other), 110.0)],
    )  # fmt: skip
    assert_follows_as_after_detections(perceiver, stub_windows(48, key))


def test_people_who_spin_are_asked_for_with_the_detections():
    """In all windows but the first: four rounds, of which the first asks for detections too."""
    perceiver = TurningPose(lambda t: 0.15 * t, lambda t: 0.9, lambda t: [(200, 100)])
    assert assert_follows_as_after_detections(perceiver, stub_windows(48)) == 11
    people, rounds = in_batches(perceiver, stub_windows(48))
    assert [len(each) for each in rounds[-4:]] == [4, 4, 4, 4]
    kinds = [{type(query) for query in queries} for queries in rounds[-1]]
    assert kinds == [{LandmarkQuery, DetectionQuery}, *[{LandmarkQuery}] * 3]
    assert len(people) == 48


def test_people_whose_score_comes_or_expires_are_followed_after_the_detections():
    """Blind detectors let the score expire in the second window, and it comes again."""
    perceiver = ScoredPose(lambda t: 0.9, lambda t: [(60 + t, 100)], blind=lambda t: t // 8 % 2 > 0)
    assert 2 <= assert_follows_as_after_detections(perceiver, stub_windows(40)) <= 7


def test_missed_people_are_followed_where_the_detections_move_them():
    """A person disappears lying down and comes back upright, as the detector sees at once."""
    perceiver = TurningPose(
        lambda t: 0.17 * (t - 4) if t < 16 else 0.0, lambda t: 0.9,
        lambda t: [] if t < 4 or 13 <= t < 16 else [(200, 100)],
    )  # fmt: skip
    windows = stub_windows(40)
    assert assert_follows_as_after_detections(perceiver, windows) < len(windows) - 1
    assert ids(track_rois(perceiver, windows))[16:] == [[0]] * 24


def test_a_side_exchange_is_undone_for_as_long_as_sides_agreed_before():
    """A short exchange is undone; one longer than the agreement before it is believed."""
    short = StubPose(lambda t: [(100, 100)], exchanged=lambda t, mirrored: 20 <= t < 32)
    assert exchanged_frames(track_rois(short, stub_windows(40))) == []
    lasting = StubPose(lambda t: [(100, 100)], exchanged=lambda t, mirrored: t >= 4)
    assert exchanged_frames(track_rois(lasting, stub_windows(40)))[1:] == list(range(8, 40))


def test_a_refused_place_is_left_alone_for_a_while():
    perceiver = StubPose(lambda t: [], benches=[(400, 100)])
    track_rois(perceiver, stub_windows(64))
    tried = sorted({t for t, _ in perceiver.queries})
    assert tried == list(range(0, 64, 12))


def test_two_tracks_on_one_person_become_the_one_that_it_continues():
    def places(t):
        return [(100 + 8 * t, 100), *([(400 - 8 * t, 100)] if t < 17 else [])]

    seen = ids(track_rois(StubPose(places), stub_windows(28)))
    assert all(len(now) == 2 for now in seen[:12])
    # The one that is nearer to the middle was found first; the other one walks on.
    assert all(now == [1] for now in seen[20:])


def test_at_most_max_people_are_tracked_and_they_stay():
    crowd = StubPose(lambda t: [(60 + 90 * k, 100) for k in range(6)], max_people=3)
    seen = ids(track_rois(crowd, stub_windows(16)))
    assert {len(now) for now in seen} == {3}
    assert len({tuple(now) for now in seen}) == 1


@settings(deadline=None, max_examples=30)
@given(walk, walk)
def test_sources_are_independent(first, second):
    """Two sources through one perceiver, in turn, give what each gives alone."""

    def places_of(steps, y):
        x = 200 + np.cumsum(steps)
        return lambda t: [(float(x[t]), y)]

    tables = {"a": places_of(first, 60), "b": places_of(second, 180)}
    windows = {name: stub_windows(24, name=name) for name in tables}
    alone = {name: track_rois(StubPose(tables[name]), windows[name]) for name in tables}

    shared = StubPose(None)
    memories: dict[str, Memory | None] = dict.fromkeys(tables)
    together: dict[str, list] = {name: [] for name in tables}
    for pair in zip(*windows.values()):
        embeddings = []
        for name, window in zip(tables, pair):
            shared.places = tables[name]
            embeddings.append(shared.embed(window, memories[name]))
        for name, window, embedding in zip(tables, pair, embeddings):
            shared.places = tables[name]
            people, memories[name] = shared.decode(embedding, window)
            together[name] += people
    for name in tables:
        assert ids(together[name]) == ids(alone[name])
        for a, b in zip(together[name], alone[name]):
            assert [p.landmarks_px.tolist() for p in a] == [p.landmarks_px.tolist() for p in b]


def test_halves_may_be_run_again():
    """Neither half changes what it is given."""
    perceiver = StubPose(lambda t: [(100 + 5 * t, 100)])
    first, second = stub_windows(8)
    _, memory = perceiver.decode(perceiver.embed(first, None), first)
    embedding = perceiver.embed(second, memory)
    assert perceiver.embed(second, memory) == embedding
    (a, after), (b, again) = (perceiver.decode(embedding, second) for _ in range(2))
    assert after == again
    assert ids(a) == ids(b)


def test_a_reset_forgets_all_people():
    perceiver = StubPose(lambda t: [(100, 100)])
    window = Window(tuple(stub_frames(4)), 0, reset=True)
    lost = Memory((Roi(500, 100, 80, 0.0, 0.0, id=5),), next_id=6, turn=3)
    assert perceiver.embed(window, lost) == perceiver.embed(window, None)


def test_a_score_that_is_not_renewed_is_dropped():
    perceiver = StubPose(lambda t: [])
    frames = tuple(replace(f, pixels=np.zeros((100, 2000, 3), np.uint8)) for f in stub_frames(4))
    memory = Memory((Roi(1900, 50, 80, 0.0, 0.9, id=0),), 1, turn=EAGER_PASSES)
    scores = []
    for _ in range(3):
        embedding = perceiver.embed(Window(frames), memory)
        scores.append(embedding.tracked[0].score)
        memory = Memory(embedding.tracked, 1, embedding.turn)
    assert scores == [0.9, 0.0, 0.0]


# With the real networks


@pytest.fixture(scope="module")
def real(files):
    perceiver = BlazePose(files)
    yield perceiver
    perceiver.close()
    perceiver.close()


@pytest.fixture(scope="module")
def sample():
    return frames_of(SAMPLES / "pitch.mp4", 24)


@pytest.mark.weights
def test_the_sample_matches_its_truth(real, sample):
    """One person, tracked throughout; landmarks, mask and world landmarks match the truth."""
    truth = np.load(SAMPLES / "pitch_truth.npz")
    rows = truth["person"] == 0 if "person" in truth else np.ones(len(truth["frame"]), bool)
    row_of = {int(truth["frame"][row]): row for row in np.flatnonzero(rows)}
    people = track_rois(real, windows_of(sample))
    assert all(now and now[0].roi == 0 for now in people)
    height, width = truth["mask_shape"]
    shrink = np.array([[width / sample[0].size[1]], [height / sample[0].size[0]]], np.float32)
    for index in (0, 11, 23):
        person, row = people[index][0], row_of[index]
        size = np.ptp(truth["landmarks_px"][row], axis=0).max()
        off = np.linalg.norm(person.landmarks_px - truth["landmarks_px"][row], axis=1)
        assert np.median(off) < 0.03 * size
        to_mask = person.mask.to_image * shrink
        seen = cv2.warpAffine(person.mask.values, to_mask, (int(width), int(height))) > 0.5
        mask = np.unpackbits(truth["mask"][row])[: height * width].reshape(height, width) > 0
        assert (seen & mask).sum() / (seen | mask).sum() > 0.85
        # World landmarks: metres, hips in the middle, nose above them (up is -y).
        assert np.abs(person.world_m[23:25].mean(0)).max() < 0.05
        assert -1.0 < person.world_m[0, 1] < -0.4


@pytest.mark.weights
def test_the_nearer_side_of_a_person_has_the_smaller_depth(real, sample):
    """z grows away from the camera: of left and right, the truth's nearer one is nearer."""
    truth = np.load(SAMPLES / "pitch_truth.npz")
    rows = np.flatnonzero(truth["person"] == 0) if "person" in truth else np.arange(24)
    row_of = {int(truth["frame"][row]): row for row in rows}
    agree = []
    for index, now in enumerate(track_rois(real, windows_of(sample))):
        points = truth["landmarks_m"][row_of[index]]
        for left, right in ((11, 12), (13, 14), (15, 16), (25, 26), (27, 28)):
            step = points[left, 2] - points[right, 2]
            if abs(step) > 0.1:
                agree.append(step * (now[0].world_m[left, 2] - now[0].world_m[right, 2]) > 0)
    assert len(agree) > 10
    assert np.mean(agree) > 0.75


@pytest.mark.weights
def test_a_mirrored_picture_has_mirrored_people(real, sample):
    """Landmarks have no drift to a side of their own."""
    frame = sample[0]
    mirrored = replace(frame, pixels=np.ascontiguousarray(frame.image[:, ::-1]))
    (a,), (b,) = (track_rois(real, [Window((f,))])[0] for f in (frame, mirrored))
    other = [0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9]
    other += [k + 1 if k % 2 else k - 1 for k in range(11, 33)]
    back = b.landmarks_px[other] * (-1, 1) + (frame.size[1] - 1, 0)
    size = np.ptp(a.landmarks_px, axis=0).max()
    assert np.median(np.linalg.norm(a.landmarks_px - back, axis=1)) < 0.02 * size
    assert abs(np.median(a.landmarks_px[:, 0] - back[:, 0])) < 0.004 * size


@pytest.mark.weights
def test_a_throw_is_followed_in_two_rounds_a_window(real):
    """On a GPU each round is a wait; the arm of the throw jumps from frame to frame."""
    windows = windows_of(frames_of(SAMPLES / "pitch.mp4", 72))
    people, rounds = in_batches(real, windows)
    assert sorted(len(each) for each in rounds[1:])[-2] == 2
    for ahead, (alone,) in zip(people, track_rois(real, windows)):
        assert median_distance(ahead[0], alone) < 0.03


@pytest.mark.weights
def test_a_throw_is_followed_before_the_detections_come(real):
    windows = windows_of(frames_of(SAMPLES / "pitch.mp4", 72))
    assert assert_follows_as_after_detections(real, windows) >= len(windows) // 2


@pytest.mark.weights
def test_windows_with_the_key_in_the_middle_see_the_same_people(real, sample):
    """Around an event, without a memory: as good as from the first frame on."""
    straight = track_rois(real, windows_of(sample))
    for start in (0, 10, 20):
        window = Window(tuple(sample[start : start + 4]), 2, reset=True)
        people, _ = real.decode(real.embed(window, None), window)
        for now, then in zip(people, straight[start : start + 4]):
            assert median_distance(now[0], then[0]) < 0.03


@pytest.mark.weights
def test_a_small_person_far_away_is_found(real, sample):
    """A tenth of the picture high: too small for the whole picture, found in a tile at once."""
    image = sample[0].image
    height, width = image.shape[:2]
    small = cv2.resize(image, None, fx=0.17, fy=0.17, interpolation=cv2.INTER_AREA)
    wide = np.full_like(image, image.mean((0, 1)).astype(np.uint8))
    y, x = height // 2, width // 4
    wide[y : y + small.shape[0], x : x + small.shape[1]] = small
    whole = real._detections(wide, [(0, 0, width, height)])
    (people,) = track_rois(real, [Window((Frame(0, "wide", 0, 0.0, wide),))])
    (large,) = track_rois(real, [Window((sample[0],))])
    assert len(people) == 1
    expected = (large[0].landmarks_px + 0.5) * 0.17 - 0.5 + (x, y)
    size = np.ptp(expected, axis=0).max()
    assert size < 0.12 * height
    # So small, left and right may be mistaken.
    seen = people[0].landmarks_px
    off = [np.linalg.norm(seen[order] - expected, axis=1) for order in (range(33), OTHER_SIDE)]
    assert np.median(np.minimum(*off)) < 0.06 * size
    assert not [roi for roi in whole if roi.side < 2 * size]


@pytest.mark.weights
@pytest.mark.parametrize("shorter", [90, 180, 400])
@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("place", [0.0, 0.31, 0.5, 0.77, 1.0])
def test_a_person_as_high_as_a_strip_is_found(real, sample, shorter, upright, place):
    """Wide or tall, eighteen to one: far too small in the whole picture, and found at once."""
    # The pitcher with a little room above and below.
    person = cv2.resize(sample[0].image[130:590, 275:735], (shorter, shorter))
    (large,) = track_rois(real, [Window((sample[0],))])
    shape = (18 * shorter, shorter, 3) if upright else (shorter, 18 * shorter, 3)
    strip = np.full(shape, person.mean((0, 1)).astype(np.uint8))
    at = round(place * 17 * shorter)
    x, y = (0, at) if upright else (at, 0)
    strip[y : y + shorter, x : x + shorter] = person
    (people,) = track_rois(real, [Window((Frame(0, "strip", 0, 0.0, strip),))])
    assert len(people) == 1
    expected = (large[0].landmarks_px - (275, 130)) * (shorter / 460) + (x, y)
    off = np.linalg.norm(people[0].landmarks_px - expected, axis=1)
    assert np.median(off) < 0.06 * shorter


@pytest.mark.weights
@pytest.mark.parametrize("size", [(16, 16), (1, 64), (64, 1), (33, 500), (600, 40)])
def test_no_person_is_found_in_noise_of_any_size(real, size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    frames = [Frame(k, "noise", 0, 0.0, image) for k in range(5)]
    assert ids(track_rois(real, windows_of(frames))) == [[]] * 5


@pytest.mark.weights
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_queries_answered_together_are_answered_as_alone(files, sample, count):
    perceiver = BlazePose(files, threads=2)
    rois = [Roi(320.0 + 7 * k, 360.0, 500.0, 0.05 * k, 0.9, id=k) for k in range(count)]
    queries = [LandmarkQuery(sample[k], roi, 0.0) for k, roi in enumerate(rois)]
    alone = [perceiver.answer([query])[0][0] for query in queries]
    together = [person for person, _ in perceiver.answer(queries)]
    perceiver.close()
    assert [person.roi for person in together] == list(range(count))
    for one, other in zip(alone, together):
        assert np.array_equal(one.landmarks_px, other.landmarks_px)


@pytest.mark.weights
def test_a_query_that_fails_is_raised_and_the_next_ones_are_answered(files, sample):
    perceiver = BlazePose(files, threads=2)
    good = LandmarkQuery(sample[0], Roi(320.0, 360.0, 500.0, 0.0, 0.9), 0.0)
    bad = replace(good, without="no person")
    for _ in range(3):
        with pytest.raises(AttributeError):
            perceiver.answer([bad, bad])
    assert all(perceiver.answer([good, good, good]))
    perceiver.close()


@pytest.mark.weights
def test_another_model_file_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match="another model"):
        BlazePose({**files, "pose_detection.tflite": files["pose_landmark_full.tflite"]})
    broken = tmp_path / "pose_detection.tflite"
    broken.write_bytes(b"not a model at all" * 100)
    with pytest.raises(ValueError, match="not a model"):
        BlazePose({**files, "pose_detection.tflite": broken})
    broken.write_bytes(files["pose_detection.tflite"].read_bytes()[:100_000])
    with pytest.raises(ValueError, match="not a model"):
        BlazePose({**files, "pose_detection.tflite": broken})
    with pytest.raises(ValueError, match="at least one"):
        BlazePose(files, max_people=0)


@pytest.mark.weights
def test_loading_says_nothing_and_leaves_standard_error_alone(files, capfd):
    BlazePose(files).close()
    print("still here", file=sys.stderr)
    assert capfd.readouterr().err == "still here\n"


def test_litert_that_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(RuntimeError, match="pip install ai-edge-litert"):
        BlazePose({"pose_detection.tflite": tmp_path, "pose_landmark_full.tflite": tmp_path})


# Real clips

ONE_PERSON = ["pitch_1_22", "pitch_3_2222", "pitch_7_2", "pitch_9_6", "taiji", "runner"]


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("clip", [*ONE_PERSON, "jumping_jacks", "basketball"])
def test_the_main_person_is_tracked_from_end_to_end(real, clips, clip):
    people = track_rois(real, windows_of(frames_of(clips / f"{clip}.mp4", 60)))
    assert np.mean([any(p.roi == 0 for p in now) for now in people]) >= 0.97


@pytest.mark.slow
@pytest.mark.weights
def test_no_person_is_found_in_an_empty_room(real, clips):
    """People walk through one by one; before and after, the corridor is empty. Frames count as
    empty when they resemble the clip's first or last frames."""
    frames = frames_of(clips / "corridor_one_by_one.mp4")
    people = track_rois(real, windows_of(frames))
    empty = [np.median([f.image for f in part], axis=0) for part in (frames[:40:8], frames[-30::6])]
    changed = np.array(
        [min(float((np.abs(f.image - e).max(2) > 40).mean()) for e in empty) for f in frames]
    )
    counts = np.array([len(now) for now in people])
    empty_frames, occupied = changed <= 0.003, changed > 0.05
    assert empty_frames.sum() > 100
    assert occupied.sum() > 200
    assert (counts[empty_frames] > 0).mean() <= 0.01
    assert (counts[occupied] == 1).mean() >= 0.9
    assert counts.max() == 1


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("camera", [1, 2, 3, 4])
def test_two_people_are_kept_apart(real, clips, camera):
    """Also where one goes behind the other (camera 3)."""
    people = track_rois(real, windows_of(frames_of(clips / f"lab_two_people_cam{camera}.mp4")))
    assert np.mean([{0, 1} <= {p.roi for p in now} for now in people]) >= 0.97
    assert len({p.roi for now in people for p in now}) <= 3


@pytest.mark.slow
@pytest.mark.weights
def test_the_nearest_people_of_a_street_keep_their_tracks(real, clips):
    people = track_rois(real, windows_of(frames_of(clips / "street_crowd.mp4")))
    assert all(people)
    assert np.mean([{0, 1, 2} <= {p.roi for p in now} for now in people[12:]]) >= 0.9
    for now in people:
        assert all(median_distance(a, b) > 0.12 for k, a in enumerate(now) for b in now[:k])


@pytest.mark.slow
@pytest.mark.weights
def test_left_and_right_are_not_exchanged_in_a_fast_turn(real):
    truth = np.load(SAMPLES / "pitch_truth.npz")
    limbs = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
    for index, now in enumerate(track_rois(real, windows_of(frames_of(SAMPLES / "pitch.mp4", 60)))):
        true = truth["landmarks_px"][index]
        off, exchanged = (
            np.linalg.norm(now[0].landmarks_px[order] - true, axis=1)[limbs].mean()
            for order in (range(33), OTHER_SIDE)
        )
        assert off < exchanged


def test_the_embedding_is_plain_values():
    """What embed returns can be kept, compared and sent."""
    embedding = StubPose(lambda t: [(100, 100)]).embed(stub_windows(4)[0], None)
    assert isinstance(embedding, Embedding)
    assert isinstance(embedding.candidates[0], Roi)
    assert embedding.tracked == ()
    assert detector.MIN_SCORE <= embedding.candidates[0].score <= 1


def test_people_outside_of_the_areas_are_neither_detected_nor_followed():
    still = lambda t: [(100, 100), (500, 100)]  # noqa: E731
    for areas, x in (
        (Areas((Area(0, 0, 0.5, 1),)), 100),
        (Areas((), (Area(0, 0, 320, 240),)), 500),
        (Areas((Area(0, 0, 1, 1),), (Area(320, 0, 320, 240),)), 100),
    ):
        perceiver = StubPose(still, areas=areas)
        people = track_rois(perceiver, stub_windows(12))
        assert [[round(p.landmarks_px.mean(0)[0]) for p in now] for now in people] == [
            [round(SHAPE.mean(0)[0] + x)]
        ] * 12
        # Nothing is spent on the others.
        assert {round(query[1]) for query in perceiver.queries} == {x}


def test_people_outside_of_the_areas_take_no_place():
    perceiver = StubPose(
        lambda t: [(100, 100), (300, 100), (500, 100)], max_people=1,
        areas=Areas((Area(400, 0, 240, 240),)),
    )  # fmt: skip
    people = track_rois(perceiver, stub_windows(8))
    assert all(now[0].landmarks_px[:, 0].mean() > 400 for now in people)


def test_a_person_who_walks_into_an_ignored_area_is_followed_no_more():
    perceiver = StubPose(lambda t: [(60 + 10 * t, 100)], areas=Areas((), (Area(200, 0, 440, 240),)))
    people = track_rois(perceiver, stub_windows(32))
    assert all(len(now) == 1 for now in people[:12])
    # At most the window in which the edge is passed.
    assert not any(people[20:])


@pytest.mark.weights
def test_without_the_second_detector_a_line_says_so(monkeypatch):
    monkeypatch.setattr(make.weights, "find_optional", lambda name, folder: None)
    made = make.make(PerceiverOptions(people=1))
    (line,) = made.reports
    assert "person-detector model is not here" in line
    assert "weights fetch person-detector" in line
    assert "\n" not in line
    assert not made.has_second
    made.close()


def test_tiles_outside_of_all_regions_are_not_searched():
    frame = Frame(0, "clip", 0, 0.0, np.zeros((720, 1280, 3), np.uint8))
    corner = Areas(regions=(Area(0, 0, 0.2, 0.2),))
    asked = []
    for areas in (EVERYWHERE, corner):
        (query,) = next(
            StubPose(lambda t: [], areas=areas).detection_plan(Window((frame,), 0, True), None)
        )
        asked.append(query.views)
    assert set(asked[1]) < set(asked[0])
    assert all(corner.reaches(view, (720, 1280)) for view in asked[1])
