"""What is shown of addresses: useful parts from a list, and never a secret."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pipeline.core.redact import without_credentials

SAFE = (
    "rtsp://host:554/a/b",
    "rtsp://cam.lan/Streaming/Channels/101",
    "rtsp://10.0.0.7/cam/realmonitor?channel=1&subtype=0",
    "rtsp://10.0.0.7:554/h264Preview_01_main",
    "rtsp://[::1]:8554/x",
    "rtsp://[fe80::1%eth0]/live.sdp",
    "http://h/axis-cgi/mjpg/video.cgi?resolution=640x480&fps=15",
    "http://nvr.lan:8080/front_door/snapshot.jpg",
    "https://h/hls/live.m3u8",
    "udp://@239.0.0.1:1234?fifo_size=5000",
    "udp://@:1234",
    "tcp://127.0.0.1:19995",
    "file:///home/ann/a clip.mp4",
)


@pytest.mark.parametrize("address", SAFE)
def test_an_address_without_a_secret_stays_as_it_is(address):
    assert without_credentials(address) == address


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://ann:pw@h:554/live", "rtsp://***@h:554/live"),
        ("RTSP://ann:p w/@?#@h/live", "rtsp://***@h/live"),
        ("rtmp://h/live/x7Kq-9931", "rtmp://h/live/***"),
        ("rtsp://h/user=admin_password=tlJwpbo6_channel=1_stream=0.sdp", "rtsp://h/***_channel=1_stream=0.sdp"),
        ("http://h/x;jsessionid=12ab?k=1&channel=2", "http://h/***?***&channel=2"),
        ("http://h/snapshot.jpg?width=640&auth=YWRt", "http://h/snapshot.jpg?width=640&***"),
        ("rtsp://admin:secret", "rtsp://***"),
        ("rtsp:/admin:secret", "rtsp:***"),
        ("rtsp:admin:secret@h", "rtsp:***@h"),
        ("secret://h/live", "***://h/live"),
    ],
)  # fmt: skip
def test_what_may_be_a_secret_is_hidden(address, shown):
    assert without_credentials(address) == shown


_NOISE = st.text("abcdefXYZ0189!$&'()*+-.:;=@_~#?/%ü☃", max_size=4)
# Not only known words, short numbers and single letters, which may be shown.
_CORE = st.from_regex(r"[abcdef]{1,3}[XYZ][0-9][abcdef]{2,4}", fullmatch=True)
SECRETS = st.builds(lambda *parts: "".join(parts), _NOISE, _CORE, _NOISE)
PLACES = [
    "rtsp://{}@h/x", "rtsp://{}:pw@h/x", "rtsp://ann:{}@h:554/x", "rtsp://:{}@h/x",
    "rtsp://ann:a {}@h/x", "rtsp://a{}n:pw@[::1]:554/x", "rtsp://user@dom.com:{}@h/x",
    "rtsp:ann:{}@h/x", "rtsp:/ann:{}@h/x", "rtsp:/{}", "RTSP://ann:{}@h/x", "ann:{}@h/x",
    "rtsp://h:{}", "rtsp://ann:{}", "rtsp://ann:{}/x", "{}://h/x",
    "http://h/{}", "http://h/tok/{}", "rtmp://h/live/{}", "http://h/live/{}/index.m3u8",
    "http://h/x;jsessionid={}", "http://h/user=a_password={}_channel=1", "http://h/x#{}",
    "http://h/x?{}", "http://h/x?{}=1", "http://h/x?pass={}", "http://h/x?channel={}",
    "http://h/x?a=b;c={}&fps=5", "srt://h?passphrase={}", "tcp://h:1?{}",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@given(secret=SECRETS)
def test_a_secret_at_any_place_never_shows(place, secret):
    # In front of the path, / ? # end the host, and an @ ends the login: then it is another place.
    if "{}:" in place or place.startswith(("rtsp://h:", "rtsp:/{")):
        secret = re.sub("[^A-Za-z0-9]", "Q", secret)
    assume("@" not in secret or "@" in place)
    for text in (
        place.format(secret),
        f"error: '{place.format(secret)}': connection refused",
        f"(tcp://a:1 failed) {place.format(secret)}",
    ):
        shown = without_credentials(text)
        assert secret not in shown, (text, shown)
        assert without_credentials(shown) == shown


@pytest.mark.parametrize(
    "place",
    ["rtsp://h/x {}", " http://h/x?a=b\n{}", "rtsp://h {}", "rtsp:x {}", "http://h/x?pwd=a {}"],
)
@example(secret="aX0aa://")
@given(secret=SECRETS)
def test_a_secret_behind_a_space_in_an_address_never_shows(place, secret):
    # With an @ it would be the host of an address.
    secret = secret.replace("@", "Q")
    shown = without_credentials(place.format(secret))
    assert secret not in shown
    assert without_credentials(shown) == shown


@given(st.text(), st.sampled_from(SAFE), st.text())
def test_any_text_is_taken_and_twice_is_once(before, address, behind):
    shown = without_credentials(f"{before} {address} {behind}")
    assert without_credentials(shown) == shown


def test_the_words_around_an_address_stay():
    for text in (
        "rtsp://***@h/x: wants a login: put user:password@ before the host",
        "Error opening input 'tcp://127.0.0.1:1/live': Connection refused (rtsp://h/live).",
        "no address here: a@b, 12:30, http: 404",
    ):
        assert without_credentials(text) == text


def test_free_text_with_a_secret_value_is_masked():
    assert without_credentials("GET /x?token=abc123 failed") == "GET /x?token=*** failed"
    assert "s3cret" not in without_credentials("password=s3cret refused")
