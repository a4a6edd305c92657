"""Answers are judged by what was drawn: right ones pass, and each fault fails its own line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app import cli
from app.check import pictures
from app.check.pictures import POINTS, draw_people
from app.check.sam3d import Answers, judge
from pipeline.core.skeleton import MHR_70
from pipeline.sam3d.config import CONFIGS
from pipeline.sam3d.model import Sam3dBody
from pipeline.sam3d.people import MhrPeople
from tests.pipeline.sam3d.golden_rule import TINY, SyntheticRig, fill, rig_tensors
from tests.support.sam3d_release import upright_network, write_release

SIDE, VERTICES = 512, 50
LIMBS = MHR_70.indices(*POINTS)


@pytest.fixture(scope="module")
def drawn():
    return draw_people()


@pytest.fixture
def right(drawn):
    """Answers as a good network gives them: joints are off by a few pixels."""
    rng = np.random.default_rng(0)
    count = len(drawn)
    pixels = np.stack([np.tile(person.points_px.mean(axis=0), (70, 1)) for person in drawn])
    pixels[:, LIMBS] = [person.points_px for person in drawn]
    pixels += rng.normal(scale=3, size=pixels.shape)
    vertices = rng.uniform(-0.3, 0.3, (count, VERTICES, 3))
    vertices[..., 1] = np.linspace(0, 1.7, VERTICES)
    shapes = {
        "pose": (519,), "camera": (3,), "parameters": (204,), "shape": (45,), "scale": (28,),
        "hands": (108,), "joint_rotations": (24, 3, 3), "surface_m": (0, 3),
    }  # fmt: skip
    zeros = {name: np.zeros((count, *shape), np.float32) for name, shape in shapes.items()}
    depths = np.array([[0, 0, 1.1 * person.depth_m] for person in drawn])
    people = MhrPeople(
        **zeros,
        translation_m=depths.astype(np.float32),
        keypoints_m=np.zeros((count, 70, 3), np.float32),
        keypoints_px=pixels.astype(np.float32),
    )
    return Answers(people, vertices.astype(np.float32), 1.0)


def wrong(drawn, whole, half):
    findings = list(judge(drawn, whole, half, SIDE))
    return [finding.name for finding in findings if not finding.right]


def with_people(answers, **arrays):
    return replace(answers, people=replace(answers.people, **arrays))


def test_right_answers_are_plausible(drawn, right):
    findings = list(judge(drawn, right, right, SIDE))
    assert [finding.name for finding in findings] == [
        "finite", "keypoints", "joints", "height", "depth", "half precision",
    ]  # fmt: skip
    assert all(finding.right for finding in findings)


def test_numbers_that_are_not_finite_end_the_check(drawn, right):
    vertices = right.vertices_m.copy()
    vertices[1, 3, 0] = np.nan
    for whole, half in (
        (right, replace(right, vertices_m=vertices)),
        (with_people(right, camera=np.full((4, 3), np.inf, np.float32)), right),
    ):
        assert [f.right for f in judge(drawn, whole, half, SIDE)] == [False]


def test_one_person_with_points_outside_the_crop_is_enough(drawn, right):
    others = [k for k in range(70) if k not in LIMBS]
    pixels = right.people.keypoints_px.copy()
    pixels[2, others[:8]] = 1e4
    bad = with_people(right, keypoints_px=pixels)
    assert wrong(drawn, bad, bad) == ["keypoints"]


def test_bodies_beside_the_drawn_ones(drawn, right):
    pixels = right.people.keypoints_px.copy()
    pixels[3] += 0.1 * drawn[3].height_px
    bad = with_people(right, keypoints_px=pixels)
    assert "joints" in wrong(drawn, bad, bad)
    # Left and right exchanged, as after a mirrored crop.
    bad = with_people(right, keypoints_px=right.people.keypoints_px[:, MHR_70.mirror])
    assert wrong(drawn, bad, bad) == ["joints"]


@pytest.mark.parametrize("times", [0.01, 0.7, 1.4, 100])
def test_sizes_that_no_person_has(drawn, right, times):
    bad = replace(right, vertices_m=right.vertices_m * np.float32(times))
    assert wrong(drawn, bad, bad) == ["height"]


@pytest.mark.parametrize("times", [-1, 0.6, 1.2])
def test_bodies_too_near_or_too_far(drawn, right, times):
    bad = with_people(right, translation_m=right.people.translation_m * np.float32(times))
    assert wrong(drawn, bad, bad) == ["depth"]


def test_half_precision_that_moves_a_body(drawn, right):
    moved = right.vertices_m.copy()
    moved[0] += 0.002
    assert wrong(drawn, right, replace(right, vertices_m=moved)) == ["half precision"]
    pixels = right.people.keypoints_px.copy()
    pixels[0] += 2
    assert wrong(drawn, right, with_people(right, keypoints_px=pixels)) == ["half precision"]
    pixels = right.people.keypoints_px + 0.5
    assert wrong(drawn, right, with_people(right, keypoints_px=pixels)) == []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a release in an empty cache of model files."""
    monkeypatch.setitem(CONFIGS, "dinov3", TINY)
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path))
    (tmp_path / "sam3d-dinov3").mkdir()
    return tmp_path / "sam3d-dinov3"


@pytest.fixture
def release(folder):
    """A release of random weights."""
    network = Sam3dBody(TINY)
    fill(network)
    rig = rig_tensors(SyntheticRig(seed=0, hidden=8))
    return write_release(folder, network.state_dict(), rig)


def checked(capsys):
    """The exit code, the lines by name, and all that was printed."""
    code = cli.main(["weights", "check", "sam3d-dinov3", "--device", "cpu"])
    out, err = capsys.readouterr()
    return code, {line[8:].split("  ")[0]: line[:8].strip() for line in out.splitlines()}, out, err


def test_random_weights_are_not_plausible(release, capsys):
    code, states, out, err = checked(capsys)
    assert code == 1
    assert states["files"] == states["finite"] == states["half precision"] == "ok"
    assert states["joints"] == "WRONG"
    assert "4 people on the CPU" in out
    assert out.splitlines()[0] == str(release / "model.ckpt")
    assert out.splitlines()[-1].endswith(" not plausible")
    assert "minutes" in err


def test_a_network_that_sees_the_drawn_people_is_plausible(folder, monkeypatch, capsys):
    """It answers an upright body with its arms out to any picture."""
    write_release(folder, *upright_network())
    arms_out = pictures._Scene(0, 0, 4.6, {})
    monkeypatch.setattr(pictures, "_SCENES", (arms_out,) * 4)
    code, states, out, _ = checked(capsys)
    assert (code, out.splitlines()[-1]) == (0, "its bodies are plausible")
    assert "WRONG" not in states.values()


def test_a_network_that_answers_one_body_to_every_picture_is_not(folder, capsys):
    write_release(folder, *upright_network())
    code, states, _, _ = checked(capsys)
    assert code == 1
    assert [name for name, state in states.items() if state == "WRONG"] == ["joints"]


def test_what_is_not_a_release_is_one_line(release, capsys, tmp_path):
    for words, says in (
        (["sam3d-vith"], "weights fetch sam3d-vith"),
        ([str(tmp_path)], "model.ckpt is missing"),
    ):
        assert cli.main(["weights", "check", *words]) == 1
        err = capsys.readouterr().err
        assert says in err
        assert err.count("\n") == 1
    checkpoint = release / "model.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    assert cli.main(["weights", "check", "sam3d-dinov3", "--device", "cpu"]) == 1
    assert "model.ckpt" in capsys.readouterr().err.splitlines()[-1]
