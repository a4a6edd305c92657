"""Times that always rise and numbers that stay true, whatever the time stamps are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.timeline import FrameIndex, Timeline

PTS = st.one_of(st.none(), st.integers(-(10**9), 10**9), st.integers(0, 3000))


@given(st.lists(PTS, max_size=60), st.sampled_from([None, 0.5, 25.0, 60.0]))
def test_time_always_rises(stamps: list[int | None], fps: float | None) -> None:
    timeline = Timeline(1 / 1000, fps)
    times = [timeline.place(pts)[0] for pts in stamps]
    assert all(a < b for a, b in zip(times, times[1:]))
    assert not times or times[0] == 0.0


@given(st.lists(st.integers(1, 900), min_size=1, max_size=60), st.integers(-(10**6), 10**6))
def test_rising_stamps_are_the_times(steps: list[int], origin: int) -> None:
    timeline = Timeline(1 / 1000, 30.0)
    pts, elapsed_ms = origin, 0
    assert timeline.place(pts) == (0.0, False)
    for step in steps:
        pts, elapsed_ms = pts + step, elapsed_ms + step
        time_s, jump = timeline.place(pts)
        assert abs(time_s - elapsed_ms / 1000) < 1e-9
        assert not jump  # up to 0.9 s is none


def test_a_long_gap_is_a_jump_and_is_kept() -> None:
    timeline = Timeline(1 / 1000, 25.0)
    assert [timeline.place(pts) for pts in (0, 1000, 2001, 2041)] == [
        (0.0, False),
        (1.0, False),
        (2.001, True),
        (2.041, False),
    ]


def test_slow_footage_is_not_full_of_jumps() -> None:
    timeline = Timeline(1.0, 0.5)
    assert [timeline.place(pts)[1] for pts in (0, 2, 4, 20, 37)] == [False] * 4 + [True]


def test_a_step_back_is_joined_on() -> None:
    timeline = Timeline(1 / 1000, 25.0)
    placed = [timeline.place(pts) for pts in (9000, 9040, 0, 40, 80)]
    times = [round(time_s, 6) for time_s, _ in placed]
    assert times == [0.0, 0.04, 0.08, 0.12, 0.16]
    assert [jump for _, jump in placed] == [False, False, True, False, False]


def test_jitter_is_no_jump() -> None:
    timeline = Timeline(1 / 1000, 25.0)
    placed = [timeline.place(pts) for pts in (0, 40, 35, 40, 80, None, 160)]
    assert not any(jump for _, jump in placed)
    assert placed[-1][0] == 0.16


def test_without_stamps_time_goes_on_by_the_rate() -> None:
    timeline = Timeline(1 / 1000, 10.0, offset_s=7.0)
    assert [round(timeline.place(None)[0], 6) for _ in range(3)] == [7.0, 7.1, 7.2]
    assert round(timeline.place(500)[0], 6) == 7.3  # the first stamp joins on


def test_files_that_stamp_every_frame_the_same_run_at_their_rate() -> None:
    timeline = Timeline(1 / 1000, 10.0)
    placed = [timeline.place(0) for _ in range(50)]
    assert [round(time_s, 6) for time_s, _ in placed] == [i / 10 for i in range(50)]
    # Should stamps begin after all, time goes on from there.
    assert [round(timeline.place(pts)[0], 6) for pts in (100, 200)] == [5.0, 5.1]


@given(st.data())
def test_numbers_are_places_in_the_order_shown(data: st.DataObject) -> None:
    """Packets come in decoding order, some are lost with a word; numbers stay places."""
    count = data.draw(st.integers(1, 40))
    shown = [10 * place for place in range(count)]
    delay = data.draw(st.integers(0, 4))
    lost = data.draw(st.sets(st.integers(0, count - 1)))
    index = FrameIndex()
    decoded = sorted(range(count), key=lambda i: (i // (delay + 1), -i))
    read = 0
    for place in range(count):
        # Before a frame comes out, all packets up to it and a few more have been read.
        while read < count and read <= place + delay + 1:
            index.packet(shown[decoded[read]])
            if decoded[read] in lost:
                index.damage()
            read += 1
        if place not in lost:
            assert index.number(shown[place]) == place


def test_packets_without_frames_do_not_count_where_nothing_was_damaged() -> None:
    index = FrameIndex()
    numbers = []
    for place in range(10):  # two fields, each a packet, make one frame
        index.packet(20 * place)
        index.packet(20 * place + 10)
        numbers.append(index.number(20 * place + 10))
    assert numbers == list(range(10))


def test_a_frame_that_damage_held_back_is_skipped() -> None:
    index = FrameIndex()
    for pts in (0, 40, 80, 120):
        index.packet(pts)
    index.damage()
    assert [index.number(pts) for pts in (0, 80, 40, 120)] == [0, 2, None, 3]


def test_numbers_go_on_from_the_first_one_wanted() -> None:
    index = FrameIndex(first=17, floor=680)
    for pts in (600, 640, 680, 720):
        index.packet(pts)
    index.damage()
    assert [index.number(pts) for pts in (680, 720, None)] == [17, 18, 19]
