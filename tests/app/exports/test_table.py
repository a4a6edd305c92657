"""The pandas table has what the recording has, in the columns that the manual names."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.exports.angles import ANGLES, joint_angles_deg
from app.exports.recording import make_recording
from app.exports.table import table
from pipeline.core.skeleton import JOINT_NAMES
from pipeline.core.world import camera_to_world
from tests.support.paths import ROOT
from tests.support.recordings import poses_arrays

TRACKS = st.dictionaries(
    st.integers(1, 50),
    st.lists(st.integers(0, 40), min_size=1, max_size=5, unique=True),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=20)
@given(TRACKS, st.sampled_from([None, "y", "z"]), st.integers(0, 99))
def test_every_body_is_a_row_with_its_joints_and_angles(tracks, up, seed):
    recording = make_recording(poses_arrays(tracks, seed=seed))
    made = table(recording, up=up)
    axes = np.eye(3) if up is None else camera_to_world(up)
    assert list(made["track"].drop_duplicates()) == sorted(tracks)
    for track in recording.tracks:
        rows = made[made["track"] == track.id]
        np.testing.assert_array_equal(rows["frame"], track.frame)
        np.testing.assert_array_equal(rows["pts_s"], track.pts_s)
        for joint, name in enumerate(JOINT_NAMES):
            points = rows[[f"{name}_{axis}_m" for axis in "xyz"]].to_numpy()
            np.testing.assert_allclose(points @ axes, track.joints_m[:, joint], atol=1e-6)
            seen = rows[f"{name}_visibility"]
            np.testing.assert_array_equal(seen, track.joint_visibility[:, joint])
        angles = rows[[f"{angle}_deg" for angle in ANGLES]]
        np.testing.assert_array_equal(angles, joint_angles_deg(track))
    assert made.shape[1] == 3 + 4 * 24 + len(ANGLES)


def test_the_manual_names_its_columns():
    page = (ROOT / "docs" / "learn" / "library.md").read_text()
    for name in (
        "`frame`",
        "`pts_s`",
        "`track`",
        "`JOINT_x_m`",
        "`JOINT_visibility`",
        "`ANGLE_deg`",
    ):
        assert name in page


def test_without_pandas_it_says_what_to_install():
    script = """
import sys
sys.modules["pandas"] = None
from app.exports.table import table
try:
    table(None)
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "a table needs pandas: pip install 'bodystream[notebook]'\n"


@pytest.mark.parametrize("people", [1, 2])
def test_a_recording_is_shown_as_its_tracks(people):
    recording = make_recording(poses_arrays({number: range(3) for number in range(1, people + 1)}))
    assert repr(recording).startswith(f"Recording of {people} pe")
    shown = recording._repr_html_()
    assert shown.count("<tr>") == 1 + people
    assert len(shown) < 1000
