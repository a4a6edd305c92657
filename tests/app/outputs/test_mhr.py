"""`--mhr`: every MHR body of every frame is a row, with all that the network reported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.recover import recover
from app.outputs.mhr import MhrOutput
from app.outputs.spool import ColumnSpool
from pipeline.core.people import MhrBody
from tests.support.bodies import FACES, VERTICES, bodies, frame, mhr_body, run_info

FIELDS = ("parameters", "shape", "scale", "translation_m", "keypoints_m", "keypoints_px")


def written(path, frames: list[dict[int, MhrBody]], **options):
    """What a run with these MHR bodies, beside fitted ones of the same tracks, writes."""
    output = MhrOutput(path, **options)
    output.open(run_info())
    for index, mhr in enumerate(frames):
        output.write(frame(index), replace(bodies(sorted(mhr)), mhr=mhr), None)
    output.close()
    with np.load(path) as saved:
        return dict(saved), output


@given(st.lists(st.sets(st.integers(1, 9), max_size=3), min_size=1, max_size=5), st.booleans())
def test_rows_are_the_bodies_by_frame_and_track(tmp_path_factory, tracks, mesh):
    path = tmp_path_factory.mktemp("mhr") / "m.npz"
    # Not in the tracks' order, as a mapping need not be.
    frames = [
        {t: mhr_body(100 * k + t) for t in sorted(each)[::-1]} for k, each in enumerate(tracks)
    ]
    saved, output = written(path, frames, mhr_vertices=mesh)
    expected = [(k, t, each[t]) for k, each in enumerate(frames) for t in sorted(each)]
    assert list(zip(saved["frame"], saved["track"])) == [(k, t) for k, t, _ in expected]
    for name in (*FIELDS, *["vertices_m"] * mesh):
        assert saved[name].dtype == np.float32
        for row, (_, _, body) in zip(saved[name], expected, strict=True):
            np.testing.assert_array_equal(row, getattr(body, name))
    assert ("vertices_m" in saved) == ("faces" in saved) == mesh
    if mesh and expected:
        np.testing.assert_array_equal(saved["faces"], FACES)
        assert saved["vertices_m"].shape[1:] == (VERTICES, 3)
    assert output.files == (path,)
    assert [each.name for each in path.parent.iterdir()] == ["m.npz"]


def test_a_network_without_scales_has_rows_that_say_so(tmp_path):
    saved, _ = written(tmp_path / "m.npz", [{1: mhr_body(scale=False)}])
    assert np.isnan(saved["scale"]).all()
    assert np.isfinite(saved["parameters"]).all()


def test_the_camera_of_a_row_is_its_frames(tmp_path):
    wide = np.diag([500.0, 500.0, 1.0])
    output = MhrOutput(tmp_path / "m.npz")
    first = run_info().intrinsics
    output.open(run_info(intrinsics_of=lambda frame: first if frame.id == 0 else wide))
    found = replace(bodies([1]), mhr={1: mhr_body()})
    output.write(frame(0), found, None)
    output.write(frame(1, height=96, width=128), found, None)
    output.close()
    with np.load(tmp_path / "m.npz") as saved:
        np.testing.assert_array_equal(saved["frame_intrinsics"], [run_info().intrinsics, wide])
        np.testing.assert_array_equal(saved["intrinsics"], run_info().intrinsics)


@pytest.mark.parametrize("people", [[], [1]])
def test_a_run_without_mhr_bodies_is_warned_about_if_it_had_any(tmp_path, people):
    output = MhrOutput(tmp_path / "m.npz", mhr_vertices=True)
    output.open(run_info())
    output.write(frame(0), bodies(people), None)
    output.close()
    assert len(output.warnings) == len(people)
    with np.load(tmp_path / "m.npz") as saved:
        assert saved["vertices_m"].shape == (0, 18439, 3)


def test_the_rows_of_a_killed_run_are_recovered(tmp_path, capsys):
    path = tmp_path / "m.npz"
    output = MhrOutput(path)
    output.open(run_info())
    body = mhr_body(3)
    output.write(frame(0), replace(bodies([4]), mhr={4: body}), None)
    # What a killed process leaves: the rows, whose mark is no longer locked.
    output._columns._close_files()
    assert recover(path) == 0
    with np.load(path) as saved:
        np.testing.assert_array_equal(saved["parameters"], [body.parameters])
    assert isinstance(output._columns, ColumnSpool)


def test_a_row_says_how_far_smpls_skin_is(tmp_path):
    output = MhrOutput(tmp_path / "m.npz")
    output.open(run_info())
    errors = np.array([0.01, np.nan, 0.03], np.float32)
    three = replace(bodies([2, 5, 7]), mhr={7: mhr_body(1), 2: mhr_body(2)}, surface_error_m=errors)
    output.write(frame(0), three, None)
    output.write(frame(1), replace(bodies([2]), mhr={2: mhr_body(3)}), None)
    output.close()
    with np.load(tmp_path / "m.npz") as saved:
        np.testing.assert_array_equal(saved["smpl_error_m"], errors[[0, 2]].tolist() + [np.nan])
