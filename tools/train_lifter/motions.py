"""Convert motion capture to SMPL's joints.

    python -m tools.train_lifter.motions FOLDER OUT.npz

It reads every ``.bvh`` (the DAZ-friendly skeleton), every ``.amc`` with the ``.asf`` beside it, and
every ``.txt`` of exponential maps of CMU's 38-joint skeleton below FOLDER. All give each joint's
world rotation relative to a rest pose that stands with its arms out and faces +z. Differences of
the rest poses, such as legs apart or bent arms, are removed by the smallest rotation between the
limbs' rest directions. It writes ``poses`` (N, 22, 3), float16 rotation vectors of SMPL's joints at
30 Hz, ``lengths`` and ``names``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.body.load import load_body
from pipeline.core.skeleton import JOINT_NAMES, PARENTS

LIMBS = {"hip": (1, 4), "knee": (4, 7), "ankle": (7, 10), "shoulder": (16, 18), "elbow": (18, 20),
         "collar": (13, 16)}  # fmt: skip
"""A limb's joints on the left: its upper and its lower end."""
RATE_HZ = 30
CMU_HZ = 120

_BVH = {"pelvis": "hip", "spine1": "abdomen", "spine2": "abdomen", "spine3": "chest",
        "neck": "neck", "head": "head"}  # fmt: skip
_BVH_SIDE = {"collar": "Collar", "shoulder": "Shldr", "elbow": "ForeArm", "wrist": "Hand",
             "hip": "Thigh", "knee": "Shin", "ankle": "Foot", "foot": "Foot"}  # fmt: skip
_ASF = {"pelvis": "root", "spine1": "lowerback", "spine2": "upperback", "spine3": "thorax",
        "neck": "lowerneck", "head": "head"}  # fmt: skip
_ASF_SIDE = {"collar": "clavicle", "shoulder": "humerus", "elbow": "radius", "wrist": "hand",
             "hip": "femur", "knee": "tibia", "ankle": "foot", "foot": "toes"}  # fmt: skip
_MAPS = {"pelvis": 0, "spine1": 13, "spine2": 14, "spine3": 15, "neck": 16, "head": 18}
_MAPS_SIDE = {"hip": 2, "knee": 3, "ankle": 4, "foot": 5, "collar": 20, "shoulder": 21,
              "elbow": 22, "wrist": 23}  # fmt: skip
_MAPS_PARENTS = (-1, 0, 1, 2, 3, 4, 5, 0, 7, 8, 9, 10, 11, 0, 13, 14, 15, 16, 17, 18, 15, 20, 21,
                 22, 23, 24, 25, 23, 27, 15, 29, 30, 31, 32, 33, 34, 32, 36)  # fmt: skip
_MAPS_LEG, _MAPS_FOOT = (0.342, -0.940, 0.0), (0.089, -0.244, 0.966)


def between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the smallest rotation (3, 3) that turns direction ``first`` (3,) into ``second``."""
    first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    axis = np.cross(first, second)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-8:
        return np.eye(3)
    turn = axis / sine * np.arctan2(sine, float(first @ second))
    return Rotation.from_rotvec(turn).as_matrix()


def to_smpl(
    turned: Mapping[str, np.ndarray], directions: Mapping[str, np.ndarray], rest: np.ndarray
) -> np.ndarray:
    """Return the local rotations (T, 22, 3, 3) of SMPL's joints.

    Args:
        turned: World rotations (T, 3, 3) by SMPL's joint names.
        directions: The limbs' directions (3,) at rest in the recording's skeleton.
        rest: SMPL's joints at rest (24, 3).
    """
    frames = len(turned["pelvis"])
    world = np.tile(np.eye(3), (frames, 22, 1, 1))
    for joint, name in enumerate(JOINT_NAMES[:22]):
        world[:, joint] = turned.get(name, world[:, PARENTS[joint]])
        if name in directions:
            top, end = (j + name.startswith("right") for j in LIMBS[name.split("_")[1]])
            world[:, joint] = world[:, joint] @ between(rest[end] - rest[top], directions[name])
    local = world.copy()
    for joint in range(1, 22):
        local[:, joint] = np.swapaxes(world[:, PARENTS[joint]], -1, -2) @ world[:, joint]
    return local


def read_bvh(path: Path, rest: np.ndarray) -> tuple[np.ndarray, float]:
    """Return local rotations (T, 22, 3, 3) and the rate in Hz. Raises ValueError for another
    skeleton."""
    head, motion = path.read_text(errors="replace").split("MOTION")
    names, parents, offsets, channels = _bvh_tree(head)
    lines = motion.strip().splitlines()
    values = np.array([[float(x) for x in line.split()] for line in lines[2:] if line.strip()])
    world: list[np.ndarray] = []
    column = 0
    for joint, kinds in enumerate(channels):
        turn = Rotation.identity(len(values))
        for kind in kinds:
            if kind.endswith("rotation"):
                angle = values[:, column : column + 1]
                turn = turn * Rotation.from_euler(kind[0].lower(), angle, degrees=True)
            column += 1
        local = turn.as_matrix()
        world.append(local if parents[joint] < 0 else world[parents[joint]] @ local)
    at = {name: number for number, name in enumerate(names)}
    wanted = dict(_BVH)
    for side in ("left", "right"):
        wanted |= {f"{side}_{joint}": side[0] + name for joint, name in _BVH_SIDE.items()}
    if missing := {name for name in wanted.values() if name not in at}:
        raise ValueError(f"{path}: no joints {sorted(missing)}")
    ends = {
        "hip": "Shin",
        "knee": "Foot",
        "shoulder": "ForeArm",
        "elbow": "Hand",
        "collar": "Shldr",
    }
    directions = {
        f"{side}_{joint}": np.array(offsets[at[side[0] + end]])
        for side in ("left", "right")
        for joint, end in ends.items()
    }
    turned = {joint: world[at[name]] for joint, name in wanted.items()}
    return to_smpl(turned, directions, rest), 1.0 / float(lines[1].split()[-1])


def _bvh_tree(head: str) -> tuple[list[str], list[int], list[list[float]], list[list[str]]]:
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[list[str]] = []
    open_: list[int] = []
    for words in (line.split() for line in head.splitlines() if line.strip()):
        if words[0] in ("ROOT", "JOINT", "End"):
            names.append(words[1] if words[0] != "End" else f"end of {names[-1]}")
            parents.append(open_[-1] if open_ else -1)
            offsets.append([])
            channels.append([])
        elif words[0] == "{":
            open_.append(len(names) - 1)
        elif words[0] == "}":
            open_.pop()
        elif words[0] == "OFFSET":
            offsets[-1] = [float(x) for x in words[1:4]]
        elif words[0] == "CHANNELS":
            channels[-1] = words[2:]
    return names, parents, offsets, channels


def read_amc(path: Path, rest: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the local rotations (T, 22, 3, 3) of an ``.amc`` with the skeleton of the ``.asf`` in
    its folder."""
    bones, parents = _read_asf(next(path.parent.glob("*.asf")))
    rows: dict[str, list[list[float]]] = {}
    for words in (line.split() for line in path.read_text().splitlines()):
        if len(words) > 1 and words[0][0].isalpha():
            rows.setdefault(words[0], []).append([float(x) for x in words[1:]])
    root = np.array(rows["root"])
    world = {"root": Rotation.from_euler("xyz", root[:, 3:6], degrees=True).as_matrix()}
    for name, (_, axis, freedoms) in bones.items():
        angles = np.zeros((len(root), 3))
        for column, freedom in enumerate(freedoms):
            angles[:, "xyz".index(freedom[1])] = np.array(rows[name])[:, column]
        turn = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        world[name] = world[parents[name]] @ axis @ turn @ axis.T
    turned = {joint: world[name] for joint, name in _ASF.items()}
    directions = {}
    for side in ("left", "right"):
        turned |= {f"{side}_{j}": world[side[0] + name] for j, name in _ASF_SIDE.items()}
        for joint in ("hip", "knee", "shoulder", "elbow", "ankle"):
            directions[f"{side}_{joint}"] = bones[side[0] + _ASF_SIDE[joint]][0]
    return to_smpl(turned, directions, rest), CMU_HZ


def _read_asf(path: Path) -> tuple[dict[str, tuple[np.ndarray, np.ndarray, list[str]]], dict]:
    """Return each bone's direction (3,), axes (3, 3) and degrees of freedom, and each bone's
    parent."""
    text = path.read_text()
    bones: dict[str, tuple[np.ndarray, np.ndarray, list[str]]] = {}
    for block in re.findall(r"begin(.*?)end", text, re.S):
        part = {w[0]: w[1:] for line in block.strip().splitlines() if (w := line.split())}
        if "name" in part:
            angles = [float(x) for x in part["axis"][:3]]
            bones[part["name"][0]] = (
                np.array([float(x) for x in part["direction"]]),
                Rotation.from_euler("xyz", angles, degrees=True).as_matrix(),
                part.get("dof", []),
            )
    parents: dict[str, str] = {}
    for line in text[text.index(":hierarchy") :].splitlines():
        words = line.split()
        if len(words) > 1 and words[0] not in ("begin", "end"):
            parents |= dict.fromkeys(words[1:], words[0])
    return bones, parents


def read_maps(path: Path, rest: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the local rotations (T, 22, 3, 3) of exponential maps (T, 3 + 38 * 3), which are for
    row vectors."""
    maps = np.loadtxt(path, delimiter=",")[:, 3:].reshape(-1, len(_MAPS_PARENTS), 3)
    world: list[np.ndarray] = []
    for joint, parent in enumerate(_MAPS_PARENTS):
        # Negative, because the maps are for row vectors.
        local = Rotation.from_rotvec(-maps[:, joint]).as_matrix()
        world.append(local if parent < 0 else world[parent] @ local)
    turned = {joint: world[number] for joint, number in _MAPS.items()}
    directions = {}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        for part, number in _MAPS_SIDE.items():
            right = (9 if number >= 20 else 6) if side == "right" else 0
            turned[f"{side}_{part}"] = world[number + right]
        across = np.array([sign, 1.0, 1.0])
        leg, foot = np.array(_MAPS_LEG) * across, np.array(_MAPS_FOOT) * across
        arm = np.array([sign, 0.0, 0.0])
        for limb, along in (("hip", leg), ("knee", leg), ("ankle", foot),
                             ("shoulder", arm), ("elbow", arm)):  # fmt: skip
            directions[f"{side}_{limb}"] = along
    return to_smpl(turned, directions, rest), CMU_HZ


def read_all(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every readable recording below a folder: its name, and poses (T, 22, 3) at
    `RATE_HZ`."""
    rest = load_body().joint_template.numpy()
    readers = {".bvh": read_bvh, ".amc": read_amc, ".txt": read_maps}
    for path in sorted(folder.rglob("*")):
        if path.suffix not in readers:
            continue
        local, rate = readers[path.suffix](path, rest)
        local = local[:: max(1, round(rate / RATE_HZ))]
        turns = Rotation.from_matrix(local.reshape(-1, 3, 3)).as_rotvec()
        yield str(path.relative_to(folder)), turns.reshape(-1, 22, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description="Motion capture to SMPL's joints.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    # Shorter recordings cannot fill a window of the lifter.
    read = [(name, poses) for name, poses in read_all(args.folder) if len(poses) >= 18]
    np.savez_compressed(
        args.out,
        poses=np.concatenate([poses for _, poses in read]).astype(np.float16),
        lengths=[len(poses) for _, poses in read],
        names=[name for name, _ in read],
    )


if __name__ == "__main__":
    main()
