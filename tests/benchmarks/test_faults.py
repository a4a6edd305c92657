"""Feeds that fail, from a real RTSP server: what is seen of it, when, what comes after, and what it
costs others. `faults.SCENES` says what happens."""

from __future__ import annotations

import pytest

from benchmarks.faults import SCENES, Outcome, play

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]
SEEN_S, BACK_S = 5.0, 3.0
"""A stall is seen within the first, and the picture is back within the second of the return."""
SHARE = 0.95
"""The others keep so much of their rate."""


@pytest.fixture(scope="module", autouse=True)
def _server(rtsp_probe) -> None:
    """Skips where GStreamer's RTSP server is not installed."""


@pytest.fixture(scope="module", params=SCENES)
def played(request) -> tuple[str, Outcome]:
    return request.param, play(request.param)


def test_what_happens_to_a_feed_is_seen_and_passes(played) -> None:
    name, told = played
    assert told.twice == 0 or "UDP" in name
    assert told.lost == 0 or "UDP" in name, "nothing that was made while it was there is lost"
    assert told.detected_s is None or told.detected_s < SEEN_S
    if told.back_s is not None:
        assert told.back_s < BACK_S
    assert told.saw[-1] == "live"


def test_the_others_keep_their_rate(played) -> None:
    assert played[1].rate >= SHARE


def test_the_user_is_told_what_it_is(played) -> None:
    name, told = played
    words = " ".join(told.saw)
    assert "wrong" not in words
    assert "s3cret" not in words
    for part, said in {
        "absent": "connection refused: check the address and that it is on",
        "killed": "reconnecting: lost",
        "frozen": "stalled: no picture for 2 s",
        "401, ": "refused: rtsp://***@127.0.0.1",
        "401 for": "wants a login: put user:password@ before the host",
        "404": "no such stream there: check the path",
        "end of": "reconnecting: lost (the stream ended)",
    }.items():
        assert said in words or not name.startswith(part)
    if told.detected_s is None:
        # Damage, odd streams and lies about the rate are no losses.
        assert told.saw == ("live",)
        assert told.breaks == 0
    if "size" in name:
        assert told.size == (368, 480)
