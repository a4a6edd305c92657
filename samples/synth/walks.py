"""Walks along paths, and lunges: motions for a world, in which a foot that stands does not move.

The pelvis follows a way over *beats*, one a step. Each footprint is where the pelvis will be about
half a step after the foot lands; between its landing and its lift a foot has one place. Phases
after Perry, Gait Analysis (1992), as in `synth.kinds.gait`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synth.key_poses import Table

_GRID = 12
"""Keys a beat."""
_SWING = 0.8
"""Beats that a foot is in the air."""
_AHEAD = 0.52
"""Beats from a landing until the pelvis is over the footprint, less the foot's own offset."""
_BALL = 0.13
"""The ball of a standing foot is this far before the pelvis."""
_NEAR, _NEAR_DEG = 0.07, 8.0
"""A foot does not step to a place that is nearer than this."""


@dataclass(frozen=True, eq=False)
class _Way:
    """The pelvis over beats, on a grid from beat 0: ``place`` (B, 2) x and z, ``heading_deg`` (B,),
    and ``walking`` (B,), from 0 for standing to 1."""

    place: np.ndarray
    heading_deg: np.ndarray
    walking: np.ndarray

    def at(self, beat: float) -> tuple[np.ndarray, float, float]:
        k = min(max(round(beat * _GRID), 0), len(self.place) - 1)
        return self.place[k], float(self.heading_deg[k]), float(self.walking[k])


def _smooth(values: np.ndarray) -> np.ndarray:
    """Average over a beat and a half, so that speed and turning begin and end softly."""
    weights = np.hanning(round(1.5 * _GRID) + 2)[1:-1]
    wide = np.pad(values, len(weights), mode="edge")
    same = np.convolve(wide, weights / weights.sum(), "same")
    return np.asarray(same[len(weights) : -len(weights)])


def _way(phases: list[tuple[float, float, float]], step: float) -> _Way:
    """Return the way of phases: beats, speed in steps a beat, and turn in degrees a beat."""
    counts = [max(1, round(beats * _GRID)) for beats, _, _ in phases]
    speed = _smooth(np.repeat([v for _, v, _ in phases], counts))
    turn = _smooth(np.repeat([w for _, _, w in phases], counts))
    heading = np.cumsum(turn) / _GRID
    towards = np.stack((np.sin(np.radians(heading)), np.cos(np.radians(heading))), -1)
    place = np.cumsum(speed[:, None] * step * towards, 0) / _GRID
    return _Way(place, heading, np.clip(speed + np.abs(turn) / 60, 0, 1))


def _phases(random: np.random.Generator, beats: float, step_s: float) -> list[tuple]:
    """Return random phases for at least ``beats``: stand, walk straight or in a curve, stand, turn
    on the spot, walk back, and so on."""

    def stand(low_s: float, high_s: float) -> tuple[float, float, float]:
        # The feet close within the first two beats of standing.
        return 2.2 + random.uniform(low_s, high_s) / step_s, 0.0, 0.0

    out = [stand(0.2, 0.6)]
    while sum(phase[0] for phase in out) < beats:
        curve = random.choice([0.0, 1.0]) * random.choice([-1, 1]) * random.uniform(10, 24)
        out.append((float(random.integers(5, 8)), 1.0, curve))
        out.append(stand(0.8, 1.8))
        if random.random() < 0.7:
            turns = random.integers(3, 5)
            out.append((float(turns), 0.0, random.choice([-1, 1]) * random.uniform(35, 45)))
            out.append(stand(0.0, 0.5) if random.random() < 0.3 else (1.0, 0.5, 0.0))
    return out


@dataclass(frozen=True, eq=False)
class _Landing:
    """A footprint: the ``beat`` of the landing, the ball's ``place`` (2,), the foot's ``yaw_deg``,
    and ``stride``, the length of the step that led here as a share of a full one."""

    beat: float
    place: np.ndarray
    yaw_deg: float
    stride: float


def _landings(way: _Way, side: int, step: float, beats: float) -> list[_Landing]:
    """Return a foot's landings; the left foot (0) lands at even beats, the right one at odd ones.
    Where the pelvis stands, the foot makes no step."""
    sign = -1 if side else 1

    def footprint(beat: float) -> tuple[np.ndarray, float]:
        place, heading, walking = way.at(beat + _AHEAD)
        angle = np.radians(heading)
        ahead, left = (
            np.array([np.sin(angle), np.cos(angle)]),
            np.array([np.cos(angle), -np.sin(angle)]),
        )
        wide = 0.12 - 0.035 * walking
        return place + _BALL * ahead + sign * wide * left, heading + sign * 7.0

    place, yaw = footprint(-_AHEAD)
    out = [_Landing(-10.0, place, yaw, 0.0)]
    for beat in np.arange(side, beats + 2, 2.0):
        place, yaw = footprint(beat)
        far = float(np.linalg.norm(place - out[-1].place))
        if beat > 1e-6 and (far > _NEAR or abs(yaw - out[-1].yaw_deg) > _NEAR_DEG):
            out.append(_Landing(float(beat), place, yaw, min(1.0, far / (2 * step))))
    return out


def _foot(landings: list[_Landing], beat: np.ndarray, side: int) -> dict[str, np.ndarray]:
    """Return a foot's channels over beats (T,)."""
    s = "lr"[side]
    first = landings[0]
    place = np.repeat(first.place[None], len(beat), 0)
    yaw = np.full(len(beat), first.yaw_deg)
    heel, lift = np.zeros(len(beat)), np.zeros(len(beat))
    for last, this in zip(landings, landings[1:]):
        share = np.clip((beat - this.beat + _SWING) / _SWING, 0, 1)
        share = share * share * (3 - 2 * share)
        place += share[:, None] * (this.place - last.place)
        yaw += share * (this.yaw_deg - last.yaw_deg)
        # The heel rises before the ball leaves the ground, and lands first.
        knots = np.array([-_SWING - 0.5, -_SWING, -_SWING + 0.2, -0.2, 0.0, 0.16]) + this.beat
        heel += this.stride * np.interp(beat, knots, (0, 46, 40, 4, -20, 0))
        high = 0.02 + 0.03 * this.stride
        knots = np.array([-_SWING, -_SWING + 0.2, -0.2, 0.0]) + this.beat
        lift += high * np.interp(beat, knots, (0, 1, 0.6, 0))
    return {
        f"{s}_fx": place[:, 0], f"{s}_fz": place[:, 1], f"{s}_fyaw": yaw,
        f"{s}_heel": heel, f"{s}_lift": lift,
    }  # fmt: skip


def path(random: np.random.Generator, seconds: float) -> Table:
    """Return a walk with stops, curves and turns on the spot, for at least ``seconds``."""
    step_s, step = random.uniform(0.48, 0.60), random.uniform(0.60, 0.80)
    beats = seconds / step_s + 2
    way = _way(_phases(random, beats + 2, step_s), step)
    beat = np.arange(0, beats, 1 / _GRID)
    place, heading, walking = (part[: len(beat)] for part in vars(way).values())
    table: dict[str, np.ndarray] = {"time": beat * step_s}
    for side in range(2):
        table |= _foot(_landings(way, side, step, beats), beat, side)
    # A person who stands sways by some millimetres.
    sway = [0.004 * np.sin(2 * np.pi * beat * step_s / t + p) for t, p in ((3.1, 0), (4.3, 1))]
    table["x"], table["z"] = place[:, 0] + sway[0], place[:, 1] + sway[1]
    turn, bounce = np.cos(np.pi * beat), np.cos(2 * np.pi * (beat - 0.5))
    table["height"] = 0.98 + walking * (-0.018 + 0.014 * bounce)
    table["yaw"] = heading - 7 * turn * walking
    table["turn"], table["list"] = 10 * turn * walking, 3 * np.sin(np.pi * beat) * walking
    table["tilt"], table["bend"] = 3 * walking, 2 * walking
    ahead = np.interp(beat + 0.7, beat, heading)  # people look where they turn to
    table["gaze"] = ahead + (1 - walking) * 12 * np.sin(2 * np.pi * beat * step_s / 3.7)
    arms = 24 * random.uniform(0.7, 1.3) * walking
    for s, sign in (("l", 1), ("r", -1)):
        table[f"{s}_fwd"] = np.full(len(beat), 84.0)
        table[f"{s}_rot"] = np.full(len(beat), 94.0)
        table[f"{s}_out"] = np.full(len(beat), 14.0)
        table[f"{s}_abd"] = 2 - sign * arms * turn
        table[f"{s}_elbow"] = 22.0 - sign * 12 * turn * walking
    return {name: tuple(row) for name, row in table.items()}


def lunges(random: np.random.Generator, seconds: float) -> Table:
    """Return lunges, forward or aside, with one leg and then the other, with pauses of a second or
    two in which the person stands still; for at least ``seconds``."""
    times = np.arange(0, seconds + 0.5, 0.05)
    table = {name: np.zeros(len(times)) for name in ("x", "z", "height", "tilt", "bend")}
    table["time"] = times
    table["height"] += 0.98
    feet = {name: np.zeros(len(times)) for s in "lr" for name in
            (f"{s}_fx", f"{s}_fz", f"{s}_lift", f"{s}_heel", f"{s}_fyaw")}  # fmt: skip
    for s, sign in (("l", 1), ("r", -1)):
        feet[f"{s}_fx"] += sign * 0.12
        feet[f"{s}_fz"] += _BALL
        feet[f"{s}_fyaw"] += sign * 8.0
    begun, side = random.uniform(0.5, 1.2), int(random.integers(2))
    while begun < seconds:
        s, other, sign = "lr"[side], "rl"[side], -1 if side else 1
        angle = np.radians(random.choice([0.0, 0.0, 50.0]) * sign)
        long, hold = random.uniform(0.5, 0.72), random.uniform(0.4, 1.0)
        deep = 0.30 * long / 0.72 * random.uniform(0.7, 1.1)
        out, back = begun, begun + 1.0 + hold
        # The foot goes first, the weight follows; on the way back the weight leads.
        foot = np.interp(times, (out, out + 0.55, back + 0.25, back + 0.8), (0, 1, 1, 0))
        weight = np.interp(times, (out, out + 0.95, back, back + 0.75), (0, 1, 1, 0))
        foot, weight = foot * foot * (3 - 2 * foot), weight * weight * (3 - 2 * weight)
        feet[f"{s}_fx"] += long * np.sin(angle) * foot
        feet[f"{s}_fz"] += long * np.cos(angle) * foot
        feet[f"{s}_lift"] += 0.20 * foot * (1 - foot)
        feet[f"{s}_fyaw"] += 0.5 * np.degrees(angle) * foot
        feet[f"{other}_heel"] += 45 * np.cos(angle) * weight
        table["x"] += 0.55 * long * np.sin(angle) * weight
        table["z"] += 0.55 * long * np.cos(angle) * weight
        table["height"] -= deep * weight
        table["tilt"] += 6 * weight
        begun, side = back + 0.8 + random.uniform(0.8, 1.8), 1 - side
    table |= feet
    table["x"] += 0.003 * np.sin(2 * np.pi * times / 3.3)
    table["gaze"] = 8 * np.sin(2 * np.pi * times / 4.1)
    elbow = random.uniform(15, 70)
    for s in "lr":
        table[f"{s}_elbow"] = np.full(len(times), elbow)
    return {name: tuple(row) for name, row in table.items()}
