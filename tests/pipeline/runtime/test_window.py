"""Windows of four: each frame once, in order, never across a break; cuts told from motion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.capture.open import open_source
from pipeline.core.frame import WINDOW_FRAMES, Frame, Window
from pipeline.core.ring import Policy, Ring
from pipeline.runtime.cuts import CutDetector
from pipeline.runtime.event_window import event_window, spaced
from pipeline.runtime.window import Windower, inherit_break

SIZES = ((4, 6), (8, 6))
MS = 1_000_000


def make_frame(
    number: int, *, pts_s: float | None = None, size: int = 0, breaks: bool = False, name: str = "a"
) -> Frame:
    pts_s = number / 25 if pts_s is None else pts_s
    image = np.zeros((*SIZES[size], 3), np.uint8)
    return Frame(number, name, number * 40 * MS, pts_s, image, breaks)


@st.composite
def frame_lists(draw: st.DrawFn) -> list[Frame]:
    """Frames with rising ids: some dropped, some long gaps, breaks, sizes, sources."""
    frames: list[Frame] = []
    number, pts_s = 0, 0.0
    for _ in range(draw(st.integers(0, 40))):
        step = draw(st.sampled_from([1, 1, 1, 1, 2, 5, 60]))
        number, pts_s = number + step, pts_s + step / 25
        # Not between the first two: how far frames are apart is not known before.
        pts_s += draw(st.sampled_from([0.0, 0.0, 0.0, 3.0])) if len(frames) > 1 else 0.0
        frames.append(
            make_frame(
                number,
                pts_s=pts_s,
                size=draw(st.sampled_from([0, 0, 0, 1])),
                breaks=draw(st.sampled_from([False, False, False, True])),
                name=draw(st.sampled_from("aaab")),
            )
        )
    return frames


def breaks_between(last: Frame, frame: Frame) -> bool:
    """The law in other words: what a window must not span (at 25 frames a second)."""
    return (
        frame.discontinuity
        or frame.size != last.size
        or frame.source != last.source
        or frame.pts_s - last.pts_s > 1.0
    )


@given(frame_lists(), st.integers(0, 3))
def test_every_frame_is_in_one_window_in_order(frames: list[Frame], expiries: int) -> None:
    windower = Windower(find_cuts=False)
    windows: list[Window] = []
    for index, frame in enumerate(frames):
        windows += windower.add(frame)
        if expiries and index % expiries == 0:
            windows += windower.expire(frame.captured_ns + 10**12)
    windows += windower.finish()
    assert windower.finish() == []
    assert [frame for window in windows for frame in window.frames] == frames
    place = {id(frame): index for index, frame in enumerate(frames)}
    for window in windows:
        assert window.key == 0
        at = place[id(window.frames[0])]
        assert window.reset == (at == 0 or breaks_between(frames[at - 1], frames[at]))
        for one, two in zip(window.frames, window.frames[1:]):
            assert not breaks_between(one, two)


@given(frame_lists())
def test_windows_are_as_long_as_can_be(frames: list[Frame]) -> None:
    windower = Windower(find_cuts=False)
    windows = [window for frame in frames for window in windower.add(frame)] + windower.finish()
    for one, two in zip(windows, windows[1:]):
        assert len(one.frames) == WINDOW_FRAMES or two.reset


def test_a_window_comes_as_soon_as_it_is_full() -> None:
    windower = Windower(find_cuts=False)
    counts = [len(windower.add(make_frame(number))) for number in range(9)]
    assert counts == [0, 0, 0, 1, 0, 0, 0, 1, 0]
    assert len(windower.add(make_frame(9, breaks=True))) == 1
    assert [len(windower.add(make_frame(n))) for n in (10, 11)] == [0, 0]
    assert [window.reset for window in windower.add(make_frame(12))] == [True]


def test_a_stalled_feed_still_shows_what_it_sent() -> None:
    windower = Windower(max_wait_ms=100.0, find_cuts=False)
    windower.add(make_frame(0))
    assert windower.expire(99 * MS) == []
    (window,) = windower.expire(100 * MS)
    assert [frame.id for frame in window.frames] == [0]
    assert windower.expire(10**15) == []
    windower.add(make_frame(1))
    windower.add(make_frame(2))
    (window,) = windower.expire(140 * MS)
    assert ([frame.id for frame in window.frames], window.reset) == ([1, 2], False)


def test_an_infinite_wait_never_expires() -> None:
    windower = Windower(max_wait_ms=math.inf, find_cuts=False)
    windower.add(make_frame(0))
    assert windower.expire(10**18) == []


def test_slow_footage_is_not_all_breaks_and_dropped_seconds_are() -> None:
    slow = Windower(find_cuts=False)
    windows = [w for n in range(12) for w in slow.add(make_frame(n, pts_s=2.0 * n))]
    assert [window.reset for window in windows] == [True, False, False]
    live = Windower(find_cuts=False)
    numbers = [0, 1, 2, 3, 10, 11, 12, 13, 60, 61, 62, 63]  # 0.28 s and then 1.9 s dropped
    windows = [w for n in numbers for w in live.add(make_frame(n))]
    assert [window.reset for window in windows] == [True, False, True]
    first = Windower(find_cuts=False)
    assert len(first.add(make_frame(0)) + first.add(make_frame(60))) == 1


def test_ids_or_times_that_run_back_are_a_break() -> None:
    for second in (make_frame(5, pts_s=0.3), make_frame(3), make_frame(6, pts_s=0.1)):
        windower = Windower(find_cuts=False)
        windower.add(make_frame(5))
        (window,) = windower.add(second)
        assert [frame.id for frame in window.frames] == [5]


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 6), st.integers(1, 9))
def test_a_break_survives_the_dropping_of_its_frame(
    breaks: list[bool], capacity: int, burst: int
) -> None:
    """However frames are dropped, a window that follows a break has ``reset`` set."""
    ring: Ring[Frame] = Ring(capacity, Policy.DROP_OLDEST, inherit=inherit_break)
    windower = Windower(find_cuts=False)
    windows: list[Window] = []
    for number, broken in enumerate(breaks):
        ring.put(make_frame(number, breaks=broken))
        if number % burst == 0:
            windows += [w for frame in ring.get_batch(capacity) for w in windower.add(frame)]
    if len(ring):
        windows += [w for frame in ring.get_batch(capacity) for w in windower.add(frame)]
    windows += windower.finish()
    shown = [(frame.id, window.reset and frame is window.frames[0]) for window in windows
             for frame in window.frames]  # fmt: skip
    before = -1
    for number, reset in shown:
        assert reset == (before < 0 or any(breaks[before + 1 : number + 1]))
        before = number


@given(st.integers(1, 12), st.data())
def test_the_window_around_an_event(count: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, 50))
    broken = data.draw(st.sets(st.integers(first, first + count - 1)))
    frames = [make_frame(n, breaks=n in broken) for n in range(first, first + count)]
    t = data.draw(st.integers(first, first + count - 1))
    window = event_window(frames, t)
    ids = [frame.id for frame in window.frames]
    assert window.key_frame.id == t
    assert set(ids) <= {t - 2, t - 1, t, t + 1}
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert not broken & set(ids[1:])
    if not broken:
        assert ids == [n for n in (t - 2, t - 1, t, t + 1) if first <= n < first + count]


def test_the_window_around_an_event_has_two_frames_before_it_and_one_after() -> None:
    recent = [make_frame(number) for number in range(1, 8)]
    window = event_window(recent, 5)
    assert [frame.id for frame in window.frames] == [3, 4, 5, 6]
    assert window.key == 2
    with pytest.raises(KeyError, match="frame 0 is no longer kept"):
        event_window(recent, 0)


@given(
    st.sampled_from((10, 15, 24, 25, 30, 45, 46, 50, 59.94, 60, 90, 120, 144, 180, 200, 240, 480)),
    st.integers(0, 1000),
)
def test_frames_about_an_event_are_a_thirtieth_apart_or_the_source_s_own(fps, seed) -> None:
    period_s, before = 1 / 30, 3
    rng = np.random.default_rng(seed)
    at = np.arange(round(-0.15 * fps) - before, max(1, round(fps / 30)) + 1) / fps
    times = at + rng.uniform(-0.2, 0.2, len(at)) / fps
    t = int(np.abs(at).argmin())
    frames = [make_frame(n, pts_s=float(pts_s)) for n, pts_s in enumerate(times)]
    window = event_window(spaced(frames, t, period_s), t)
    assert window.key_frame.id == t
    assert len(window.frames) == 4
    steps = np.diff([frame.pts_s for frame in window.frames])
    # At half as fast again it may be either.
    least, most = (1 / fps if fps < 47 else period_s), (period_s if fps > 44 else 1 / fps)
    # Frames are at most 1.4 / fps apart here, so the nearest to a time is at most 0.7 / fps off it.
    assert least - 1.41 / fps <= steps.min() <= steps.max() <= most + 1.41 / fps
    # At 50 the jitter may, once in a thousand times, make it a source that is hardly faster.
    if fps > 50:
        for number, frame in zip((-2, -1, 0, 1), window.frames):
            wanted_s = times[t] + number * period_s
            assert abs(frame.pts_s - wanted_s) <= np.abs(times - wanted_s).min() + 1e-12
    with pytest.raises(KeyError, match="no longer kept"):
        spaced(frames, len(frames), period_s)


# Cuts.

FEW = settings(deadline=None, max_examples=8)
"""Pictures take a while."""


def noise_scene(seed: int, blur: int = 25) -> np.ndarray:
    """A picture with large and small structure, RGB (360, 640, 3)."""
    rng = np.random.default_rng(seed)
    fine = cv2.GaussianBlur(rng.normal(0, 4500, (480, 760, 3)).astype(np.float32), (0, 0), blur)
    return np.clip(fine + 128, 0, 255).astype(np.uint8)


def cuts(images: Iterator[np.ndarray] | list[np.ndarray]) -> list[int]:
    detector = CutDetector()
    return [index for index, image in enumerate(images) if detector.is_cut(image)]


def crop(scene: np.ndarray, x: int, y: int) -> np.ndarray:
    return scene[y : y + 360, x : x + 640]


def test_another_scene_is_a_cut_and_a_still_one_is_none() -> None:
    one, two = noise_scene(1), noise_scene(2)
    images = [crop(one, 30, 30)] * 5 + [crop(two, 30, 30)] * 5 + [crop(one, 30, 30)] * 5
    assert cuts(images) == [5, 10]


def test_pans_shakes_flashes_and_a_large_moving_thing_are_none() -> None:
    scene = noise_scene(3)
    rng = np.random.default_rng(4)
    assert cuts([crop(scene, 6 * i, 0) for i in range(20)]) == []
    assert cuts([crop(scene, *rng.integers(0, 40, 2)) for _ in range(30)]) == []
    bright = [np.clip(crop(scene, 0, 0) * gain, 0, 255).astype(np.uint8)
              for gain in (1.0, 1.0, 1.4, 1.0, 0.6, 1.0)]  # fmt: skip
    assert cuts(bright) == []
    moving = []
    for i in range(20):
        image = crop(scene, 0, 0).copy()
        image[60:, 20 * i : 20 * i + 200] = (250, 250, 240)
        moving.append(image)
    assert cuts(moving) == []


def wall_with_arms(seed: int) -> list[np.ndarray]:
    """A still picture, then arms that sweep before a plain wall, elsewhere in each frame."""
    rng = np.random.default_rng(seed)
    images = []
    for frame in range(12):
        image = np.full((360, 640, 3), (236, 228, 238), np.uint8)
        arms = (
            rng.integers((0, 0), (640, 220), (2, 2, 2)) if frame > 5 else [[[300, 200], [320, 360]]]
        )
        for one, other in np.asarray(arms).tolist():
            cv2.line(image, one, other, (90, 60, 50), int(rng.integers(80, 170)))
        images.append(image)
    return images


@FEW
@given(st.integers(0, 1000))
def test_arms_that_sweep_before_a_wall_are_no_cut(seed: int) -> None:
    """However much of the picture changes at once, and its mean with it."""
    assert cuts(wall_with_arms(seed)) == []


@FEW
@given(st.integers(0, 1000), st.floats(0, 1), st.booleans())
def test_bars_around_the_picture_hide_no_cut(seed: int, share: float, upright: bool) -> None:
    """As wide as upright footage has them beside it in a wide picture, or as high as a wide film
    has them above and below in a 4:3 picture."""
    images = [crop(noise_scene(k), 0, 0).copy() for k in (seed, seed + 1)]
    bar = round(share * (218 if upright else 79))
    for image in images:
        lines = image.transpose(1, 0, 2) if upright else image
        lines[:bar] = lines[len(lines) - bar :] = 0
    assert cuts([images[0]] * 6 + [images[1]] * 6) == [6]


def test_a_shaken_fine_pattern_is_no_cut() -> None:
    """Everything has moved, and everything is still there."""
    scene = noise_scene(5, blur=10)
    rng = np.random.default_rng(6)
    images = [crop(scene, 30, 30)] * 5
    images += [crop(scene, *rng.integers(10, 50, 2)) for _ in range(20)]
    assert cuts(images) == []


def test_another_take_of_the_same_scene_is_a_cut() -> None:
    """The camera stands where it stood, but much of the picture changes at once."""
    one = crop(noise_scene(7), 0, 0)
    later = cv2.addWeighted(one, 0.55, crop(noise_scene(8), 0, 0), 0.45, 0.0)
    assert cuts([one] * 6 + [later] * 6) == [6]


def relit(image: np.ndarray, seed: int) -> np.ndarray:
    """The scene by another lamp: from one side, of another strength and colour, with noise."""
    rng = np.random.default_rng(seed)
    across = np.linspace(*rng.uniform(0.15, 1.6, 2), image.shape[1])[:, None]
    light = (image / 255.0) ** 2.2 * across * rng.uniform(0.4, 1.6, 3) + rng.uniform(0, 0.05)
    noise = rng.normal(0, 3, image.shape)
    return np.clip(255 * np.clip(light, 0, 1) ** (1 / 2.2) + noise, 0, 255).astype(np.uint8)


def dimmed(image: np.ndarray, gain: float) -> np.ndarray:
    return np.clip(image * gain, 0, 255).astype(np.uint8)


@FEW
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 6))
def test_other_light_is_no_cut(seed: int, dark: int, lit: int) -> None:
    """A strobe, lamps, a flash, the lights out for a while, a fade to black and back."""
    scene = crop(noise_scene(seed), 10, 10)
    black = np.zeros_like(scene)
    assert cuts([*[scene] * lit, *[black] * dark] * 3 + [scene]) == []
    assert cuts([scene] * 5 + [relit(scene, seed)] * 5 + [scene] * 5 + [relit(scene, -~seed)]) == []
    assert cuts([scene] * 5 + [dimmed(scene, 1 + lit / 2)] + [scene] * 2) == []
    gains = np.abs(np.linspace(-1, 1, 4 * lit + 1))
    assert cuts([dimmed(scene, gain) for gain in gains]) == []


@FEW
@given(st.integers(0, 1000), st.integers(0, 12))
def test_another_scene_after_the_dark_is_a_cut(seed: int, dark: int) -> None:
    one, two = crop(noise_scene(seed), 10, 10), crop(noise_scene(seed + 1), 10, 10)
    out, into = np.linspace(1, 0, 8), np.linspace(0, 1, 8)
    found = cuts([one] * 3 + [np.zeros_like(one)] * dark + [two] * 3)
    assert found == [3 + dark]
    faded = [dimmed(one, gain) for gain in out] + [np.zeros_like(one)] * dark
    (found_at,) = cuts([one] * 3 + faded + [dimmed(two, gain) for gain in into] + [two] * 3)
    assert 3 + len(faded) <= found_at <= 3 + len(faded) + 5


@FEW
@given(st.integers(0, 1000), st.integers(8, 60))
def test_a_dissolve_is_a_cut_near_its_middle(seed: int, frames: int) -> None:
    one, two = crop(noise_scene(seed), 10, 10), crop(noise_scene(seed + 1), 10, 10)
    shares = np.linspace(0, 1, frames + 2)[1:-1]
    mixed = [cv2.addWeighted(one, 1 - share, two, share, 0) for share in shares]
    (found_at,) = cuts([one] * 20 + mixed + [two] * 20)
    assert 0.4 <= (found_at - 20) / frames <= 0.9


def test_a_flat_picture_and_small_ones_are_fine() -> None:
    assert cuts([np.full((16, 16, 3), level, np.uint8) for level in (0, 0, 255, 255)]) == []
    assert cuts([np.full((1, 1, 3), 9, np.uint8)] * 3) == []


def test_a_cut_ends_a_window() -> None:
    one, two = crop(noise_scene(1), 0, 0), crop(noise_scene(2), 0, 0)
    windower = Windower()
    windows = []
    for number in range(12):
        frame = replace(make_frame(number), pixels=one if number < 6 else two)
        windows += windower.add(frame)
    windows += windower.finish()
    assert [len(window.frames) for window in windows] == [4, 2, 4, 2]
    assert [window.reset for window in windows] == [True, False, True, False]


@pytest.fixture(scope="module")
def footage(clips: Path) -> dict[str, list[np.ndarray]]:
    """The real clips, at a third of their size."""
    made = {}
    for path in sorted(clips.glob("*.mp4")):
        source = open_source(str(path))
        source.open()
        made[path.stem] = [frame.image[::3, ::3].copy() for frame in source.frames()]
    return made


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_no_cut_in_the_real_clips(footage: dict[str, list[np.ndarray]], stride: int) -> None:
    """Fast motion, a shaken camera, people close by; also with every second frame dropped."""
    found = {name: cuts(images[::stride]) for name, images in footage.items()}
    assert not any(found.values()), found


@pytest.mark.slow
def test_cuts_between_the_real_clips(footage: dict[str, list[np.ndarray]]) -> None:
    """Splices of every clip with every other: nearly all are found, and nothing else."""
    rng = np.random.default_rng(0)
    missed, tried = [], 0
    for one, two in permutations(footage, 2):
        height, width = footage[one][0].shape[:2]
        for _ in range(2):
            out = int(rng.integers(8, len(footage[one])))
            into = int(rng.integers(0, len(footage[two]) - 8))
            after = [cv2.resize(image, (width, height)) for image in footage[two][into : into + 8]]
            found = cuts(footage[one][out - 8 : out] + after)
            tried += 1
            assert set(found) <= {8}, (one, two, found)
            if found != [8]:
                missed.append((one, two))
    assert tried > 300
    assert len(missed) <= 0.01 * tried, missed
