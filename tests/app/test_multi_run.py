"""`run A B C`: names, outputs of one's own, and that one failure is one source's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import pytest

from app.config import ConfigError, OutputConfig
from app.multi_run import outputs_of
from app.outputs.catalog import entries


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
