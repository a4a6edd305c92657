"""Bodies of a recording measured against a truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app import cli
from app.evaluate import evaluate_poses
from app.evaluate.recorded import load_bodies
from app.evaluate.truth import TruthError
from app.exports.recording import ExportError
from tests.support.evaluation import (
    FACES,
    LENS,
    SIZE,
    A,
    B,
    outcome_of,
    recorded,
    truth_of,
)

FRAMES = 5


def moving(steps: np.ndarray) -> np.ndarray:
    """Landmarks (F, 33, 3) of a person that goes aside while an arm swings."""
    path = np.repeat(A[None], len(steps), 0)
    path[:, :, 0] += 0.03 * steps[:, None]
    path[:, 15, 1] += 0.2 * np.sin(steps)
    return path


def test_a_recording_has_the_figures_of_its_bodies(tmp_path):
    """The same bodies, measured as those of a run and as a recording, have the same figures."""
    steps = np.arange(FRAMES)
    path = moving(steps)
    truth = truth_of(np.concatenate((path, path[:1] * 0 + B)), [*steps, 0], [0] * FRAMES + [1],
                     frames=FRAMES)  # fmt: skip
    off = path + np.random.default_rng(1).normal(0, 0.02, path.shape)
    file = recorded(tmp_path / "r.npz", {1: [*off[:3], None, off[4]], 2: [B] + [None] * 4})
    bodies = [{1: off[0], 2: B}, {1: off[1]}, {1: off[2]}, {}, {1: off[4]}]
    report = evaluate_poses(file, truth)
    from app.evaluate import figures
    from app.evaluate.motion import motion_rows

    outcome = outcome_of(truth, bodies)
    wanted = [*figures.presence_rows(outcome), *figures.space_rows(outcome)[0],
              *figures.image_rows(outcome), *motion_rows(outcome)]  # fmt: skip
    for row in wanted:
        found = report.row(row.key)
        assert found.mesh == pytest.approx(row.mesh, rel=1e-4, abs=1e-3, nan_ok=True), row.key
        assert found.reference == pytest.approx(row.reference, nan_ok=True), row.key
        if row.key not in ("frames", "person_frames", "coverage_pct"):
            assert np.isnan(found.perceived), row.key
    assert report.row("coverage_pct").mesh == pytest.approx(100 * 5 / 6)
    assert not report.has("fit_ms_p50")
    assert not report.has("surface_mm")


def test_vertices_give_surface_and_silhouette(tmp_path):
    mask = np.zeros(SIZE, bool)
    mask[30:90, 30:70] = True
    square = np.array([[-0.4, -0.6, 0], [-0.4, 0.6, 0], [0.4, 0.6, 0], [0.4, -0.6, 0]])
    surface = (A.mean(0) + square).astype(np.float32)
    truth = truth_of(A[None], [0], [0], frames=1, masks=np.packbits(mask)[None], mask_shape=SIZE,
                     surface=lambda row: surface)  # fmt: skip
    plain = evaluate_poses(recorded(tmp_path / "a.npz", {1: [A]}), truth)
    assert not plain.has("iou")
    meshed = {"vertices_m": surface[None], "faces": FACES}
    report = evaluate_poses(recorded(tmp_path / "b.npz", {1: [A]}, **meshed), truth)
    assert report.row("surface_mm").mesh == pytest.approx(0, abs=1e-3)
    assert 0.3 < report.row("iou").mesh <= 1


def test_frames_and_the_worst_are_chosen(tmp_path):
    path = moving(np.arange(FRAMES))
    truth = truth_of(path, np.arange(FRAMES), [0] * FRAMES, frames=FRAMES)
    bad = path.copy()
    bad[3, 16] += 0.3
    file = recorded(tmp_path / "r.npz", {4: list(bad)})
    report = evaluate_poses(file, truth, frames={1, 3}, worst=1)
    assert report.row("frames").mesh == 2
    assert [(w.frame, w.track) for w in report.worst] == [(3, 4)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"landmarks_px": None}, "it has no landmarks_px"),
        ({"landmarks_px": np.zeros((2, 33), np.float32)}, "landmarks_px is float32 (2, 33)"),
        ({"landmarks_m": np.full((2, 33, 3), np.nan, np.float32)}, "not finite"),
        ({"vertices_m": np.zeros((2, 4, 3), np.float32)}, "it has no faces"),
        (
            {"vertices_m": np.zeros((2, 4, 3), np.float32), "faces": np.full((1, 3), 4)},
            "faces names vertices",
        ),
        ({"score": np.zeros(3, np.float32)}, "score is float32 (3,)"),
    ],
)
def test_a_file_that_is_no_recording_is_refused_in_a_line(changes, why, tmp_path):
    file = recorded(tmp_path / "r.npz", {1: [A, A]}, **changes)
    with pytest.raises(ExportError) as error:
        load_bodies(file)
    assert why in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_truth_of_another_clip_is_refused(tmp_path):
    truth = truth_of(A[None], [0], [0], frames=1)
    with pytest.raises(TruthError, match="of 1 frames; r.npz has frame 1"):
        evaluate_poses(recorded(tmp_path / "r.npz", {1: [A, A]}), truth)
    with pytest.raises(TruthError, match="160x120 picture; s.npz is 64x48"):
        evaluate_poses(recorded(tmp_path / "s.npz", {1: [A]}, image_size=np.array([48, 64])), truth)


def suite_of(folder: Path) -> tuple[Path, Path]:
    """Return a suite of two clips with multi-view truths, and a folder with their recordings."""
    suite, poses = folder / "suite", folder / "poses"
    suite.mkdir()
    poses.mkdir()
    for name in "ab":
        (suite / f"{name}.mp4").touch()
        np.savez(suite / f"{name}_truth.npz", frame=[0], person=[0], intrinsics=LENS,
                 landmarks_good=np.ones((1, 33), bool), landmarks_m=A[None])  # fmt: skip
        recorded(poses / f"{name}.npz", {1: [A]})
    return suite, poses


def test_the_command_measures_one_recording_and_a_folder(tmp_path, capsys):
    suite, poses = suite_of(tmp_path)
    truth = str(suite / "a_truth.npz")
    assert cli.main(["evaluate", "--poses", str(poses / "a.npz"), "--truth", truth]) == 0
    assert "a.npz against a_truth.npz (multi-view)" in capsys.readouterr().out
    assert cli.main(["evaluate", "--poses", str(poses), "--suite", str(suite)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["a", "b", "all"]
    (poses / "b.npz").unlink()
    assert cli.main(["evaluate", "--poses", str(poses), "--suite", str(suite)]) == 1
    assert "b.npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--poses p.npz", "give --truth FILE"),
        ("--poses p.npz --truth t.npz --suite d", "give --truth FILE"),
        ("c.mp4 --poses p.npz --truth t.npz", "CLIP does not go with --poses"),
        ("--poses p.npz --truth t.npz --given mask", "--given does not go with --poses"),
        ("--poses p.npz --dataset 3dpw", "give the dataset's folder"),
    ],
)
def test_flags_that_do_not_go_together(line, why, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", *line.split()]) == 2
    assert why in capsys.readouterr().err


def test_figures_never_replace_the_recording(tmp_path, capsys):
    suite, poses = suite_of(tmp_path)
    file = str(poses / "a.npz")
    before = Path(file).read_bytes()
    words = ["evaluate", "--poses", file, "--truth", str(suite / "a_truth.npz"), "--json", file]
    assert cli.main([*words, "--overwrite"]) != 0
    assert Path(file).read_bytes() == before
    capsys.readouterr()
