"""`run A B C`: names, outputs of one's own, and that one failure is one source's."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
import warnings
from dataclasses import replace
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Config, ConfigError, OutputConfig, with_changes
from app.multi_run import _note_one_pass, names_of, outputs_of
from app.outputs.catalog import entries


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


def test_each_source_has_outputs_of_its_own(tmp_path):
    wanted = OutputConfig(video=tmp_path / "o.mp4", poses=tmp_path / "p.npz", amass=tmp_path / "a")
    made = outputs_of(wanted, "cam")
    assert made.video == tmp_path / "o_cam.mp4"
    assert made.poses == tmp_path / "p_cam.npz"
    assert made.amass == tmp_path / "a" / "cam"
    assert made.jsonl is None


def test_every_output_of_the_catalog_is_the_sources_own(tmp_path):
    for entry in entries():
        path = tmp_path / ("o" + (entry.suffixes or ("",))[0])
        made = [outputs_of(OutputConfig(**{entry.name: path}), name) for name in ("a", "b")]
        paths = [getattr(output, entry.name) for output in made]
        assert len({path, *paths}) == 3
        assert all(own.suffix == path.suffix for own in paths if entry.kind != "folder")
        assert all((own.parent == path) == (entry.kind == "folder") for own in paths)


def test_the_null_device_takes_the_lines_of_all():
    assert outputs_of(OutputConfig(jsonl=Path("/dev/null")), "cam").jsonl == Path("/dev/null")


@pytest.mark.parametrize("changes", [{"window": True}, {"jsonl": "-"}, {"jsonl": "/dev/fd/1"}])
def test_what_there_is_only_one_of_is_refused(changes):
    changes = {name: Path(v) if isinstance(v, str) else v for name, v in changes.items()}
    with pytest.raises(ConfigError, match="one source"):
        outputs_of(OutputConfig(**changes), "cam")


@pytest.mark.parametrize(
    ("sources", "changes", "said"),
    [
        (["a.mp4", "rtsp://h/1"], {}, ["take one pass"]),
        (["a.mp4", "a.mp4"], {"fit.one_pass": True}, []),
        (["rtsp://h/1", "rtsp://h/2"], {}, []),
        (
            ["rtsp://h/1", "a.mp4"],
            {"fit.height_m": 1.8},
            ["of two passes alone", "take one pass"],
        ),
        (["0", "1"], {"fit.heights": ["1=1.8"]}, ["of two passes alone"]),
    ],
)
def test_settings_and_passes_that_a_run_leaves_out_are_said(tmp_path, sources, changes, said):
    (tmp_path / "a.mp4").touch()
    config = with_changes(Config(), changes)
    paths = [str(tmp_path / s) if s.endswith(".mp4") else s for s in sources]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _note_one_pass({str(k): replace(config, source=p) for k, p in enumerate(paths)})
    assert len(caught) == len(said)
    assert all(words in str(each.message) for words, each in zip(said, caught))


@pytest.mark.slow
@pytest.mark.weights
def test_one_that_fails_costs_the_others_nothing(tmp_path):
    command = [
        sys.executable, "-m", "app", "run", "samples/pitch.mp4",
        "rtsp://ann:s3cret@127.0.0.1:1/cam", str(tmp_path / "none.mp4"),
        "--retry-s", "0", "--people", "1", "--video", str(tmp_path / "out.mp4"), "--quiet",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "127.0.0.1:1/cam: connection refused" in done.stderr
    assert "none.mp4" in done.stderr
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr
    with av.open(str(tmp_path / "out_pitch.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 108
    assert [path.name for path in tmp_path.iterdir()] == ["out_pitch.mp4"]
