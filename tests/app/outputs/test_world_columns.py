"""The world of a run's rows: little memory, and the same after a killed run."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from app.cli import main
from app.config import ConfigError, load_config
from app.outputs.poses import ROWS, AmassOutput, PosesOutput
from app.outputs.spool import ColumnSpool
from app.outputs.world_columns import WORLD_ROWS, save_with_world
from pipeline.core.world import world_from_up
from pipeline.world.camera_pose import CameraPose
from pipeline.world.ground import up_of
from tests.support.bodies import bodies, frame, run_info
from tests.support.recordings import standing_arrays

TILTED = world_from_up(up_of(18.0, -4.0), 2.4)


def spool(arrays, path) -> ColumnSpool:
    rows = ColumnSpool(path, ROWS, {k: v for k, v in arrays.items() if k not in ROWS})
    rows.append({name: arrays[name] for name in ROWS})
    return rows


def test_a_long_recording_needs_little_memory(tmp_path):
    """Ten times the rows take ten times the file, and hardly more memory."""
    peaks = []
    for times in (10, 100):
        arrays = standing_arrays(TILTED, frames=80)
        count, span_s = len(arrays["track"]), 80 / 25
        for name in ROWS:
            arrays[name] = np.tile(arrays[name], (times, *[1] * (arrays[name].ndim - 1)))
        again = np.repeat(np.arange(times), count)
        arrays["pts_s"], arrays["frame"] = (
            arrays["pts_s"] + span_s * again,
            arrays["frame"] + 80 * again,
        )
        rows = spool(arrays, tmp_path / "poses.npz")
        del arrays
        tracemalloc.start()
        save_with_world(rows, tmp_path / "poses.npz")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        with np.load(tmp_path / "poses.npz") as saved:
            assert len(saved["world_joints_m"]) == times * count
            # By a sample of the rows.
            np.testing.assert_allclose(saved["world_rotation"], TILTED.rotation, atol=0.05)
        rows.close()
    # Of every row only its track is held, which `ground_of` samples by.
    assert peaks[1] < 2 * peaks[0] + 8e6


def test_a_recovered_file_is_the_one_of_the_whole_run(tmp_path):
    arrays = standing_arrays(TILTED) | {"given_camera": np.array([np.nan, 17.0, np.nan])}
    whole = spool(arrays, tmp_path / "whole.npz")
    save_with_world(whole, tmp_path / "whole.npz")
    killed = spool(arrays, tmp_path / "killed.npz")
    killed._close_files()
    assert main(["recover", str(tmp_path / "killed.npz")]) == 0
    with np.load(tmp_path / "whole.npz") as one, np.load(tmp_path / "killed.npz") as other:
        assert set(one) == set(other)
        assert set(WORLD_ROWS) < set(one)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
        assert str(one["ground"]).startswith("up: given; floor: feet")
    whole.close()


@pytest.mark.parametrize("value", [np.zeros(2), np.array(["a", "b", "c"])])
def test_damaged_rows_are_one_line(value, tmp_path, capsys):
    rows = spool(standing_arrays(TILTED) | {"given_camera": value}, tmp_path / "poses.npz")
    rows._close_files()
    assert main(["recover", str(tmp_path / "poses.npz")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no rows of a run" in line


@pytest.mark.parametrize("output_of", [PosesOutput, AmassOutput])
def test_what_is_given_of_the_camera_reaches_the_files(output_of, tmp_path):
    config = load_config(flags={"capture.camera_height_m": 2.0, "capture.camera_pitch_deg": 12.0})
    assert config.capture.camera_pose == CameraPose(2.0, 12.0, None)
    path = tmp_path / "out.npz" if output_of is PosesOutput else tmp_path
    output = output_of(path)
    output.open(run_info(camera_pose=config.capture.camera_pose))
    output.write(frame(0), bodies([1]), None)
    output.close()
    with np.load(output.files[0]) as saved:
        assert str(saved["ground"]) == "up: given; floor: given"
        np.testing.assert_allclose(saved["world_origin_m"], -2.0 * up_of(12.0, 0.0))


@pytest.mark.parametrize(
    "flags", [{"capture.camera_height_m": -1.0}, {"capture.camera_pitch_deg": 91.0},
              {"capture.camera_roll_deg": float("nan")}]
)  # fmt: skip
def test_what_no_camera_has_is_refused(flags):
    with pytest.raises(ConfigError, match="--camera-"):
        load_config(flags=flags)
