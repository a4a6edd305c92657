"""A recording in a notebook holds all that it needs, and nothing that is licensed."""

from __future__ import annotations

import re

import pytest

import bodystream
from app.exports.recording import ExportError
from tests.support.recordings import save_poses
from tests.support.view import posed_arrays


@pytest.fixture
def poses(tmp_path):
    return save_poses(tmp_path / "poses.npz", posed_arrays({1: [0, 1, 2], 4: [2, 3]}))


def test_a_cell_loads_nothing(poses):
    cell = bodystream.view(poses, height=300)._repr_html_()
    assert cell.startswith("<iframe ")
    assert "height:300px" in cell
    assert not re.search(r"https?://|src=|href=", cell)
    # three.js and the body, compressed: a notebook with a few of them is still a small file.
    assert len(cell) < 1_000_000


def test_a_part_of_a_recording_is_smaller_and_an_empty_one_is_refused(poses):
    whole, part = bodystream.view(poses), bodystream.view(poses, seconds=(0, 0.05))
    assert len(part.page()) < len(whole.page())
    with pytest.raises(ExportError, match=r"poses.npz: no people from 5 to 6 seconds"):
        bodystream.view(poses, seconds=(5, 6))


def test_a_licensed_body_is_not_in_it(tmp_path):
    arrays = posed_arrays({1: [0]})
    free = bodystream.view(save_poses(tmp_path / "free.npz", arrays)).page()
    licensed = bodystream.view(save_poses(tmp_path / "own.npz", {**arrays, "model": "SMPL"})).page()
    assert '"body": null' in licensed
    assert len(licensed) < len(free) / 2
