"""Releases: the detector on people made of a few numbers, on rendered throws, and on real clips."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.capture.base import SourceOptions
from pipeline.capture.open import open_source
from pipeline.core.frame import Frame, Window
from pipeline.events.detect import Detector
from pipeline.events.features import FEATURES, HANDS, features, sample
from pipeline.events.motion import Condition, load_motion
from pipeline.runtime.make import make_estimator
from tests.support.paths import SAMPLE
from tests.support.throws import a_person, backwards, mirrored, on_a_bat, throw, watch
from tools.train_events.learn import Throw, timing

SAMPLE_RELEASE = 60
IMAGE = np.zeros((4, 4, 3), np.uint8)


@settings(max_examples=40, deadline=None)
@given(phase=st.floats(0, 1), tempo=st.floats(0.6, 1.6))
def test_a_throw_is_found_within_a_frame_with_the_frame_after_it(phase, tempo):
    release_s = 1.0 + phase / 30
    found, refused = watch(throw(release_s=release_s, tempo=tempo))
    (one,) = found
    # Who moves slower is told as near in the throw, not in the clock's time.
    assert abs(one.pts_s - release_s) < 1.5 / 30 / min(tempo, 1.0)
    assert (one.hand, one.track) == ("right", 1)
    assert one.shown_id == one.frame_id + 1
    assert one.shown_ns == one.shown_id
    assert 0.3 <= one.confidence <= 1
    assert set(one.features) == set(FEATURES)
    assert not refused


@pytest.mark.parametrize("fps", [10, 24, 30, 50, 60, 120, 240])
def test_at_any_rate_it_is_told_with_the_frame_after_it(fps):
    """A faster source is looked at every thirtieth of a second; of the frames between the last two
    looks the nearest to the event is named, and the frame after it is a thirtieth later."""
    motion = load_motion()
    for phase in range(5):
        release_s = 1.0 + phase / 5 / min(fps, 30)
        (one,), _ = watch(throw(fps, release_s=release_s))
        late_s = one.pts_s - (one.crossed_s - motion.lead(one.features))
        # Nearest, but no earlier than the look before the fall.
        assert -0.52 / fps < late_s < max(0.52 / fps, 1 / 30)
        assert abs(one.pts_s - release_s) < (1.0 / 30 if fps > 30 else 1.5 / fps)
        assert 1 <= one.shown_id - one.frame_id <= math.ceil(0.029 * fps) + 1


def test_frames_at_uneven_times_and_frames_said_twice():
    even = throw(60)
    uneven = [even[k] for k in range(len(even)) if k % 5 not in (1, 3)]
    (one,), _ = watch(uneven)
    assert abs(one.pts_s - 1.0) < 1.5 / 30
    # Half the speed by every frame shown twice.
    slow = [(k / 30, person) for k, (_, person) in
            enumerate(pair for each in throw() for pair in (each, each))]  # fmt: skip
    (one,), _ = watch(slow)
    assert abs(one.frame_id - 60) <= 2
    assert one.frame_id % 2 == 0, "the first of two"


@pytest.mark.parametrize("fps", [30, 60])
@pytest.mark.parametrize("gap", [6, 10])
def test_a_hand_that_was_not_seen_falling_is_refused(fps, gap):
    frames = throw(fps)
    hidden = range(round(1.0 * fps) - 1, round((1.0 + gap / 30) * fps))
    found, refused = watch(
        [(at, {} if k in hidden else {1: person}) for k, (at, person) in enumerate(frames)]
    )
    assert found == []
    assert [each for each in refused if "while the hand fell" in each.reason]


def test_a_picture_that_stands_still_is_one_picture_for_a_while():
    """A broadcast's freeze at the release: what is told is a frame of it that is kept."""
    frames = throw(50)
    at = 50
    frozen = [*frames[: at + 1], *([frames[at]] * 17), *frames[at + 1 :]]
    found, _ = watch([(k / 50, person) for k, (_, person) in enumerate(frozen)])
    (one,) = found
    assert one.shown_id - one.frame_id <= 14
    assert at - 2 <= one.frame_id <= at + 18


def test_left_handers_are_right_handers_in_a_mirror():
    (right,), _ = watch(throw())
    (left,), _ = watch([(pts_s, mirrored(person)) for pts_s, person in throw()])
    assert (left.frame_id, left.hand) == (right.frame_id, "left")
    assert left.confidence == pytest.approx(right.confidence, abs=1e-3)


def test_two_who_throw_are_both_told_and_others_change_nothing():
    one, other = throw(release_s=1.0), throw(release_s=1.1)
    still = a_person(-0.8, 0.4, 20.0)
    frames = [
        (a[0], {3: a[1], 5: mirrored(b[1]), 8: still}) for a, b in zip(one, other)
    ]  # fmt: skip
    found, _ = watch(frames)
    assert [(each.track, each.hand) for each in found] == [(3, "right"), (5, "left")]
    assert [abs(each.pts_s - at) < 1.5 / 30 for each, at in zip(found, (1.0, 1.1))] == [True] * 2


def test_a_release_in_the_first_frames_and_one_after_the_end_are_refused():
    for cut in (28, 29):
        found, refused = watch([(k / 30, p) for k, (_, p) in enumerate(throw()[cut:])])
        assert not found
        (one,) = refused
        assert "seen for less than 0.2 s before" in one.reason
    found, refused = watch(throw()[:31])
    assert not found
    (one,) = refused
    assert one.frame_id == 30
    assert one.reason == "the source ends before the hand falls"


def test_what_throws_not_is_not_told():
    down = [(k / 30, a_person(-0.9, 0.4, 0.0)) for k in range(60)]
    up = [(k / 30, a_person(0.8, 0.4, 0.0)) for k in range(60)]
    wave = [(k / 30, a_person(0.5 + 0.4 * math.sin(k / 3), 0.9, 0.0)) for k in range(90)]
    bat = [(t, on_a_bat(p)) for t, p in throw()]
    slow = throw(tempo=0.1, release_s=5.0, seconds=10.0)
    for frames in (down, up, wave, bat, slow, backwards()):
        assert watch(frames)[0] == []
    # Who does all of it but does not turn is doubted.
    nod = [(t, replace(p, world_m=a_person(0.0, 0.9, 0.0).world_m)) for t, p in throw()]
    assert max([each.confidence for each in watch(nod)[0]], default=0.0) < 0.5
    assert watch(throw())[0][0].confidence > 0.8


def test_nobody_is_who_they_were_after_a_reset_and_nobody_throws_twice_at_once():
    detector, found = Detector(load_motion()), []
    for k, (pts_s, person) in enumerate(throw()):
        found += detector.see(Frame(k, "x", 0, pts_s, IMAGE), {1: person}, k in (0, 30))
    assert not found
    twice = throw()
    again = [(pts_s + 1.0, person) for pts_s, person in throw()[12:]]
    found, _ = watch([*[each for each in twice if each[0] < again[0][0]], *again])
    assert len(found) == 1


def test_features_that_cannot_be_told_are_nan_and_forbid_nothing():
    motion = load_motion()
    past = [sample(0, 0.0, a_person(0.5, 0.9, 0.0))]
    told = features(past, "right", above=motion.above, fall_s=0.25, back_s=0.7)
    assert math.isnan(told["peak"])
    assert math.isnan(told["lowest"])
    assert Condition("peak", least=1.0).allows(math.nan)
    assert Condition("peak", weight=3.0).score(math.nan) == 0.0


def test_a_motion_s_file_is_checked(tmp_path):
    good = Path("pipeline/events/motions/throw/motion.toml").read_text()
    for change, words in (
        (lambda t: t.replace("level =", "levle ="), "levle: there is no such setting"),
        (lambda t: t.replace('"peak"', '"peek"'), "there is no feature 'peek'"),
        (lambda t: re.sub("level = .*", 'level = "low"', t), "level: a number, not 'low'"),
        (lambda t: t.replace("bias = ", "# bias = "), "missing: 'bias'"),
        (lambda t: t + "\n[[", "not valid TOML"),
        (lambda t: re.sub("scale = .*", "scale = 0", t), "scale: above 0, not 0"),
        (lambda t: re.sub("level = .*", "level = nan", t), "level: a number, not nan"),
        (lambda t: t.replace("fall_s = 0.25", "fall_s = inf"), "fall_s: a number, not inf"),
        (lambda t: t.replace("least = 0.25", "leest = 0.25"), "leest: there is no such setting"),
    ):
        path = tmp_path / "m.toml"
        path.write_text(change(good))
        with pytest.raises(ValueError, match=words):
            load_motion(path)
    assert load_motion(Path("pipeline/events/motions/throw/motion.toml")) == load_motion("throw")
    with pytest.raises(OSError, match="nosuch"):
        load_motion("nosuch.toml")


def test_another_motion_is_another_file(tmp_path):
    """A throw that wants the hand higher than this one goes is none."""
    path = tmp_path / "high.toml"
    text = Path("pipeline/events/motions/throw/motion.toml").read_text()
    path.write_text(text.replace("least = 0.25", "least = 0.9").replace('"throw"', '"high"'))
    assert watch(throw(), load_motion(path))[0] == []


def learned_from(frames, release_s: float) -> Throw:
    """A throw as it is collected."""
    return Throw(
        "t", np.array([t for t, _ in frames]), [{1: person} for _, person in frames], {},
        round(release_s * 30), release_s, "right",
        np.zeros((0, 24, 3)), np.zeros((24, 3)), np.zeros(3),
    )  # fmt: skip


def test_when_is_learned_from_what_is_seen():
    """Bodies that turn further let the ball go earlier here: what is learned knows it."""
    throws, random = [], np.random.default_rng(0)
    for turned in random.uniform(40, 140, 60):
        at_s = 1.0 + random.uniform(0, 1 / 30)
        frames = [
            (t, replace(p, world_m=a_person(0.0, 0.9, turned * (t < at_s - 0.1)).world_m))
            for t, p in throw(release_s=at_s)
        ]
        throws.append(learned_from(frames, at_s - 4e-4 * (turned - 90)))
    shipped = load_motion()
    motion = replace(shipped, conditions=tuple(
        replace(each, lead_s=math.copysign(1e-9, each.lead_s) if each.lead_s else 0.0)
        for each in shipped.conditions
    ))  # fmt: skip
    told = timing(throws, motion)
    both = []
    for each in (motion, told):
        late_s = [
            found.crossed_s - each.lead(found.features) - throw.release_s
            for throw in throws
            for found in throw.seen(each)
        ]
        assert len(late_s) == len(throws)
        both.append(np.std(late_s))
    assert both[1] < 0.5 * both[0]
    assert told.lead_s == motion.lead_s, "chosen, beside real clips"


# On real pictures, with the real model.


@pytest.fixture(scope="module")
def estimator():
    made = make_estimator(device="cpu")
    yield made
    made.perceiver.close()


def seen_in(estimator, images: Sequence[np.ndarray], pts_s: Sequence[float]):
    state, detector, found = estimator.begin(), Detector(load_motion()), []
    for k, (image, at) in enumerate(zip(images, pts_s)):
        frame = Frame(k, "x", 0, at, image)
        people = estimator.perceive([Window((frame,), 0, reset=k == 0)], [state])[0].people[0]
        found += detector.see(frame, people, k == 0)
    detector.finish()
    return found, list(detector.refused)


def images_of(path: Path, **options) -> list[np.ndarray]:
    source = open_source(str(path), SourceOptions(**options))
    source.open()
    images = [frame.image for frame in source.frames()]
    source.close()
    return images


def at_30(images) -> list[float]:
    return [k / 30 for k in range(len(images))]


@pytest.fixture(scope="module")
def sample_images():
    return images_of(SAMPLE)


@pytest.mark.weights
@pytest.mark.slow
def test_the_sample_s_release(estimator, sample_images):
    found, _ = seen_in(estimator, sample_images, at_30(sample_images))
    (one,) = found
    assert abs(one.frame_id - SAMPLE_RELEASE) <= 1
    assert one.hand == "right"


@pytest.mark.weights
@pytest.mark.slow
def test_two_who_throw_side_by_side(estimator, sample_images):
    """The sample beside itself in a mirror, a few frames later."""
    late = [sample_images[max(k - 6, 0)][:, ::-1] for k in range(len(sample_images))]
    both = [np.concatenate((a[:, 280:1000], b[:, 280:1000]), 1) for a, b in
            zip(sample_images, late)]  # fmt: skip
    found, _ = seen_in(estimator, both, at_30(both))
    hands = sorted((each.hand, each.frame_id) for each in found)
    assert [hand for hand, _ in hands] == ["left", "right"]
    assert abs(hands[1][1] - SAMPLE_RELEASE) <= 2
    assert abs(hands[0][1] - SAMPLE_RELEASE - 6) <= 2


@pytest.mark.weights
@pytest.mark.slow
def test_cut_off_by_an_end_of_the_clip(estimator, sample_images):
    for part in (sample_images[SAMPLE_RELEASE - 1 :], sample_images[: SAMPLE_RELEASE - 3]):
        assert seen_in(estimator, part, at_30(part))[0] == []


RELEASES = {
    "pitch_1_22": 53, "pitch_9_6": 55, "pitch_3_2222": 71, "pitch_7_2": 33,
}  # fmt: skip
VARIANTS = {
    "as it is": lambda images: (images, lambda t: [t]),
    "mirrored": lambda images: ([np.ascontiguousarray(i[:, ::-1]) for i in images], lambda t: [t]),
    "inverted": lambda images: ([255 - image for image in images], lambda t: [t]),
    "twice as fast": lambda images: (images[::2], lambda t: [t // 2, (t + 1) // 2]),
    "half as fast": lambda images: (
        [i for i in images for _ in range(2)],
        lambda t: [2 * t, 2 * t + 1],
    ),
}
"""What becomes of a clip, and in which frames of it the release then is."""


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", RELEASES)
def test_real_pitches(estimator, clips, name, variant):
    truth = json.loads((clips.parent / "release_frames.json").read_text())[f"{name}.mp4"]
    assert truth == RELEASES[name]
    images, at = VARIANTS[variant](images_of(clips / f"{name}.mp4"))
    found, _ = seen_in(estimator, images, at_30(images))
    (one,) = found
    assert min(abs(one.frame_id - frame) for frame in at(truth)) <= 1
    assert one.hand == ("left" if variant == "mirrored" else "right")


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize("name", ["taiji", "runner", "street_crowd", "corridor_one_by_one"])
def test_nobody_throws_there(estimator, clips, name):
    source = open_source(str(clips / f"{name}.mp4"))
    source.open()
    frames = list(source.frames())
    source.close()
    found, _ = seen_in(estimator, [f.image for f in frames], [f.pts_s for f in frames])
    assert found == []


def test_hands_are_both():
    assert set(HANDS) == {"left", "right"}
