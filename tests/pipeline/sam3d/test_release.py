"""A release is found where it is, whole or not at all, and what is missing is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.sam3d.release import CHECKPOINT, CONFIG, RELEASES, RIG, find_release, find_rig
from pipeline.weights.store import OPTIONAL, WeightsError

DINOV3, VITH = RELEASES


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def mine(tmp_path):
    """A folder of model files that the user names."""
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def put(folder, *names):
    for name in names or (CHECKPOINT, CONFIG, RIG):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"a file")
    return folder


def problem(*given):
    with pytest.raises(WeightsError) as caught:
        find_release(*given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_catalog_has_the_files_of_a_release():
    for name in RELEASES:
        assert tuple(file.name for file in OPTIONAL[name].files) == (CHECKPOINT, CONFIG, RIG)
        assert OPTIONAL[name].folder == name


def test_where_none_is_here_the_line_says_how_to_get_the_first():
    line = problem()
    assert "sam3d-dinov3 or sam3d-vith" in line
    assert "weights fetch sam3d-dinov3" in line
    assert "https://huggingface.co/facebook/sam-3d-body-dinov3" in line
    assert "weights fetch sam3d-vith" in problem(VITH)


def test_dinov3_comes_before_vith_and_a_users_folder_before_the_cache(cache, mine):
    put(cache / VITH)
    assert find_release().checkpoint == cache / VITH / CHECKPOINT
    put(mine / VITH)
    assert find_release(None, mine).checkpoint == mine / VITH / CHECKPOINT
    put(cache / DINOV3)
    found = find_release(None, mine)
    assert found.checkpoint == cache / DINOV3 / CHECKPOINT
    assert found.config == cache / DINOV3 / CONFIG
    assert found.rig == cache / DINOV3 / RIG
    assert find_release(VITH).checkpoint == cache / VITH / CHECKPOINT
    assert find_release(VITH, mine).checkpoint == mine / VITH / CHECKPOINT


def test_a_named_folder_is_the_only_one_that_is_looked_into(cache, mine):
    put(cache / DINOV3)
    line = problem(mine)
    assert line.startswith(f"{mine / CHECKPOINT} is missing")
    assert find_release(put(mine)).checkpoint == mine / CHECKPOINT


def test_a_folder_that_is_here_wins_over_the_name_of_a_release(cache):
    put(cache / DINOV3)
    put(Path(DINOV3))
    assert find_release(Path(DINOV3)).checkpoint == Path(DINOV3) / CHECKPOINT


def test_settings_may_be_absent_or_one_folder_up(mine):
    put(mine / "inner", CHECKPOINT, RIG)
    assert find_release(mine / "inner").config is None
    put(mine, CONFIG)
    assert find_release(mine / "inner").config == mine.resolve() / CONFIG


def test_mhrs_own_rig_serves_where_the_release_has_none(cache, mine):
    put(mine, CHECKPOINT, CONFIG)
    line = problem(mine)
    assert line.startswith(f"{mine / RIG} is missing")
    assert "weights fetch mhr-rig" in line
    put(cache / "mhr-rig", RIG)
    assert find_release(mine).rig == cache / "mhr-rig" / RIG
    put(mine / "mhr-rig", RIG)
    assert find_release(mine, mine).rig == mine / "mhr-rig" / RIG
    put(mine, RIG)
    assert find_release(mine).rig == mine / RIG


def test_the_rig_alone_is_found_in_any_release(cache, mine):
    with pytest.raises(WeightsError, match=r"^the MHR rig is not here.*weights fetch mhr-rig"):
        find_rig()
    put(cache / "mhr-rig", RIG)
    assert find_rig() == cache / "mhr-rig" / RIG
    put(mine / VITH, RIG)
    assert find_rig(None, mine) == mine / VITH / RIG
