"""The lifter's recipe: recordings are read the right way round, and training trains."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pipeline.body.load import load_body
from pipeline.core.skeleton import JOINT_NAMES
from pipeline.fitting.lifter import Lifter
from tools.train_lifter import motions, people, train

REST = load_body().joint_template.numpy()
BVH_JOINTS = {
    "hip": (None, (0, 0, 0)), "abdomen": ("hip", (0, 20, 0)), "chest": ("abdomen", (0, 12, 0)),
    "neck": ("chest", (0, 22, 0)), "head": ("neck", (0, 7, 0)),
    "lCollar": ("chest", (3, 19, 0)), "lShldr": ("lCollar", (9, 0, 0)),
    "lForeArm": ("lShldr", (28, 0, 0)), "lHand": ("lForeArm", (22, 0, 0)),
    "rCollar": ("chest", (-3, 19, 0)), "rShldr": ("rCollar", (-9, 0, 0)),
    "rForeArm": ("rShldr", (-28, 0, 0)), "rHand": ("rForeArm", (-22, 0, 0)),
    "lThigh": ("hip", (9, 0, 0)), "lShin": ("lThigh", (0, -37, 0)),
    "lFoot": ("lShin", (0, -45, 0)),
    "rThigh": ("hip", (-9, 0, 0)), "rShin": ("rThigh", (0, -37, 0)),
    "rFoot": ("rShin", (0, -45, 0)),
}  # fmt: skip


def write_bvh(path: Path, angles: dict[str, tuple[float, float, float]], frames: int = 3) -> Path:
    """A standing figure in BVH with joints turned by (z, x, y) degrees."""
    lines, order = ["HIERARCHY"], []

    def joint(name: str) -> None:
        parent, offset = BVH_JOINTS[name]
        lines.append(f"{'JOINT' if parent else 'ROOT'} {name}\n{{")
        lines.append("OFFSET {} {} {}".format(*offset))
        places = "" if parent else "Xposition Yposition Zposition "
        count = 3 if parent else 6
        lines.append(f"CHANNELS {count} {places}Zrotation Xrotation Yrotation")
        order.append(name)
        children = [child for child, (above, _) in BVH_JOINTS.items() if above == name]
        for child in children:
            joint(child)
        if not children:
            lines.append("End Site\n{\nOFFSET 0 0 1\n}")
        lines.append("}")

    joint("hip")
    row = " ".join(
        ("0 0 0 " if name == "hip" else "") + "{} {} {}".format(*angles.get(name, (0, 0, 0)))
        for name in order
    )
    lines += ["MOTION", f"Frames: {frames}", "Frame Time: 0.0083333", *[row] * frames]
    path.write_text("\n".join(lines))
    return path


def world_of(local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World rotations and joint places of one frame's local rotations (22, 3, 3)."""
    from pipeline.core.skeleton import PARENTS

    world, place = [local[0]], [REST[0]]
    for joint in range(1, 22):
        parent = PARENTS[joint]
        world.append(world[parent] @ local[joint])
        place.append(place[parent] + world[parent] @ (REST[joint] - REST[parent]))
    return np.array(world), np.array(place)


def test_a_bent_elbow_comes_out_bent_on_its_side(tmp_path):
    path = write_bvh(tmp_path / "a.bvh", {"lForeArm": (0, 0, -90)})
    local, rate = motions.read_bvh(path, REST)
    assert local.shape == (3, 22, 3, 3)
    assert rate == pytest.approx(120, rel=1e-3)
    _, place = world_of(local[0])
    at = {name: place[joint] for joint, name in enumerate(JOINT_NAMES[:22])}
    left = at["left_wrist"] - at["left_elbow"]
    assert left[2] / np.linalg.norm(left) > 0.99  # forwards
    right = at["right_wrist"] - at["right_elbow"]
    assert right[0] / np.linalg.norm(right) < -0.99  # still out along the arm
    thigh = at["left_knee"] - at["left_hip"]
    assert thigh[1] / np.linalg.norm(thigh) < -0.99


def test_another_skeleton_is_named(tmp_path):
    path = write_bvh(tmp_path / "a.bvh", {})
    path.write_text(path.read_text().replace("lShldr", "lUpperArm"))
    with pytest.raises(ValueError, match="lShldr"):
        motions.read_bvh(path, REST)


@pytest.mark.parametrize("seed", range(3))
def test_limbs_point_as_recorded_whatever_the_rest_pose(seed):
    draw = np.random.default_rng(seed)
    turned = {"pelvis": np.eye(3)[None], "left_knee": Rotation.random(rng=draw).as_matrix()[None]}
    direction = draw.normal(size=3)
    local = motions.to_smpl(turned, {"left_knee": direction}, REST)
    _, place = world_of(local[0])
    shin = place[JOINT_NAMES.index("left_ankle")] - place[JOINT_NAMES.index("left_knee")]
    wanted = turned["left_knee"][0] @ direction
    assert shin @ wanted / np.linalg.norm(shin) / np.linalg.norm(wanted) == pytest.approx(1)


def test_exponential_maps_at_rest_stand_with_arms_out(tmp_path):
    np.savetxt(tmp_path / "a.txt", np.zeros((2, 117)), delimiter=",")
    local, _ = motions.read_maps(tmp_path / "a.txt", REST)
    _, place = world_of(local[0])
    left, right = (place[JOINT_NAMES.index(f"{side}_wrist")] for side in ("left", "right"))
    assert left[0] > 0.4
    assert right[0] < -0.4
    assert place[JOINT_NAMES.index("left_ankle")][1] < -0.6


def some_motions() -> people.Motions:
    draw = np.random.default_rng(0)
    poses = np.cumsum(0.02 * draw.normal(size=(120, 22, 3)), 0).astype(np.float16)
    lengths = np.array([70, 50])
    return people.Motions(poses, np.array([0, 70]), lengths, np.array([0.5, 0.5]))


@pytest.mark.parametrize("seed", range(4))
def test_made_up_motion_has_as_many_finite_frames_as_asked(seed):
    draw = np.random.default_rng(seed)
    poses = people.moving(some_motions(), draw, 40)
    assert poses.shape == (40, 22, 3)
    assert np.isfinite(poses).all()
    turned, lens, place = people.before_camera(poses, draw)
    assert (place[:, 2] > 1).all()
    assert lens[0, 0] > 300
    assert turned.shape == poses.shape


def test_training_lowers_the_error_and_writes_what_the_app_reads(tmp_path):
    draw = np.random.default_rng(1)
    count, frames = 24, 20
    truth = 0.3 * draw.normal(size=(count, 1, 33, 3)) + [0, 0, 4.0]
    truth = np.repeat(truth, frames, 1)
    hips = truth[:, :, 23:25].mean(2, keepdims=True)
    np.savez(
        tmp_path / "pairs.npz",
        px=500 * truth[..., :2] / truth[..., 2:] + 200,
        vis=np.ones((count, frames, 33)),
        # Everything seems to lie at half its depth: easy to learn.
        world=(truth - hips) * [1, 1, 0.5],
        seen=np.ones((count, frames), bool),
        truth=truth,
        K=np.tile([[500.0, 0, 200], [0, 500, 200], [0, 0, 1]], (count, 1, 1)),
    )
    pairs = train.Pairs.load(tmp_path, "cpu")
    ticks = itertools.count()
    network = train.train(pairs, some_motions(), 160, 16, "cpu", lambda: next(ticks))
    ours, theirs = train.held_out_mm(network, pairs)
    assert ours < 0.95 * theirs
    weights = {k: v.half().numpy() for k, v in network.state_dict().items()}
    np.savez(tmp_path / "lifter.npz", **weights)
    assert Lifter.load(path=tmp_path / "lifter.npz").layers == 3
    assert torch.isfinite(Lifter.load(path=tmp_path / "lifter.npz").weights["pos"]).all()
