"""Convert joint angles, as biomechanics defines them, and planted feet to SMPL's joint rotations.

World axes: y up; a person at rest faces +z, its left is +x. Angles are in degrees, lengths in units
of the standing pelvis's height, so that one motion fits every body. The channels of a pose:

- ``x``, ``z`` the pelvis's place, ``height`` (1: standing), ``yaw`` (0 faces +z, 90 faces +x),
  ``tilt`` forward, ``list`` to the left;
- ``turn`` (left), ``bend`` (forward), ``side`` (left) of the chest on the pelvis; ``gaze`` the
  head's yaw in the world, ``nod`` down, ``cock`` to the left;
- ``l_``/``r_`` arms, in the chest's axes: ``abd`` raised from hanging, ``fwd`` its plane swung
  forward (0: sideways, 90: straight ahead), ``rot`` outward rotation (forearm up from level for a
  raised arm), ``out`` swung sideways after all that, ``elbow`` flexion, ``pron`` the palm turned,
  ``wrist`` flexion, ``grip`` 0 to 1;
- ``spin``, ``flip``, ``wheel``, ``roll``: the whole body, feet included, turned about the pelvis:
  left about the world's vertical after forward, sideways to the left, and left about the spine;
  ``air`` how far it is raised then;
- ``l_``/``r_`` feet: ``fx``, ``fz`` where the ball of the foot stands, ``lift`` of the sole over
  the ground, ``fyaw``, ``heel`` raised (negative: toes raised), ``knee`` turned out.

Throwing arm conventions follow Fleisig et al., J. Appl. Biomech. 15 (1999).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from synth.person import Person

CENTRE = ("x", "z", "height", "yaw", "tilt", "list", "turn", "bend", "side", "gaze", "nod", "cock")
WHOLE = ("spin", "flip", "wheel", "roll", "air")
SIDED = ("abd", "fwd", "rot", "out", "elbow", "pron", "wrist", "grip",
         "fx", "fz", "lift", "fyaw", "heel", "knee")  # fmt: skip
CHANNELS = CENTRE + tuple(f"{side}_{name}" for side in "lr" for name in SIDED) + WHOLE
REST = dict.fromkeys(CHANNELS, 0.0) | {
    "height": 0.985, "l_abd": 12.0, "r_abd": 12.0, "l_elbow": 15.0, "r_elbow": 15.0,
    "l_grip": 0.25, "r_grip": 0.25, "l_fz": 0.13, "r_fz": 0.13,
    "l_fx": 0.12, "r_fx": -0.12, "l_fyaw": 8.0, "r_fyaw": -8.0,
}  # fmt: skip
_X = np.array([1.0, 0.0, 0.0])
REACH = 0.998


@dataclass(frozen=True, eq=False)
class Skeleton:
    """The parts of a body at rest that posing needs, metres, with the pelvis at the origin:
    ``hip``, ``knee``, ``ankle`` and ``ball`` of the foot (2, 3), left and right, and ``floor_m``,
    the height of the floor (below 0)."""

    hip: np.ndarray
    knee: np.ndarray
    ankle: np.ndarray
    ball: np.ndarray
    floor_m: float

    @classmethod
    def of(cls, person: Person) -> Skeleton:
        def both(bone: str) -> np.ndarray:
            return np.array([rig.heads[rig.names.index(f"{bone}.{side}")] for side in "LR"])

        rig = person.rig
        joints = person.joints
        return cls(
            both("upperleg01"), both("lowerleg01"), both("foot"), joints[10:12], person.floor_m
        )

    @property
    def unit_m(self) -> float:
        return -self.floor_m


def _euler(axes: str, *degrees: float) -> np.ndarray:
    return Rotation.from_euler(axes, degrees, degrees=True).as_matrix()


def _frame(along: np.ndarray, beside: np.ndarray) -> np.ndarray:
    x = along / np.linalg.norm(along)
    y = beside - (beside @ x) * x
    y /= np.linalg.norm(y)
    return np.stack((x, y, np.cross(x, y)), 1)


def _arm(pose: dict[str, float], side: int, chest: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the world rotations of collar, upper arm, forearm and hand."""
    s = "lr"[side]
    m = 1.0 if side else -1.0  # the right arm's signs; the left one mirrors them in x
    abd, fwd = pose[f"{s}_abd"], pose[f"{s}_fwd"]
    lift = 0.28 * (abd - 90) if abd > 90 else 0.11 * (abd - 90)
    collar = chest @ _euler("YZ", m * 0.13 * fwd, -m * lift)
    aside = _euler("Z", -m * pose[f"{s}_out"])
    upper = chest @ aside @ _euler("YZX", m * fwd, m * (90 - abd), -pose[f"{s}_rot"])
    fore = upper @ _euler("Y", m * pose[f"{s}_elbow"])
    hand = fore @ _euler("XZ", -pose[f"{s}_pron"], m * pose[f"{s}_wrist"])
    return collar, upper, fore, hand


def _foot(pose: dict[str, float], side: int, body: Skeleton) -> tuple[np.ndarray, ...]:
    """Return the world rotations of foot and toes, and the ankle's place."""
    s = "lr"[side]
    heel, lift = pose[f"{s}_heel"], pose[f"{s}_lift"]
    bone = body.ball[side] - body.ankle[side]
    yaw = _euler("Y", pose[f"{s}_fyaw"] - np.degrees(np.arctan2(bone[0], bone[2])))
    foot = yaw @ _euler("X", heel)
    # Under load the toes stay flat while the heel rises; in the air they follow the foot.
    flat = np.exp(-max(lift, 0) / 0.03) * np.clip(heel, 0, 70)
    toes = yaw @ _euler("X", heel - flat)
    sole = body.floor_m - body.ball[side][1]
    ball = np.array([pose[f"{s}_fx"], 0.0, pose[f"{s}_fz"]]) * body.unit_m
    ball[1] = lift * body.unit_m - sole
    if heel < 0:  # The foot turns about the heel, so the ball rises.
        behind = bone + [0.0, 0.0, 0.055]
        ball[1] += np.sin(np.radians(-heel)) * np.hypot(behind[0], behind[2])
    return foot, toes, ball - foot @ bone


def solve_leg(
    hip: np.ndarray, ankle: np.ndarray, ahead: np.ndarray, thigh_m: float, shin_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the unit directions of thigh and shin and of the knee's hinge, for two bones from the
    hip to the ankle with the knee towards ``ahead`` (all (3,), metres). If the ankle is out of
    reach, the leg is straight."""
    span = ankle - hip
    length = np.clip(np.linalg.norm(span), abs(thigh_m - shin_m) + 0.02, REACH * (thigh_m + shin_m))
    along = span / np.linalg.norm(span)
    bow = ahead - (ahead @ along) * along
    bow /= np.linalg.norm(bow)
    cosine = (thigh_m**2 + length**2 - shin_m**2) / (2 * thigh_m * length)
    angle = np.arccos(np.clip(cosine, -1, 1))
    thigh = np.cos(angle) * along + np.sin(angle) * bow
    shin = (length * along - thigh_m * thigh) / shin_m
    return thigh, shin, np.cross(bow, along)


def _legs(
    pose: dict[str, float], body: Skeleton, hips: np.ndarray, origin: np.ndarray, out: np.ndarray
) -> None:
    for side in range(2):
        s = "lr"[side]
        foot, toes, ankle = _foot(pose, side, body)
        out[7 + side], out[10 + side] = foot, toes
        hip = origin + hips @ body.hip[side]
        thigh_rest = body.knee[side] - body.hip[side]
        shin_rest = body.ankle[side] - body.knee[side]
        out_deg = pose[f"{s}_knee"] * (-1 if side else 1)
        ahead = _euler("Y", 0.5 * (pose[f"{s}_fyaw"] + pose["yaw"]) + out_deg) @ [0.0, 0.0, 1.0]
        # A raised heel moves the leg back: the knee then points ahead and down.
        ahead = ahead - [0.0, 0.5 * np.sin(np.radians(max(pose[f"{s}_heel"] - 45, 0))), 0.0]
        thigh, shin, hinge = solve_leg(
            hip, ankle, ahead, *(float(np.linalg.norm(v)) for v in (thigh_rest, shin_rest))
        )
        out[1 + side] = _frame(thigh, hinge) @ _frame(thigh_rest, _X).T
        out[4 + side] = _frame(shin, hinge) @ _frame(shin_rest, _X).T


def _settle(pose: dict[str, float], body: Skeleton, hips: np.ndarray) -> np.ndarray:
    """Return the pelvis's place (3,), lowered as far as a foot on the ground needs."""
    origin = np.array([pose["x"], pose["height"], pose["z"]]) * body.unit_m
    top = np.inf
    for side in range(2):
        _, _, ankle = _foot(pose, side, body)
        hip = hips @ body.hip[side]
        leg = np.linalg.norm(body.knee[side] - body.hip[side]) + np.linalg.norm(
            body.ankle[side] - body.knee[side]
        )
        reach = (REACH * leg - 0.004) ** 2
        across = ankle[[0, 2]] - (origin + hip)[[0, 2]]
        rise = np.sqrt(max(reach - across @ across, 0.01))
        top = min(top, ankle[1] + rise - hip[1])
    # A soft minimum: near the limit the pelvis does not stop abruptly.
    origin[1] = top - np.logaddexp(0, (top - origin[1]) / 0.012) * 0.012
    return origin


def solve(pose: dict[str, float], body: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Return world rotations (24, 3, 3) of SMPL's joints and the pelvis's place (3,) in metres."""
    out = np.empty((24, 3, 3))
    hips = _euler("YXZ", pose["yaw"], pose["tilt"], -pose["list"])
    chest = hips @ _euler("YXZ", pose["turn"], pose["bend"], -pose["side"])
    out[0] = hips
    turn = Rotation.from_matrix(hips.T @ chest).as_rotvec()
    for joint, share in ((3, 0.3), (6, 0.65), (9, 1.0)):
        out[joint] = hips @ Rotation.from_rotvec(share * turn).as_matrix()
    head = _euler("YXZ", pose["gaze"], pose["nod"], -pose["cock"])
    look = Rotation.from_matrix(chest.T @ head).as_rotvec()
    look *= min(1.0, np.radians(75) / max(np.linalg.norm(look), 1e-9))
    out[12] = chest @ Rotation.from_rotvec(0.45 * look).as_matrix()
    out[15] = chest @ Rotation.from_rotvec(look).as_matrix()
    for side in range(2):
        arm = _arm(pose, side, chest)
        out[13 + side], out[16 + side], out[18 + side], out[20 + side] = arm
        out[22 + side] = arm[-1]
    origin = _settle(pose, body, hips)
    _legs(pose, body, hips, origin, out)
    if any(pose[name] for name in WHOLE):
        whole = _euler("YXZ", pose["spin"], pose["flip"], -pose["wheel"]) @ _euler(
            "Y", pose["roll"]
        )
        out, origin = whole @ out, origin + [0.0, pose["air"] * body.unit_m, 0.0]
    return out, origin


def mirrored(pose: dict[str, float]) -> dict[str, float]:
    """Return the pose mirrored across x = 0."""
    flipped = ("x", "yaw", "list", "turn", "side", "gaze", "cock", "fx", "fyaw",
               "spin", "wheel", "roll")  # fmt: skip
    out = {}
    for name, value in pose.items():
        side, _, part = name.partition("_")
        other = {"l": "r_", "r": "l_"}.get(side, "") + part if part else name
        out[other] = -value if (part or name) in flipped else value
    return out
