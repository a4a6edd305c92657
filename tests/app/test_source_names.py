"""Names of sources: short, fit for files, and each once."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from app.source_names import names_of


def test_names_are_short_and_say_where_from():
    sources = ["clips/pitch.mp4", "other/pitch.mkv", "rtsp://ann:s3cret@cam.local:554/a/b?token=x",
               "0", "/dev/video2", "camera:HD Webcam", "lavfi:testsrc2", "-", "frames/img_%04d.png",
               "rtmp://h/live/kEy7Q", "rtmp://h/live/oTh3r", "rtsp:ann:s3cret@h",
               "rtsp://h/cam/realmonitor?channel=2&subtype=0", "ann:s3cret@h/x"]  # fmt: skip
    assert names_of(sources) == [
        "pitch", "pitch-2", "cam.local-554-a-b", "camera0", "dev-video2", "camera-HD-Webcam",
        "lavfi-testsrc2", "stdin", "img_-04d", "h-live", "h-live-2", "h",
        "h-cam-realmonitor-channel-2-subtype-0", "h-x",
    ]  # fmt: skip


def test_names_tell_the_source_in_every_script():
    sources = [
        "日本.mp4",
        "مباراة.mkv",
        "हिन्दी.mp4",
        "🎥 ⚾.mp4",
        "Müller.mp4",
        "http://h/live/1",
    ]
    assert names_of(sources) == ["日本", "مباراة", "हिन्दी", "🎥-⚾", "Müller", "h-live-1"]
    # What some file system strips, or takes for the same: case, other spaces, another form of é.
    alike = [
        "a b.mp4",
        "a?b.mp4",
        "a\u3000b.mp4",
        "A b.mp4",
        "\u202ea b.mp4",
        "\xe9.mp4",
        "e\u0301.mp4",
    ]
    assert names_of(alike) == ["a-b", "a-b-2", "a-b-3", "A-b-4", "a-b-5", "\xe9", "\xe9-2"]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6))
def test_names_are_file_names_and_none_is_twice(sources):
    names = names_of(sources)
    assert len(names) == len(sources)
    assert len({unicodedata.normalize("NFC", name.casefold()) for name in names}) == len(names)
    for name in names:
        assert 0 < len(name) < 80
        assert len(name.encode()) < 130
        assert not set(name) & set('/\\:*?"<>| \0')
        assert name not in (".", "..")
        assert name[0] not in "-."
        assert name[-1] != "."
        assert all(unicodedata.category(c)[0] not in "CZ" for c in name)


@given(st.lists(st.text("日本語مباراةАбв🎥é", min_size=1, max_size=20), min_size=1, unique=True))
def test_letters_and_pictures_are_kept(stems):
    for stem, name in zip(stems, names_of([f"{stem}.mp4" for stem in stems])):
        assert name.startswith(unicodedata.normalize("NFC", stem))
