"""The field's datasets: figures known in closed form, and folders that are wrong."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from app import cli
from app.config import load_config
from app.evaluate.datasets import emdb as emdb_format
from app.evaluate.datasets import threedpw as threedpw_format
from app.evaluate.datasets.joint_sets import LSP_14, LSP_OF_H36M, SMPL_24_PELVIS
from app.evaluate.datasets.ruler import Ruler
from app.evaluate.datasets.run import evaluate_dataset
from app.evaluate.datasets.scores import Scores, compare_frame
from app.evaluate.datasets.sequence import Actor, DatasetSequence
from app.evaluate.metrics import procrustes
from app.evaluate.replay import Played
from app.evaluate.truth import TruthError
from pipeline.body.load import load_body
from tests.support.datasets import (
    LENS,
    SIZE,
    ScriptedEstimator,
    a_pose,
    emdb,
    in_camera,
    python2_pickle,
    threedpw,
    write_emdb,
    write_threedpw,
)
from tests.support.evaluation import SHARED, seeds
from tests.support.smpl import h36m_regressor, write_smpl_folder

FRAMES = 8
MESH = np.zeros((10, 3))


@pytest.fixture
def scripted(monkeypatch):
    """Replace the estimator by one that returns a script; return the function that sets it."""
    lenses = []

    def use(script, vertices=10):
        def load(config, without, focal_px, intrinsics):
            estimator = ScriptedEstimator(script, vertices)
            estimator.lens = intrinsics
            lenses.append((focal_px, intrinsics))
            return estimator

        monkeypatch.setattr("app.evaluate.datasets.run.load_estimator", load)
        return lenses

    return use


@pytest.fixture(scope="module")
def smpl(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "smpl"
    return write_smpl_folder(folder, "female", "male", "neutral")


def two_actors() -> tuple[list[np.ndarray], dict]:
    """Return the joints (N, 24, 3) of two people in the world, and their dataset."""
    walk = np.linspace(0, 0.3, FRAMES)[:, None, None] * [1, 0, 0]
    joints = [a_pose(1) + walk + [-1.0, 0, 0], a_pose(2) - walk + [1.0, 0, 0]]
    return joints, threedpw(joints)


def mesh_of(report, key: str) -> float:
    return report.row(key).mesh


# --- 3DPW without SMPL's files ----------------------------------------------------------------


def test_the_figures_of_3dpw_are_those_computed_by_hand(tmp_path, scripted):
    joints, values = two_actors()
    cameras = values["cam_poses"]
    script: dict = {}
    for frame in range(FRAMES):
        # Every body is off as a whole, which the alignment at the pelvis removes.
        first = in_camera(joints[0][frame], cameras[frame]) + [0.02, -0.01, 0.05]
        first[20] += [0.24, 0, 0]
        script[frame] = [(first, MESH)]
        if frame not in (2, 5):
            second = in_camera(joints[1][frame], cameras[frame])
            second[[4, 5]] += [0, 0, 0.12]
            script[frame].insert(0, (second, MESH))
    lenses = scripted(script)
    reports, total = evaluate_dataset("3dpw", write_threedpw(tmp_path, values))
    assert mesh_of(total, "frames") == FRAMES
    assert mesh_of(total, "person_frames") == 2 * FRAMES
    assert mesh_of(total, "matched") == 2 * FRAMES - 2
    assert mesh_of(total, "recall_pct") == pytest.approx(100 * 14 / 16)
    # 240 mm in one joint of 24; 120 mm in two.
    assert mesh_of(total, "mpjpe_smpl24_mm") == pytest.approx(10, abs=1e-9)
    radius = [
        1e3 * np.linalg.norm(joints[1][frame] - joints[1][frame][0], axis=-1).mean()
        for frame in (2, 5)
    ]
    assert mesh_of(total, "mpjpe_all_smpl24_mm") == pytest.approx((14 * 10 + sum(radius)) / 16)
    # The error is the same in every frame, so it has no acceleration.
    assert mesh_of(total, "accel_smpl24") == pytest.approx(0, abs=1e-9)
    aligned = [
        1e3 * np.linalg.norm(procrustes(ours, theirs) - theirs, axis=-1).mean()
        for frame in range(FRAMES)
        for ours, theirs in zip(
            [found for found, _ in script[frame]][::-1],
            [in_camera(each[frame], cameras[frame]) for each in joints],
        )
    ]
    assert mesh_of(total, "pa_mpjpe_smpl24_mm") == pytest.approx(np.mean(aligned))
    assert not total.has("pve_mm")
    assert any("--smpl" in note for note in total.notes)
    assert [report.clip for report in reports] == ["downtown_test_00"]
    ((focal_px, lens),) = lenses
    np.testing.assert_array_equal(lens, LENS)
    assert focal_px == pytest.approx(np.sqrt(150 * 148))


def test_the_error_of_acceleration_is_of_consecutive_frames(tmp_path, scripted):
    joints, values = two_actors()
    off = np.zeros((FRAMES, 3))
    off[4] = [0.048, 0, 0]
    script = {}
    for frame in range(FRAMES):
        body = in_camera(joints[0][frame], values["cam_poses"][frame])
        body[7] += off[frame]
        script[frame] = [(body, MESH)]
    one = threedpw(joints[:1])
    scripted(script)
    _, total = evaluate_dataset("3dpw", write_threedpw(tmp_path / "a", one))
    # 48 mm in one joint of 24: second differences of 2, 4 and 2 mm in three of six frames.
    assert mesh_of(total, "accel_smpl24") == pytest.approx(0.9 * (2 + 4 + 2) / 6)
    # A gap in what is valid ends the motion: frames 0 to 2 have one difference, 4 to 7 have two.
    valid = np.ones(FRAMES, int)
    valid[3] = 0
    gap = write_threedpw(tmp_path / "b", one | {"campose_valid": [valid]})
    _, total = evaluate_dataset("3dpw", gap)
    assert mesh_of(total, "accel_smpl24") == pytest.approx(0.9 * (0 + 2 + 0) / 3)


def test_frames_that_the_dataset_calls_invalid_count_for_nothing(tmp_path, scripted):
    joints, values = two_actors()
    cameras = values["cam_poses"]
    valid, seen = np.ones(FRAMES, np.int64), np.ones((FRAMES, 3, 18))
    valid[2], seen[3, 2] = 0, 0
    cameras[2] = np.nan
    values |= {"campose_valid": [valid, valid], "poses2d": [seen, np.ones((FRAMES, 3, 18))]}
    script = {
        frame: [(in_camera(each[frame], cameras[frame]), MESH) for each in joints]
        for frame in range(FRAMES)
        if frame != 2
    }
    script[2] = [(a_pose(5) + [0, 0, 3], MESH)]
    script[3][0] = (a_pose(6) + [0, 9, 30], MESH)
    scripted(script)
    _, total = evaluate_dataset("3dpw", write_threedpw(tmp_path, values))
    assert mesh_of(total, "person_frames") == 2 * FRAMES - 3
    assert mesh_of(total, "left_out") == 3
    assert mesh_of(total, "recall_pct") == 100
    assert mesh_of(total, "mpjpe_smpl24_mm") == pytest.approx(0, abs=1e-9)


def test_actors_may_be_stacked_to_one_array(tmp_path):
    values = two_actors()[1]
    stacked = {key: np.array(values[key]) for key in ("poses", "campose_valid", "jointPositions")}
    files = [tmp_path / name / "test" / "s.pkl" for name in ("lists", "arrays")]
    for path, contents in zip(files, (values, values | stacked)):
        path.parent.mkdir(parents=True)
        path.write_bytes(python2_pickle(contents))
    for one, two in zip(*(threedpw_format.read(path).actors for path in files)):
        np.testing.assert_array_equal(one.joints_m, two.joints_m)
        np.testing.assert_array_equal(one.valid, two.valid)


def test_a_bystander_is_matched_with_nobody(tmp_path, scripted):
    joints, values = two_actors()
    one = threedpw(joints[:1])
    scripted(
        {
            frame: [(in_camera(joints[1][frame], values["cam_poses"][frame]), MESH)]
            for frame in range(FRAMES)
        }
    )
    _, total = evaluate_dataset("3dpw", write_threedpw(tmp_path, one))
    assert mesh_of(total, "recall_pct") == 0
    assert np.isnan(mesh_of(total, "mpjpe_smpl24_mm"))
    assert np.isfinite(mesh_of(total, "mpjpe_all_smpl24_mm"))


def test_all_sequences_are_averaged_over_their_person_frames(tmp_path, scripted):
    joints, values = two_actors()
    write_threedpw(tmp_path, threedpw(joints[:1]), "a_00")
    short = [joints[0][:2]]
    write_threedpw(tmp_path, threedpw(short), "b_00")
    write_threedpw(tmp_path, threedpw(short), "c_00", split="train")
    script = {}
    for frame in range(FRAMES):
        body = in_camera(joints[0][frame], values["cam_poses"][frame])
        body[3] += [0, 0, 0.024 * (frame + 1)]
        script[frame] = [(body, MESH)]
    scripted(script)
    reports, total = evaluate_dataset("3dpw", tmp_path)
    assert [mesh_of(report, "mpjpe_smpl24_mm") for report in reports] == pytest.approx([4.5, 1.5])
    assert mesh_of(total, "mpjpe_smpl24_mm") == pytest.approx((36 + 3) / 10)
    (alone,), _ = evaluate_dataset("3dpw", tmp_path, only=["b_00"])
    assert alone.clip == "b_00"
    (train,), _ = evaluate_dataset("3dpw", tmp_path, split="train")
    assert (train.clip, train.kind) == ("c_00", "3dpw train")


def test_a_part_of_each_sequence_is_run_and_said(tmp_path, scripted):
    joints, values = two_actors()
    scripted({})
    root = write_threedpw(tmp_path, values)
    config = load_config(flags={"capture.start_s": 0.1, "capture.seconds": 0.1})
    _, total = evaluate_dataset("3dpw", root, config)
    assert mesh_of(total, "person_frames") == 6
    assert total.settings == ("of each sequence from 0.1 s for 0.1 s",)


# --- the laws of the errors -------------------------------------------------------------------


def one_frame(ours: np.ndarray, theirs: np.ndarray) -> Scores:
    """Compare one body with one actor, both of joints (24, 3) in the camera's axes."""
    still = np.eye(4)[None]
    actor = Actor("male", np.ones(1, bool), np.zeros((1, 72)), np.zeros(10), np.zeros((1, 3)),
                  still, theirs[None])  # fmt: skip
    sequence = DatasetSequence("s", Path("s.pkl"), Path("%05d.jpg"), 1, LENS, (actor,))
    estimator = ScriptedEstimator({0: [(ours, MESH)]}, len(MESH))
    scores = Scores.none(actor.valid, [SMPL_24_PELVIS])
    played = Played(0, SIZE, LENS, {}, estimator._bodies(0))
    compare_frame(played, sequence, [scores], Ruler((SMPL_24_PELVIS,)))
    return scores


@SHARED
@given(seeds, st.floats(0.7, 1.3), st.floats(-20, 20))
def test_procrustes_forgives_place_size_and_turn_and_nothing_else(seed, scale, degrees):
    theirs = a_pose(seed) * [1, -1, 1] + [0, 0, 4]
    middle = theirs.mean(0)
    axis = np.random.default_rng(seed).normal(size=3)
    turn = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    moved = scale * (theirs - middle) @ turn.T + middle + [0.03, 0.02, -0.1]
    scores = one_frame(moved, theirs)
    # One that is turned and moved too far counts as another person.
    assume(scores.found[0])
    assert scores.errors["smpl24"].aligned_mm[0] == pytest.approx(0, abs=1e-6)
    mirrored = one_frame((theirs - middle) * [-1, 1, 1] + middle, theirs)
    assert not mirrored.found[0] or mirrored.errors["smpl24"].aligned_mm[0] > 1


@SHARED
@given(seeds)
def test_the_error_is_relative_to_the_pelvis(seed):
    rng = np.random.default_rng(seed)
    theirs, off = a_pose(seed) * [1, -1, 1] + [0, 0, 4], rng.normal(0, 0.03, (24, 3))
    scores = one_frame(theirs + off, theirs)
    expected = 1e3 * np.linalg.norm(off - off[0], axis=-1)
    found = np.linalg.norm(scores.errors["smpl24"].offsets_mm[0], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# --- with SMPL's files ------------------------------------------------------------------------


def test_vertices_and_the_14_joints_of_3dpw_come_of_the_smpl_files(tmp_path, scripted, smpl):
    male = load_body(smpl / "SMPL_MALE.pkl")
    rest = np.repeat(male.joint_template.numpy().astype(float)[None], FRAMES, axis=0)
    values = threedpw([rest])
    mesh = male.v_template.numpy().astype(float)
    regressor = h36m_regressor()[list(LSP_OF_H36M)]
    # One vertex of the right ankle and one of no joint: 70 mm and 100 mm.
    ours = mesh.copy()
    ankle = 40 * LSP_OF_H36M[0]
    ours[ankle] += [0.07, 0, 0]
    ours[6000] += [0, 0.1, 0]
    script = {
        frame: [(in_camera(rest[frame], camera), in_camera(ours, camera) + [0, 0, 0.2])]
        for frame, camera in enumerate(values["cam_poses"])
    }
    scripted(script, 6890)
    root = write_threedpw(tmp_path, values)
    _, total = evaluate_dataset("3dpw", root, smpl=smpl)
    assert np.allclose(regressor.sum(1), 1)
    assert mesh_of(total, "pve_mm") == pytest.approx(170 / 6890, abs=1e-3)
    assert mesh_of(total, "mpjpe_lsp14_mm") == pytest.approx(35 / 14, abs=1e-3)
    assert mesh_of(total, "mpjpe_smpl24_mm") == pytest.approx(0, abs=1e-3)
    assert not any("right files" in note for note in total.notes)
    # A body without SMPL's vertices has its 24 joints alone.
    scripted({f: [(joints, MESH) for joints, _ in found] for f, found in script.items()})
    _, without = evaluate_dataset("3dpw", root, smpl=smpl)
    assert not without.has("pve_mm")
    assert not without.has(f"mpjpe_{LSP_14.key}_mm")
    assert any("no other --body" in note for note in without.notes)


def test_smpl_files_that_are_not_those_of_the_truth_are_noticed(tmp_path, scripted, smpl):
    male = load_body(smpl / "SMPL_MALE.pkl").joint_template.numpy().astype(float)
    scripted({}, 6890)
    root = write_threedpw(tmp_path, threedpw([np.repeat(male[None], 2, 0)], genders=["f"]))
    _, total = evaluate_dataset("3dpw", root, smpl=smpl)
    assert any("right files" in note for note in total.notes)


def test_the_neutral_body_is_fitted_unless_another_is_named(tmp_path, monkeypatch, smpl):
    joints, values = two_actors()
    root, seen = write_threedpw(tmp_path, values), []

    def load(config, *_):
        seen.append(config.fit.body)
        return ScriptedEstimator({}, 6890)

    monkeypatch.setattr("app.evaluate.datasets.run.load_estimator", load)
    evaluate_dataset("3dpw", root, smpl=smpl)
    own = load_config(flags={"fit.body": smpl / "SMPL_MALE.pkl"})
    evaluate_dataset("3dpw", root, own, smpl=smpl)
    assert seen == [smpl / "SMPL_NEUTRAL.pkl", smpl / "SMPL_MALE.pkl"]


def test_the_figures_of_emdb_are_those_computed_by_hand(tmp_path, scripted, smpl):
    good = np.ones(FRAMES, bool)
    good[[0, 6]] = False
    values = emdb(FRAMES, good_frames_mask=good)
    female = load_body(smpl / "SMPL_FEMALE.pkl")
    rest, mesh = (part.numpy().astype(float) for part in (female.joint_template, female.v_template))
    script = {}
    for frame, camera in enumerate(values["camera"]["extrinsics"]):
        shift = values["smpl"]["trans"][frame]
        joints = in_camera(rest + shift, camera)
        # The left hip is off by 48 mm: the alignment at the middle of the hips moves all the
        # others by 24 mm, and the two hips are off by 24 mm too.
        joints[1] += [0.048, 0, 0]
        script[frame] = [(joints, in_camera(mesh + shift, camera))]
    script[6] = []
    scripted(script, 6890)
    root = write_emdb(tmp_path, values)
    write_emdb(tmp_path, emdb(3, emdb1=False), "28_other")
    reports, total = evaluate_dataset("emdb", root, smpl=smpl)
    assert [report.clip for report in reports] == ["P3_27_test"]
    assert mesh_of(total, "person_frames") == FRAMES - 2
    assert mesh_of(total, "recall_pct") == 100
    assert mesh_of(total, "mpjpe_smpl24_mm") == pytest.approx(24, abs=1e-3)
    assert mesh_of(total, "pve_mm") == pytest.approx(24, abs=1e-3)
    every, _ = evaluate_dataset("emdb", root, smpl=smpl, split="all")
    assert [report.clip for report in every] == ["P3_27_test", "P3_28_other"]


# --- the command ------------------------------------------------------------------------------


def test_the_command_prints_and_writes_every_sequence_and_all(tmp_path, scripted, capsys):
    joints, values = two_actors()
    scripted({})
    root = write_threedpw(tmp_path / "3dpw", values)
    out = tmp_path / "figures.json"
    assert cli.main(["evaluate", "--dataset", "3dpw", str(root), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "24 SMPL joints, pelvis (MPJPE)" in printed
    assert "cores" in printed
    data = json.loads(out.read_text())
    assert [clip["clip"] for clip in data["clips"]] == ["downtown_test_00"]
    assert data["all"]["figures"]["recall_pct"]["mesh"] == 0
    assert data["all"]["figures"]["mpjpe_smpl24_mm"]["mesh"] is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--dataset 3dpw", "folder"),
        ("--dataset coco d", "--dataset"),
        ("--dataset 3dpw d --truth t.npz", "--truth"),
        ("--dataset 3dpw d --frames 1-3", "--frames"),
        ("--dataset 3dpw d --given mask", "--given"),
        ("--dataset 3dpw d --truth-lens", "--truth-lens"),
        ("--dataset 3dpw d --split emdb1", "test, validation, train"),
        ("--dataset 3dpw {root} --sequence downtown_tset_00", "did you mean downtown_test_00"),
        ("--dataset 3dpw d --fov-deg 50", "its own lens"),
        ("--dataset emdb d", "SMPL_FEMALE.pkl"),
        ("c.mp4 --nobody --smpl d", "--smpl goes with --dataset"),
        ("c.mp4 --nobody --split test", "--split goes with --dataset"),
    ],
)
def test_options_that_do_not_go_together_end_with_a_line(line, why, capsys, tmp_path):
    root = write_threedpw(tmp_path, two_actors()[1])
    assert cli.main(["evaluate", *line.format(root=root).split()]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert len(error.strip().splitlines()) <= 2


def refused(words: list[str], capsys) -> str:
    """Run the command, which cannot be done, and return its one line."""
    assert cli.main(["evaluate", *words]) == 1
    captured = capsys.readouterr()
    (error,) = captured.err.strip().splitlines()
    assert error.startswith("error: ")
    assert "bug" not in error
    return error


def test_a_folder_that_is_no_dataset_gets_a_line(tmp_path, capsys, smpl):
    assert "no 3DPW" in refused(["--dataset", "3dpw", str(tmp_path)], capsys)
    assert "no 3DPW" in refused(["--dataset", "3dpw", str(tmp_path / "nowhere")], capsys)
    words = ["--dataset", "emdb", str(tmp_path), "--smpl"]
    assert "no EMDB" in refused([*words, str(smpl)], capsys)
    assert "no SMPL files" in refused([*words, str(tmp_path)], capsys)
    root = write_emdb(tmp_path, emdb(2, emdb1=False))
    error = refused(["--dataset", "emdb", str(root), "--smpl", str(smpl)], capsys)
    assert "of emdb1" in error


def test_a_missing_picture_is_named_before_anything_is_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("app.evaluate.datasets.run.load_estimator", None)
    _, values = two_actors()
    root = write_threedpw(tmp_path, values)
    (root / "imageFiles" / "downtown_test_00" / "image_00003.jpg").unlink()
    error = refused(["--dataset", "3dpw", str(root)], capsys)
    assert "image_00003.jpg" in error
    assert "missing" in error


@pytest.mark.parametrize("number", [0, 4, FRAMES - 1])
def test_a_picture_that_cannot_be_decoded_is_named(tmp_path, capsys, scripted, number):
    scripted({})
    _, values = two_actors()
    root = write_threedpw(tmp_path, values)
    name = f"image_{number:05d}.jpg"
    (root / "imageFiles" / "downtown_test_00" / name).write_bytes(b"\xff\xd8 no picture")
    assert f"{name}: this picture cannot be decoded" in refused(
        ["--dataset", "3dpw", str(root)], capsys
    )


def test_pictures_of_another_size_than_emdb_says_are_refused(tmp_path, capsys, scripted, smpl):
    scripted({}, 6890)
    values = emdb(2)
    values["camera"]["width"] = 640
    root = write_emdb(tmp_path, values)
    error = refused(["--dataset", "emdb", str(root), "--smpl", str(smpl)], capsys)
    assert "(96, 640)" in error
    assert "(96, 128)" in error


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"genders": None}, "genders"),
        ({"genders": ["x", "f"]}, "genders[0]"),
        ({"genders": [["m"] * 99, "f"]}, "genders[0]"),
        ({"poses2d": None}, "poses2d"),
        ({"jointPositions": [np.zeros((FRAMES, 72))]}, "jointPositions has 1 actors"),
        ({"jointPositions": [np.zeros((3, 72))] * 2}, "jointPositions[0] has shape (3, 72)"),
        ({"jointPositions": [np.full((FRAMES, 72), np.nan)] * 2}, "unknown numbers"),
        ({"betas": [np.zeros(4)] * 2}, "betas[0] has 4"),
        ({"cam_intrinsics": np.zeros((3, 3))}, "pinhole"),
        ({"cam_poses": "far"}, "cam_poses"),
    ],
)
def test_a_file_that_lacks_something_says_what(tmp_path, changes, why):
    values = two_actors()[1] | changes
    path = tmp_path / "sequenceFiles" / "test" / "s.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(python2_pickle({k: v for k, v in values.items() if v is not None}))
    with pytest.raises(TruthError) as error:
        threedpw_format.read(path)
    assert why in str(error.value)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gender": "x"}, "gender"),
        ({"camera": None}, "camera"),
        ({"smpl": {}}, "poses_root is missing"),
        ({"good_frames_mask": np.ones(3, bool)}, "good_frames_mask"),
        ({"gender": "neutral"}, "no neutral SMPL file"),
    ],
)
def test_an_emdb_file_that_lacks_something_says_what(tmp_path, changes, why, smpl):
    from app.evaluate.datasets.smpl_files import SmplFiles

    bodies = {"female": load_body()}
    root = write_emdb(tmp_path, emdb(2) | changes)
    path = root / "P3" / "27_test" / "P3_27_test_data.pkl"
    with pytest.raises(TruthError, match=why) as error:
        emdb_format.read(path, SmplFiles({}, bodies, None))
    assert str(error.value).startswith(str(path))


# --- hostile files ----------------------------------------------------------------------------


class Payload:
    """Makes a file where its pickle is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["alone", "inside"])
@pytest.mark.parametrize("dataset", ["3dpw", "emdb"])
def test_a_hostile_pickle_runs_nothing(tmp_path, capsys, dataset, where, smpl):
    mark = tmp_path / "ran"
    words = ["--dataset", dataset, str(tmp_path)]
    if dataset == "3dpw":
        root, values = write_threedpw(tmp_path, two_actors()[1]), dict(two_actors()[1])
        path = root / "sequenceFiles" / "test" / "downtown_test_00.pkl"
    else:
        root, values = write_emdb(tmp_path, emdb(2)), emdb(2)
        path = root / "P3" / "27_test" / "P3_27_test_data.pkl"
        words += ["--smpl", str(smpl)]
    hostile = Payload(mark) if where == "alone" else values | {"extra": Payload(mark)}
    path.write_bytes(pickle.dumps(hostile, 2))
    assert "mkdir" in refused(words, capsys)
    assert not mark.exists()


def test_a_pipe_is_no_file_of_a_dataset(tmp_path, capsys):
    root = write_threedpw(tmp_path, two_actors()[1])
    path = root / "sequenceFiles" / "test" / "downtown_test_00.pkl"
    path.unlink()
    os.mkfifo(path)
    assert "no 3DPW" in refused(["--dataset", "3dpw", str(root)], capsys)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_file_gets_a_line(tmp_path, capsys, share):
    root = write_threedpw(tmp_path, two_actors()[1])
    path = root / "sequenceFiles" / "test" / "downtown_test_00.pkl"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "downtown_test_00.pkl" in refused(["--dataset", "3dpw", str(root)], capsys)


# --- the user's SMPL files --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "contents", "why"),
    [
        ("SMPL_F.pkl", b"", "two female SMPL files"),
        ("J_regressor_h36m.npy", None, "no regressor"),
        ("J_regressor_h36m.npy", b"\x93NUMPY", "J_regressor_h36m.npy"),
    ],
)
def test_a_wrong_file_among_the_smpl_files_gets_a_line(tmp_path, capsys, name, contents, why):
    folder = write_smpl_folder(tmp_path / "smpl", "female", regressor=False)
    if contents is None:
        np.save(folder / name, np.zeros((17, 10)))
    else:
        (folder / name).write_bytes(contents)
    root = write_emdb(tmp_path / "emdb", emdb(2))
    error = refused(["--dataset", "emdb", str(root), "--smpl", str(folder)], capsys)
    assert why in error
