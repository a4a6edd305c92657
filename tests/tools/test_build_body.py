"""The pieces that make the free body: rig, rest pose, regressors, lighter meshes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.body.load import load_body
from pipeline.body.smpl_landmarks import smpl_landmark_regressor
from pipeline.core.skeleton import JOINT_NAMES, LANDMARK_NAMES
from tools.build_body.makehuman import landmark_parts, makehuman_joints, makehuman_landmarks
from tools.build_body.regress import fit_rows
from tools.build_body.rest import Rig, put_at_rest, rest_rotations
from tools.build_body.simplify import (
    boundary_loops,
    close_loop,
    count_views,
    largest_piece,
    simplify,
)
from tools.build_body.skinning import four_largest, smpl_weights


def stick_rig() -> tuple[Rig, np.ndarray]:
    """A rig with MakeHuman's bone names in a stance like MakeHuman's, and its heads (B, 3)."""
    middle = {
        "root": (None, (0, 0.16, -0.07)),
        "spine05": ("root", (0, 0.17, 0.01)),
        "spine04": ("spine05", (0, 0.25, -0.03)),
        "spine03": ("spine04", (0, 0.33, -0.01)),
        "spine02": ("spine03", (0, 0.41, -0.01)),
        "spine01": ("spine02", (0, 0.56, -0.02)),
        "neck01": ("spine01", (0, 0.75, 0.01)),
        "neck02": ("neck01", (0, 0.79, 0.02)),
        "head": ("neck02", (0, 0.86, 0.04)),
    }
    left = {
        "upperleg01": ("root", (0.11, 0.16, 0.0)),
        "lowerleg01": ("upperleg01", (0.15, -0.29, 0.04)),
        "foot": ("lowerleg01", (0.2, -0.74, 0.01)),
        "clavicle": ("spine01", (0.02, 0.68, 0.03)),
        "shoulder01": ("clavicle", (0.11, 0.69, 0.03)),
        "upperarm01": ("shoulder01", (0.19, 0.65, 0.02)),
        "lowerarm01": ("upperarm01", (0.38, 0.44, 0.03)),
        "lowerarm02": ("lowerarm01", (0.44, 0.37, 0.11)),
        "wrist": ("lowerarm02", (0.51, 0.3, 0.2)),
        "finger1-1": ("wrist", (0.51, 0.29, 0.25)),
        "finger1-2": ("finger1-1", (0.49, 0.28, 0.28)),
        "finger2-1": ("wrist", (0.54, 0.26, 0.31)),
        "finger3-1": ("wrist", (0.56, 0.24, 0.29)),
        "finger4-1": ("wrist", (0.57, 0.235, 0.27)),
        "finger5-1": ("wrist", (0.57, 0.22, 0.25)),
    }
    left |= {f"toe{n}-1": ("foot", (0.15 + 0.02 * n, -0.79, 0.165)) for n in range(1, 6)}
    left |= {f"toe{n}-2": (f"toe{n}-1", (0.15 + 0.02 * n, -0.795, 0.19)) for n in (1, 2)}
    bones = {name: (parent, place) for name, (parent, place) in middle.items()}
    for side, sign in (("L", 1), ("R", -1)):
        for name, (parent, (x, y, z)) in left.items():
            above = parent if parent in middle else f"{parent}.{side}"
            bones[f"{name}.{side}"] = (above, (sign * x, y, z))
    names = tuple(bones)
    parents = tuple(-1 if above is None else names.index(above) for above, _ in bones.values())
    heads = np.array([place for _, place in bones.values()], dtype=float)
    return Rig(names, parents, np.eye(len(names))), heads


RIG, HEADS = stick_rig()


def test_rest_is_a_t_with_bones_as_long_as_before() -> None:
    vertices, heads = put_at_rest(HEADS[None], HEADS[None], RIG)
    np.testing.assert_allclose(vertices, heads, atol=1e-12)
    for number, parent in enumerate(RIG.parents):
        if parent >= 0:
            now = np.linalg.norm(heads[0, number] - heads[0, parent])
            before = np.linalg.norm(HEADS[number] - HEADS[parent])
            assert now == pytest.approx(before)
    joints = dict(zip(JOINT_NAMES, makehuman_joints(heads[0], RIG.names)))
    np.testing.assert_allclose(joints["pelvis"], 0, atol=1e-12)
    for side, sign in (("left", 1), ("right", -1)):
        arm = joints[f"{side}_wrist"] - joints[f"{side}_shoulder"]
        assert sign * arm[0] > 0.99 * np.linalg.norm(arm)
        leg = joints[f"{side}_ankle"] - joints[f"{side}_hip"]
        assert -leg[1] > 0.99 * np.linalg.norm(leg)
        fingers = [heads[0, RIG.index[f"finger{n}-1.{side[0].upper()}"]] for n in (2, 5)]
        assert fingers[0][2] > fingers[1][2] + 0.04, "palms down: the index finger is ahead"
        assert abs(fingers[0][1] - fingers[1][1]) < 0.03


def test_rest_does_not_depend_on_where_the_body_stands() -> None:
    moved = HEADS + [0.3, -1.0, 0.2]
    here = put_at_rest(HEADS[None], HEADS[None], RIG)[1]
    there = put_at_rest(moved[None], moved[None], RIG)[1]
    np.testing.assert_allclose(here, there, atol=1e-12)
    rotations = rest_rotations(HEADS[None], RIG)[0]
    identity = np.tile(np.eye(3), (len(HEADS), 1, 1))
    np.testing.assert_allclose(rotations @ rotations.swapaxes(1, 2), identity, atol=1e-12)


def test_rest_mirrors_left_and_right() -> None:
    _, heads = put_at_rest(HEADS[None], HEADS[None], RIG)
    for name, place in zip(RIG.names, heads[0]):
        if name.endswith(".L"):
            other = heads[0, RIG.index[name[:-1] + "R"]]
            np.testing.assert_allclose(place * [-1, 1, 1], other, atol=1e-12, err_msg=name)


def test_landmark_shares_are_complete_and_mirror() -> None:
    for name in LANDMARK_NAMES:
        bones, skin = landmark_parts(name)
        assert sum(bones.values()) + sum(skin.values()) == pytest.approx(1), name
        if "left" in name:
            others = landmark_parts(name.replace("left", "right"))[0]
            swap = {".L": ".R", ".R": ".L"}
            mirrored = {bone[:-2] + swap.get(bone[-2:], bone[-2:]): n for bone, n in bones.items()}
            assert mirrored == others, name
    with pytest.raises(KeyError):
        landmark_parts("left_tail")


def test_landmarks_move_with_the_body() -> None:
    numbers = sorted({n for name in LANDMARK_NAMES for n in landmark_parts(name)[1]})
    random = np.random.default_rng(0)
    skin = random.normal(size=(len(numbers), 3))
    first = makehuman_landmarks(skin, np.array(numbers), HEADS, RIG.names)
    assert first.shape == (33, 3)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    batch = np.stack([skin, skin @ turn + 1.0])
    second = makehuman_landmarks(
        batch, np.array(numbers), np.stack([HEADS, HEADS @ turn + 1.0]), RIG.names
    )
    np.testing.assert_allclose(second[0], first, atol=1e-12)
    np.testing.assert_allclose(second[1], first @ turn + 1.0, atol=1e-12)


def test_missing_bones_and_vertices_are_named() -> None:
    with pytest.raises(ValueError, match="spine03"):
        makehuman_joints(HEADS[:3], RIG.names[:3])
    with pytest.raises(ValueError, match="5054"):
        makehuman_landmarks(np.zeros((1, 3)), np.array([7]), HEADS, RIG.names)


def test_bone_weights_reach_their_joints() -> None:
    _, (heads,) = put_at_rest(HEADS[None], HEADS[None], RIG)
    joints = makehuman_joints(heads, RIG.names)
    weights = smpl_weights(RIG, heads, joints)
    expected = {"lowerleg01.L": "left_knee", "wrist.R": "right_wrist", "head": "head",
                "finger3-1.L": "left_hand", "toe1-1.R": "right_foot", "root": "pelvis",
                "upperarm01.R": "right_shoulder", "clavicle.L": "left_collar"}  # fmt: skip
    for bone, joint in expected.items():
        row = weights[RIG.index[bone]]
        assert JOINT_NAMES[row.argmax()] == joint, (bone, JOINT_NAMES[row.argmax()])


@given(st.integers(0, 2**31))
def test_four_largest_weights_are_exact_in_half_precision(seed: int) -> None:
    weights = np.random.default_rng(seed).random((20, 24)) ** 6
    kept = four_largest(weights)
    assert (kept.astype(np.float16).astype(np.float64) == kept).all()
    assert (kept.sum(axis=1) == 1).all()
    assert (kept >= 0).all()
    assert ((kept > 0).sum(axis=1) <= 4).all()
    most = np.take_along_axis(kept, weights.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert (most >= kept.max(axis=1) - 2 / 1024).all()


# --- meshes -----------------------------------------------------------------------------------


def sphere(rings: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A closed ball of radius 1 with outward triangles."""
    columns = 2 * rings
    polar = np.pi * np.arange(1, rings) / rings
    around = 2 * np.pi * np.arange(columns) / columns
    ring = np.stack(
        [
            np.outer(np.sin(polar), np.cos(around)),
            np.outer(np.cos(polar), np.ones(columns)),
            -np.outer(np.sin(polar), np.sin(around)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    points = np.concatenate([ring, [[0, 1, 0], [0, -1, 0]]])
    top, bottom = len(ring), len(ring) + 1
    faces = []
    for c in range(columns):
        d = (c + 1) % columns
        faces.append((top, c, d))
        faces.append((bottom, (rings - 2) * columns + d, (rings - 2) * columns + c))
        for r in range(rings - 2):
            a, b = r * columns + c, r * columns + d
            faces += [(a, a + columns, b), (b, a + columns, b + columns)]
    return points, np.array(faces)


def volume(points: np.ndarray, faces: np.ndarray) -> float:
    return float(np.linalg.det(points[faces]).sum() / 6)


def closed(faces: np.ndarray) -> bool:
    edges = [(a, b) for f in faces.tolist() for a, b in zip(f, f[1:] + f[:1])]
    return len(set(edges)) == len(edges) and set(edges) == {(b, a) for a, b in edges}


def test_simplified_ball_is_still_that_ball() -> None:
    points, faces = sphere()
    fixed = np.array([3, 500])
    left = simplify(
        points[None], faces, 300, np.ones(len(points)), np.ones((len(points), 1)), fixed
    )
    assert len(np.unique(left)) == 300
    assert len(left) == 2 * 300 - 4
    assert closed(left)
    assert set(fixed) <= set(left.ravel())
    assert volume(points, left) == pytest.approx(volume(points, faces), rel=0.03)


def test_open_edges_stay_where_they_are() -> None:
    points, faces = sphere()
    half = faces[(points[faces, 0] > -1e-9).all(axis=1)]
    rim = {v for loop in boundary_loops(half) for v in loop}
    even = np.ones(len(points))
    left = simplify(points[None], half, 200, even, even[:, None], np.array([], dtype=int))
    loops = boundary_loops(left)
    assert len(loops) == 1
    assert set(loops[0]) <= rim
    assert np.abs(points[loops[0], 0]).max() < 1e-9


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 500), st.floats(0.2, 0.8))
def test_a_hole_is_found_and_closed(centre: int, radius: float) -> None:
    points, faces = sphere(16)
    near = np.linalg.norm(points - points[centre % len(points)], axis=1) < radius
    cut = faces[~near[faces].any(axis=1)]
    assert not closed(cut)
    (loop,) = boundary_loops(cut)
    assert closed(np.concatenate([cut, close_loop(points, loop, cut)]))


def test_views_see_the_outside_only() -> None:
    points, faces = sphere()
    both = np.concatenate([points, 0.5 * points])
    seen = count_views(both, np.concatenate([faces, faces + len(points)]), views=40, size=300)
    assert (seen[: len(points)] > 0).all()
    assert (seen[len(points) :] == 0).all()


def test_largest_piece() -> None:
    _, faces = sphere(8)
    _, other = sphere(12)
    both = np.concatenate([faces, other + faces.max() + 1])
    np.testing.assert_array_equal(largest_piece(both), other + faces.max() + 1)


def test_regressed_points_are_right_in_every_shape_and_hold_still_at_hinges() -> None:
    points, _ = sphere(16)
    random = np.random.default_rng(1)
    sizes = np.concatenate([[[1, 1, 1]], random.uniform(0.7, 1.3, (8, 3))])
    shapes = 0.1 * points * sizes[:, None] + [0.3, 0, 0]
    places = np.tile([0.3, 0.01, 0.0], (9, 1)) * np.concatenate(
        [np.ones((9, 1)), sizes[:, 1:2], np.ones((9, 1))], axis=1
    )
    joint = np.array([0.3, 0.0, 0.0])
    moving = np.clip(0.5 + 8 * (shapes[0, :, 0] - 0.3), 0, 1)
    twice = np.stack([places, places * [-1, 1, 1]], axis=1)
    names = ("left_knee", "right_knee")
    (row, other) = fit_rows(
        names, shapes, twice, np.arange(len(points)), {"left_knee": (joint, moving)}
    )
    assert row.min() >= 0
    assert row.sum() == pytest.approx(1)
    np.testing.assert_array_equal(row, other)
    np.testing.assert_allclose(np.einsum("v,svc->sc", row, shapes), places, atol=2e-3)
    np.testing.assert_allclose((row * moving) @ (shapes[0] - joint), 0, atol=5e-4)


def test_smpl_landmarks_keep_left_and_right_apart() -> None:
    regressor = np.zeros((24, 6890))
    regressor[np.arange(24), np.arange(24)] = 1.0
    rows = smpl_landmark_regressor(regressor)
    np.testing.assert_allclose(rows.sum(axis=1), 1)
    free = load_body()
    x = np.zeros(6890)
    x[:24] = free.joint_template[:, 0]
    lateral_m = np.array([0.03, 0.07, 0.1, 0.15, 0.1, 0.73, 0.83, 0.8])
    x[[2800, 583, 3216, 3226, 3387, 2746, 2319, 2673]] = lateral_m
    x[[6260, 4071, 6617, 6624, 6787, 6191, 5782, 6133]] = -lateral_m
    wanted = (free.landmark_regressor @ free.v_template)[:, 0].numpy()
    np.testing.assert_allclose(rows @ x, wanted, atol=0.06)
