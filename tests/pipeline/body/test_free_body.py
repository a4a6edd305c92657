"""The shipped free body: its figures, its rest pose, its landmarks."""

import numpy as np
import pytest
import torch

from pipeline.body.load import FREE_BODY, load_body
from pipeline.core.skeleton import JOINT_NAMES, LANDMARK_NAMES

FREE = load_body()
LEFT_RIGHT = [
    (names.index(name), names.index(name.replace("left", "right")))
    for names in (JOINT_NAMES,)
    for name in names
    if "left" in name
]


def stature_m(betas: torch.Tensor) -> float:
    vertices = FREE.v_template + FREE.shapedirs @ betas
    return float(vertices[:, 1].max() - vertices[:, 1].min())


def test_regressors_and_weights_are_averages() -> None:
    for matrix in (FREE.joint_regressor, FREE.landmark_regressor, FREE.weights):
        torch.testing.assert_close(matrix.sum(1), torch.ones(len(matrix)), atol=1e-5, rtol=0)
    assert FREE.joint_regressor.min() >= 0
    assert FREE.weights.min() >= 0
    assert (FREE.weights > 0).sum(1).max() <= 4
    assert (FREE.weights.sum(0) > 1).all(), "every joint moves something"


def test_the_mesh_is_closed_and_faces_outward() -> None:
    faces = FREE.faces
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)
    assert {tuple(e) for e in edges} == {tuple(e) for e in edges[:, ::-1]}
    assert set(faces.ravel()) == set(range(len(FREE.v_template)))
    corners = FREE.v_template.numpy()[faces]
    volume_l = np.linalg.det(corners).sum() / 6 * 1000
    assert 50 < volume_l < 85


def test_size_for_live_drawing() -> None:
    assert 6000 <= len(FREE.v_template) <= 8000
    assert 12000 <= len(FREE.faces) <= 16000
    assert FREE_BODY.stat().st_size < 1_500_000


def test_left_mirrors_right() -> None:
    places = FREE.joint_template
    for left, right in LEFT_RIGHT:
        mirrored = places[right] * torch.tensor([-1.0, 1.0, 1.0])
        torch.testing.assert_close(places[left], mirrored, atol=1e-4, rtol=0)
        assert places[left, 0] > 0.02
    landmarks = FREE.landmark_regressor @ FREE.v_template
    for name in LANDMARK_NAMES:
        if "left" in name:
            left = landmarks[LANDMARK_NAMES.index(name)]
            right = landmarks[LANDMARK_NAMES.index(name.replace("left", "right"))]
            mirrored = right * torch.tensor([-1.0, 1.0, 1.0])
            torch.testing.assert_close(left, mirrored, atol=1e-4, rtol=0)


def test_rest_pose_is_smpl_s() -> None:
    place = {name: FREE.joint_template[i].numpy() for i, name in enumerate(JOINT_NAMES)}
    assert np.abs(place["pelvis"]).max() < 0.02, "the origin is the mean pelvis"
    for start, end in (("shoulder", "elbow"), ("elbow", "wrist")):
        bone = place[f"left_{end}"] - place[f"left_{start}"]
        assert bone[0] / np.linalg.norm(bone) > 0.98, "arms straight out along +x"
    for start, end in (("hip", "knee"), ("knee", "ankle")):
        bone = place[f"left_{end}"] - place[f"left_{start}"]
        assert bone[1] / np.linalg.norm(bone) < -0.98, "legs straight down"
    assert place["left_foot"][2] > place["left_ankle"][2] + 0.08, "toes ahead, along +z"
    heights = [place[name][1] for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head")]
    assert heights == sorted(heights)


def test_landmarks_lie_where_they_should() -> None:
    marks = dict(zip(LANDMARK_NAMES, (FREE.landmark_regressor @ FREE.v_template).numpy()))
    place = dict(zip(JOINT_NAMES, FREE.joint_template.numpy()))
    for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        apart = np.linalg.norm(marks[f"left_{name}"] - place[f"left_{name}"])
        assert apart < (0.01 if name in ("elbow", "knee") else 0.04), (name, apart)
    assert 0.01 < marks["left_hip"][1] - place["left_hip"][1] < 0.04, "hips are marked higher"
    assert marks["nose"][2] == max(mark[2] for mark in marks.values() if mark[1] > 0.4)
    eye, ear = marks["left_eye"], marks["left_ear"]
    assert marks["left_eye_inner"][0] < eye[0] < marks["left_eye_outer"][0] < ear[0]
    assert ear[2] < eye[2] - 0.05
    assert marks["mouth_left"][1] < marks["nose"][1] < eye[1]
    floor = FREE.v_template[:, 1].min()
    assert marks["left_heel"][1] - floor < 0.06
    assert marks["left_foot_index"][1] - floor < 0.04
    assert marks["left_heel"][2] < place["left_ankle"][2] < marks["left_foot_index"][2] - 0.1


@pytest.mark.parametrize(
    "name", ["shoulder", "elbow", "wrist", "hip", "knee", "ankle"], ids=lambda n: n
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_landmarks_stay_put_when_their_joint_bends(name: str, axis: int) -> None:
    pose = torch.zeros(2, 69)
    joint = JOINT_NAMES.index(f"left_{name}")
    pose[1, 3 * (joint - 1) + axis] = 1.5
    out = FREE.forward(torch.zeros(2, 10), torch.zeros(2, 3), pose, torch.zeros(2, 3))
    straight, bent = out.landmarks_m[:, LANDMARK_NAMES.index(f"left_{name}")]
    assert (bent - straight).norm() < 0.006
    assert (out.vertices_m[1] - out.vertices_m[0]).norm(dim=-1).max() > 0.05


def test_an_average_adult_and_betas_that_move_stature() -> None:
    zero = torch.zeros(10)
    assert 1.6 < stature_m(zero) < 1.8
    first = torch.eye(10)[0]
    assert stature_m(first) - stature_m(zero) > 0.08
    assert stature_m(zero) - stature_m(-first) > 0.08
    others = [abs(stature_m(row) - stature_m(zero)) for row in torch.eye(10)[1:]]
    assert max(others) < 0.06
    assert stature_m(-4 * first) > 0.8, "a child of four deviations is still a child"


def test_shape_components_are_orthogonal_and_symmetric() -> None:
    flat = FREE.shapedirs.reshape(-1, 10).double()
    gram = flat.T @ flat
    scale = gram.diagonal().sqrt()
    off = gram / scale[:, None] / scale[None] - torch.eye(10)
    assert off.abs().max() < 5e-3
    assert (scale[:-1] >= scale[1:]).all()


def test_loading_twice_gives_the_same() -> None:
    again = load_body(str(FREE_BODY))
    assert torch.equal(again.v_template, FREE.v_template)
    assert again.name == "free"
    assert again.gender == "neutral"
