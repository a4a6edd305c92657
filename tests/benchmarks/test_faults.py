"""Feeds that fail, from a real RTSP server: detection, recovery, what the user is shown, and the
effect on healthy sources. `faults.SCENES` lists the scenes."""

from __future__ import annotations

import pytest

from benchmarks.faults import SCENES, Outcome, play

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]
SEEN_S, BACK_S = 5.0, 3.0
"""A fault is detected within the first, and the picture is back within the second after its end."""
SHARE = 0.95
"""The healthy sources have at least this share of their rate."""


@pytest.fixture(scope="module", autouse=True)
def _server(rtsp_probe) -> None:
    """Skips where GStreamer's RTSP server is not installed."""


@pytest.fixture(scope="module", params=SCENES)
def played(request) -> tuple[str, Outcome]:
    return request.param, play(request.param)


def test_what_happens_to_a_feed_is_seen_and_passes(played) -> None:
    name, outcome = played
    assert outcome.twice == 0 or "UDP" in name
    assert outcome.lost == 0 or "UDP" in name, "no frame is lost while the source is connected"
    assert outcome.detected_s is None or outcome.detected_s < SEEN_S
    if outcome.back_s is not None:
        assert outcome.back_s < BACK_S
    assert outcome.saw[-1] == "live"


def test_the_others_keep_their_rate(played) -> None:
    assert played[1].rate >= SHARE


def test_the_user_is_told_what_it_is(played) -> None:
    name, outcome = played
    words = " ".join(outcome.saw)
    assert "wrong" not in words
    assert "s3cret" not in words
    for part, sentence in {
        "absent": "connection refused: check the address and that it is on",
        "killed": "reconnecting: lost",
        "frozen": "stalled: no picture for 2 s",
        "401, ": "refused: rtsp://***@127.0.0.1",
        "401 for": "wants a login: put user:password@ before the host",
        "404": "no such stream there: check the path",
        "end of": "reconnecting: lost (the stream ended)",
    }.items():
        assert sentence in words or not name.startswith(part)
    if outcome.detected_s is None:
        # Damaged packets, unusual streams and a wrong declared rate do not end a connection.
        assert outcome.saw == ("live",)
        assert outcome.breaks == 0
    if "size" in name:
        assert outcome.size == (368, 480)
