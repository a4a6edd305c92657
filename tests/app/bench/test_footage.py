"""The frames of the benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.bench import footage


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_forth_and_back_never_jumps(index, count):
    here, after = (footage.forth_and_back(k, count) for k in (index, index + 1))
    assert 0 <= here < count
    assert abs(after - here) == (count > 1)


def test_all_frames_are_played():
    assert {footage.forth_and_back(k, 7) for k in range(12)} == set(range(7))


def test_letterbox_keeps_the_shape_and_centres():
    out = footage.letterbox(np.full((50, 100, 3), 200, np.uint8), (64, 64))
    assert out.shape == (64, 64, 3)
    assert (out[16:48] == 200).all()
    assert not out[:16].any()
    assert not out[48:].any()


@pytest.mark.parametrize("people", [2, 4, 8, 9])
def test_several_people_are_so_many_cells(people):
    image = np.random.default_rng(0).integers(1, 256, (720, 1280, 3), dtype=np.uint8)
    out = footage.several(image, (1920, 1080), people)
    assert out.shape == (1080, 1920, 3)
    places = []
    for y in range(0, 1080):
        places += [(y, x) for x in np.flatnonzero((out[y, :, :] == out[0, 0]).all(-1))]
    cells = [(y, x) for y, x in places if (out[y : y + 20, x : x + 20] == out[:20, :20]).all()]
    assert len(cells) == people


def test_the_samples_frames_and_their_windows():
    frames = footage.load_frames(None, (320, 240), 1, 6)
    assert frames.shape == (6, 240, 320, 3)
    player = footage.Player(frames)
    first, second = player.window(0, 0), player.window(0, 1)
    assert [f.id for w in (first, second) for f in w.frames] == list(range(8))
    assert (first.frames[3].image == frames[3]).all()
    assert (second.frames[2].image == frames[4]).all(), "back again after the last"
    other = player.window(1, 0)
    assert other.frames[0].source != first.frames[0].source
    assert (other.frames[0].image != first.frames[0].image).any()
    slow = footage.Player(frames, 8)
    shown = [frame for index in range(4) for frame in slow.window(0, index).frames]
    assert [slow.number(frame) for frame in shown] == [0] * 8 + [1] * 8
    assert all((frame.image == frames[slow.number(frame)]).all() for frame in shown)
    assert len({frame.pts_s for frame in shown}) == 16
    with pytest.raises(FileNotFoundError):
        footage.load_frames(Path("no such clip.mp4"), (320, 240), 1, 6)
