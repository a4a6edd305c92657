"""Several sources through one model: order, isolation, accounts and endings, with stub models."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.capture.open import open_source
from pipeline.core.yuv import YuvImage, to_yuv
from pipeline.runtime import scheduler as scheduler_module
from pipeline.runtime.make import make_estimator
from pipeline.runtime.runner import Runner
from pipeline.runtime.scheduler import StreamScheduler
from pipeline.runtime.video_stream import VideoStream
from tests.support.fakes import StubBatchEstimator, StubSource


def drain(stream, out, errors=None):
    try:
        for fitted in stream.windows():
            for frame, bodies in fitted:
                assert bodies == frame.id
                stream.stats.drew(frame.captured_ns)
                out.append(frame.id)
    except BaseException as error:
        if errors is None:
            raise
        errors.append(error)


def draining(stream, out, errors=None):
    thread = threading.Thread(target=drain, args=(stream, out, errors))
    thread.start()
    return thread


def threads():
    return {t.name for t in threading.enumerate() if t.name.startswith(("capture", "perceive"))}


@pytest.mark.parametrize("counts", [(0,), (1, 50), (20, 3, 40, 4)])
def test_every_clip_comes_out_whole_and_in_order(counts):
    estimator = StubBatchEstimator()
    with StreamScheduler(estimator) as scheduler:
        streams = [scheduler.add(f"clip {n}", StubSource(count)) for n, count in enumerate(counts)]
        outs = [[] for _ in counts]
        readers = [draining(stream, out) for stream, out in zip(streams, outs)]
        for reader in readers:
            reader.join(10)
            assert not reader.is_alive()
    for stream, out, count in zip(streams, outs, counts):
        assert out == list(range(count))
        seen = stream.stats.snapshot()
        assert (seen.read, seen.drawn, seen.dropped) == (count, count, {})
    # At most one window of each source in a batch.
    assert all(len(set(batch)) == len(batch) for batch in estimator.batches)
    assert not threads()


def test_a_source_that_breaks_ends_alone():
    with StreamScheduler(StubBatchEstimator()) as scheduler:
        bad = scheduler.add("bad", StubSource(20, fails_at=8))
        good = scheduler.add("good", StubSource(60))
        errors, out, before = [], [], []
        readers = [draining(bad, before, errors), draining(good, out)]
        for reader in readers:
            reader.join(10)
    assert out == list(range(60))
    assert before == list(range(8))
    assert [str(error) for error in errors] == ["the source broke"]


def test_a_busy_source_has_the_scheduler_look_at_it_alone(monkeypatch):
    looks = Counter()
    take = VideoStream.take

    def counted(stream, now_ns):
        looks[stream.name] += 1
        return take(stream, now_ns)

    monkeypatch.setattr(VideoStream, "take", counted)
    with StreamScheduler(StubBatchEstimator()) as scheduler:
        silent = [scheduler.add(f"{n}", StubSource(None, True, pause_s=60)) for n in range(5)]
        time.sleep(0.1)
        looks.clear()
        begun_s = time.monotonic()
        drain(scheduler.add("busy", StubSource(400)), [])
        rounds = (time.monotonic() - begun_s) / scheduler_module.IDLE_S
    assert looks["busy"] >= 100, "once a window at least"
    assert max(looks[stream.name] for stream in silent) <= rounds + 2, "by the clock alone"


@pytest.mark.parametrize("live", [False, True])
def test_a_cut_begins_a_window_without_memory(live):
    """Also where the first frame after it is dropped, as a live feed's may be."""
    scenes = np.random.default_rng(0).integers(0, 256, (2, 24, 32, 3), np.uint8)
    scenes = [np.kron(scene[::4, ::4], np.ones((4, 4, 1), np.uint8)) for scene in scenes]

    class Cut(StubSource):
        def frames(self):
            for frame in super().frames():
                yield replace(frame, pixels=scenes[frame.id >= 41])

    estimator = StubBatchEstimator(slow_s=0.02 if live else 0.0)
    with StreamScheduler(estimator) as scheduler:
        stream = scheduler.add("cut", Cut(90, live, pause_s=0.002))
        for _ in stream.windows():
            pass
    resets = [window.frames[0].id for window in estimator.windows if window.reset]
    after = min(w.frames[0].id for w in estimator.windows if w.frames[0].id >= 41)
    assert after in resets
    assert live or resets == [0, 41]


def test_pictures_that_are_planes_are_not_converted_on_the_way(monkeypatch):
    class Planes(StubSource):
        def frames(self):
            for frame in super().frames():
                yield replace(frame, pixels=to_yuv(np.zeros((24, 32, 3), np.uint8)))

    def refuse(self):
        raise AssertionError("made RGB on the host")

    monkeypatch.setattr(YuvImage, "rgb", property(refuse))
    with StreamScheduler(StubBatchEstimator()) as scheduler:
        out = []
        drain(scheduler.add("clip", Planes(12)), out)
    assert out == list(range(12))


def test_a_source_that_never_opens_holds_nobody_up():
    class Silent(StubSource):
        def open(self):
            self.closed.wait(30)
            raise OSError("stopped")

    with StreamScheduler(StubBatchEstimator()) as scheduler:
        silent = scheduler.add("silent", Silent(5, live=True))
        out = []
        drain(scheduler.add("clip", StubSource(40)), out)
        assert out == list(range(40))
        begun = time.monotonic()
        scheduler.remove(silent)
        assert time.monotonic() - begun < 2
        drain(silent, [])
        assert silent.error is None


@pytest.mark.parametrize("live", [False, True])
def test_results_that_nobody_takes_hold_nobody_up(live):
    with StreamScheduler(StubBatchEstimator()) as scheduler:
        pause_s = 0.002 if live else 0.0
        left = scheduler.add("left", StubSource(None, live=live, pause_s=pause_s))
        out = []
        drain(scheduler.add("taken", StubSource(100)), out)
        assert out == list(range(100))
        if live:
            deadline = time.monotonic() + 10
            while not left.stats.snapshot().dropped.get("output too slow"):
                assert time.monotonic() < deadline
                time.sleep(0.01)
    left.settle()
    seen = left.stats.snapshot()
    assert seen.in_flight == 0
    assert seen.read == sum(seen.dropped.values())
    if not live:
        assert seen.read <= 30, "a clip waits"


def test_sources_come_and_go_while_it_runs():
    with StreamScheduler(StubBatchEstimator()) as scheduler:
        first = scheduler.add("first", StubSource(None, pause_s=0.001))
        out = []
        reader = draining(first, out)
        for round_ in range(3):
            more = []
            second = scheduler.add("second", StubSource(12))
            drain(second, more)
            assert more == list(range(12))
            assert [stream.name for stream in scheduler.streams] == ["first", "second"]
            scheduler.remove(second)
            assert round_ < 3
        with pytest.raises(ValueError, match="first already"):
            scheduler.add("first", StubSource(1))
        third = scheduler.add("second", StubSource(None, pause_s=0.001))
        with pytest.raises(KeyError):
            scheduler.remove(second)
        assert not third.ended.is_set(), "the one that has the name now goes on"
        scheduler.remove(third)
        first.stop()
        reader.join(10)
        assert not reader.is_alive()
        # Stopped, not torn off: all that was read came out.
        assert len(out) == first.stats.snapshot().read
        assert out == list(range(len(out)))
    with pytest.raises(RuntimeError, match="closed"):
        scheduler.add("late", StubSource(1))


@pytest.mark.parametrize("half", ["perceive", "fit"])
def test_a_model_that_fails_for_a_black_picture_too_ends_all(half):
    class Breaks(StubBatchEstimator):
        def perceive(self, windows, states):
            return self.work("perceive", super().perceive, windows, states)

        def fit(self, detected, states):
            return self.work("fit", super().fit, detected, states)

        def work(self, name, step, items, states):
            if name == half and len(self.windows) > 6:
                raise ValueError("the card fell off the bus")
            return step(items, states)

    heard, errors = [], []
    with StreamScheduler(Breaks(), on_error=heard.append) as scheduler:
        streams = [scheduler.add("a", StubSource(None)), scheduler.add("b", StubSource(None))]
        readers = [draining(stream, [], errors) for stream in streams]
        for reader in readers:
            reader.join(10)
            assert not reader.is_alive()
    assert [str(error) for error in heard] == ["the card fell off the bus"]
    assert [str(error) for error in errors] == ["the card fell off the bus"] * 2


def test_a_slow_model_drops_of_live_sources_only_and_fairly():
    with StreamScheduler(StubBatchEstimator(slow_s=0.01)) as scheduler:
        streams = [scheduler.add(n, StubSource(300, live=True, pause_s=0.001)) for n in ("a", "b")]
        clip = scheduler.add("clip", StubSource(40))
        outs = [[], [], []]
        readers = [draining(stream, out) for stream, out in zip([*streams, clip], outs)]
        for reader in readers:
            reader.join(20)
            assert not reader.is_alive()
    assert outs[2] == list(range(40))
    for stream, out in zip(streams, outs):
        seen = stream.stats.snapshot()
        assert out == sorted(set(out))
        assert seen.read == seen.drawn + sum(seen.dropped.values()) == 300
        assert seen.dropped
    assert 0.6 < len(outs[0]) / len(outs[1]) < 1.6


class StubWatch:
    """Sees an event in each of some frames, one frame later; ``about`` them."""

    def __init__(self, about, resets=()) -> None:
        self.about, self.seen, self.ended = set(about), [], 0

    def see(self, frame, people, reset):
        self.seen.append((frame.id, reset))
        if frame.id - 1 in self.about:
            return [SimpleNamespace(frame_id=frame.id - 1, track=7)]
        return []

    def finish(self):
        self.ended += 1


@pytest.mark.parametrize("count", [1, 4, 7, 41])
def test_with_a_watch_frames_are_perceived_one_by_one_and_fitted_by_four(count):
    estimator, watch = StubBatchEstimator(), StubWatch({3, 20, 39})
    with StreamScheduler(estimator) as scheduler:
        stream = scheduler.add("a", StubSource(count), watch=watch)
        events = []
        reader = threading.Thread(target=lambda: events.extend(stream.events()))
        reader.start()
        windows = [[frame.id for frame, _ in window] for window in stream.windows()]
        reader.join(10)
        assert not reader.is_alive()
    assert sum(windows, []) == list(range(count))
    assert all(len(window) == 4 for window in windows[:-1])
    assert [len(window.frames) for window in estimator.windows] == [1] * count
    assert watch.seen == [(n, n == 0) for n in range(count)]
    assert watch.ended == 1
    told = [t for t in (3, 20, 39) if t + 1 < count]
    assert [event.seen.frame_id for event in events] == told
    for event, t in zip(events, told):
        assert [frame.id for frame in event.window.frames] == [t - 2, t - 1, t, t + 1]
        assert event.window.key_frame.id == t
        assert [bodies for _, bodies in event.fitted] == [7] * 4


def test_an_event_jumps_the_queue_and_nothing_is_lost():
    """The fit is slow: an event is fitted before the windows that wait for it."""
    order = []

    class Slow(StubBatchEstimator):
        def fit(self, perceived, states):
            time.sleep(0.1)
            order.extend(one.window.frames[0].id for one in perceived)
            return super().fit(perceived, states)

        def fit_event(self, perceived, before, track, state):
            order.append(("event", len(before)))
            return super().fit_event(perceived, before, track, state)

    with StreamScheduler(Slow()) as scheduler:
        stream = scheduler.add("a", StubSource(40), watch=StubWatch({9}))
        out = [frame.id for window in stream.windows() for frame, _ in window]
        assert out == list(range(40))
        assert [event.seen.frame_id for event in stream.events()] == [9]
    # It was told with frame 10; the window of frames 8 to 11 was not fitted yet.
    assert order.index(("event", 7)) <= 2
    assert [each for each in order if each != ("event", 7)] == list(range(0, 40, 4))


def test_what_was_collected_of_a_feed_that_stalls_comes_out():
    class Stalls(StubSource):
        def frames(self):
            yield from super().frames()
            self.closed.wait(10)

    with StreamScheduler(StubBatchEstimator()) as scheduler:
        stream = scheduler.add("a", Stalls(6, live=True, pause_s=0.03), watch=StubWatch(()))
        begun, out = time.monotonic(), []
        for window in stream.windows():
            out += [frame.id for frame, _ in window]
            if len(out) == 6:
                stream.stop()
        assert out == list(range(6))
        assert time.monotonic() - begun < 2.0


def test_events_of_windows_that_a_break_cuts_short():
    class Breaks(StubSource):
        def frames(self):
            for frame in super().frames():
                yield replace(frame, discontinuity=frame.id == 10)

    watch = StubWatch({10})
    with StreamScheduler(StubBatchEstimator()) as scheduler:
        stream = scheduler.add("a", Breaks(20), watch=watch)
        assert [f.id for window in stream.windows() for f, _ in window] == list(range(20))
        (event,) = stream.events()
    assert [frame.id for frame in event.window.frames] == [10, 11]
    assert [n for n, reset in watch.seen if reset] == [0, 10]


class Fast(StubSource):
    """240 frames a second."""

    def frames(self):
        for frame in super().frames():
            yield replace(frame, pts_s=frame.id / 240)


def test_events_of_a_fast_source_have_frames_a_thirtieth_apart():
    class Late(StubWatch):
        def see(self, frame, people, reset):
            seen = super().see(frame, people, reset)
            return [SimpleNamespace(frame_id=frame.id - 8, track=7)] if seen else []

    with StreamScheduler(StubBatchEstimator()) as scheduler:
        stream = scheduler.add("a", Fast(120), watch=Late({58, 108}))
        assert len([f for window in stream.windows() for f, _ in window]) == 120
        events = list(stream.events())
    for event, told in zip(events, (59, 109), strict=True):
        t = told - 8
        assert [frame.id for frame in event.window.frames] == [t - 16, t - 8, t, t + 8]


def test_an_event_about_a_frame_long_gone_ends_nothing():
    class Long(StubWatch):
        def see(self, frame, people, reset):
            return [SimpleNamespace(frame_id=frame.id - 30, track=7)] if frame.id == 35 else []

    with StreamScheduler(StubBatchEstimator()) as scheduler:
        streams = [scheduler.add(f"{n}", StubSource(60), watch=Long(())) for n in range(2)]
        for stream in streams:
            assert len([f for window in stream.windows() for f, _ in window]) == 60
            assert list(stream.events()) == []
            assert stream.stats.snapshot().lost_events == 1


def test_a_watch_sees_every_frame_so_low_latency_is_refused():
    with (
        StreamScheduler(StubBatchEstimator()) as scheduler,
        pytest.raises(ValueError, match="low latency"),
    ):
        scheduler.add("a", StubSource(4), low_latency=True, watch=StubWatch(()))


def test_with_low_latency_nothing_waits_for_the_model():
    """Frames come at once and in order; the model has the newest one whenever it is free."""
    source = StubSource(120, live=True, pause_s=0.004)
    estimator = StubBatchEstimator(slow_s=0.05)
    with StreamScheduler(estimator) as scheduler:
        stream = scheduler.add("a", source, low_latency=True)
        fits = []
        reader = threading.Thread(
            target=lambda: fits.extend(
                frame.id for window in stream.windows() for frame, _ in window
            )
        )
        reader.start()
        shown, late_s = [], []
        for frame in stream.newest():
            late_s.append((time.monotonic_ns() - frame.captured_ns) / 1e9)
            stream.stats.drew(frame.captured_ns)
            shown.append(frame.id)
        reader.join(10)
        assert not reader.is_alive()
    seen = stream.stats.snapshot()
    assert shown == sorted(set(shown))
    assert seen.read == 120 == seen.drawn + sum(seen.dropped.values())
    assert len(shown) > 100
    assert np.percentile(late_s, 90) < 0.02
    assert fits == sorted(set(fits))
    assert len(fits) + seen.unfitted == 120
    assert all(len(window.frames) == 1 for window in estimator.windows)
    assert 2 < len(fits) < 60


def test_with_low_latency_a_fault_of_the_model_ends_what_is_shown():
    with StreamScheduler(StubBatchEstimator(perceive_fails_at=0)) as scheduler:
        stream = scheduler.add("a", StubSource(None, live=True, pause_s=0.002), low_latency=True)
        assert len(list(stream.newest())) < 1000
        with pytest.raises(ValueError, match="perception broke"):
            list(stream.windows())


@pytest.mark.slow
@pytest.mark.weights
def test_two_clips_at_once_are_as_each_alone():
    """The real model: its memory of one source is never another's."""
    estimator = make_estimator(device="cpu", people=1)
    clip = "samples/pitch.mp4"

    def of(fitted):
        return [bodies.transl_m for _, bodies in fitted]

    with Runner(open_source(clip), estimator) as run:
        alone = [part for window in run.windows() for part in of(window)]
    with StreamScheduler(estimator) as scheduler:
        streams = [scheduler.add(name, open_source(clip)) for name in ("a", "b")]
        outs = [[], []]

        def read(stream, out):
            out.extend(part for window in stream.windows() for part in of(window))

        readers = [threading.Thread(target=read, args=pair) for pair in zip(streams, outs)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(60)
    estimator.close()
    for out in outs:
        assert len(out) == len(alone)
        for a, b in zip(out, alone):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_people_who_are_not_followed_are_counted_for_their_source():
    class Crowded(StubBatchEstimator):
        def perceive(self, windows, states):
            found = super().perceive(windows, states)
            return [
                replace(one, unfollowed=2 if one.window.frames[0].source == "full" else 0)
                for one in found
            ]

    with StreamScheduler(Crowded()) as scheduler:
        full = scheduler.add("full", StubSource(8, name="full"))
        empty = scheduler.add("empty", StubSource(8, name="empty"))
        readers = [draining(full, []), draining(empty, [])]
        for reader in readers:
            reader.join(10)
    counts = [stream.stats.snapshot() for stream in (full, empty)]
    assert [(c.most_unfollowed, c.frames_unfollowed) for c in counts] == [(2, 8), (0, 0)]
