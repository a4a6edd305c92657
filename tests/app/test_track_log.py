"""What is said of tracks agrees with the frames, and the memory of it stays bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.run_report import clock
from app.track_log import KEPT, TrackLog

frames = st.lists(st.sets(st.integers(1, 8)), max_size=40)


@given(frames)
def test_each_track_has_its_frames_and_its_span(frames):
    log = TrackLog()
    for k, tracks in enumerate(frames):
        log.add(k / 10, sorted(tracks))
    found = {one.track: one for one in log.longest(99)}
    assert set(found) == set().union(*frames)
    assert len(log) == len(found)
    for track, one in found.items():
        places = [k for k, tracks in enumerate(frames) if track in tracks]
        assert one.frames == len(places)
        assert one.span_frames == places[-1] - places[0] + 1
        assert (one.first_s, one.last_s) == (places[0] / 10, places[-1] / 10)


@given(frames, st.integers(0, 9))
def test_the_longest_come_first(frames, most):
    log = TrackLog()
    for k, tracks in enumerate(frames):
        log.add(k / 10, tracks)
    lengths = [one.frames for one in log.longest(99)]
    assert lengths == sorted(lengths, reverse=True)
    assert [one.frames for one in log.longest(most)] == lengths[:most]


def test_a_run_of_weeks_keeps_its_long_tracks_and_counts_all():
    log, many = TrackLog(), 5 * KEPT
    for k in range(many):
        # One stays for the whole run, one comes back in every second frame, others pass.
        log.add(k / 10, {1, 2, 3 + k} if k % 2 else {1, 3 + k})
        assert len(log._spans) <= KEPT
    assert len(log) == many + 2
    first, second = log.longest(2)
    assert (first.track, first.frames, first.span_frames) == (1, many, many)
    assert (second.track, second.frames) == (2, many // 2)


def test_everyone_in_the_picture_is_kept_however_many():
    log = TrackLog()
    for _ in range(3):
        log.add(0.0, range(2 * KEPT))
    assert len(log.longest(9 * KEPT)) == len(log) == 2 * KEPT


@given(st.floats(-1e6, 1e6))
def test_a_clock_never_shows_sixty_seconds(seconds):
    parts = [float(part) for part in clock(seconds).lstrip("-").split(":")]
    assert all(0 <= part < 60 for part in parts[1:])
    shown = sum(60**power * part for power, part in enumerate(reversed(parts)))
    assert abs(shown - abs(seconds)) <= 0.051


def test_a_clock_is_as_players_show_it():
    assert [clock(s) for s in (0, 7.5, 59.96, 720, 3723.44, -1.5)] == [
        "0:00.0", "0:07.5", "1:00.0", "12:00.0", "1:02:03.4", "-0:01.5",
    ]  # fmt: skip
