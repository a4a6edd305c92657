"""Motions: smooth channels over time from key poses, for one body, anywhere on the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from synth.key_poses import Table
from synth.kinds import MOTIONS
from synth.pose import CHANNELS, REST, Skeleton, mirrored, solve

_SMOOTH_S = 0.009
_TAPS = np.linspace(-2, 2, 9)
_GRIPS = [CHANNELS.index("l_grip"), CHANNELS.index("r_grip")]
# The channels that a person's manner changes: not the feet, which must not slide.
_MANNER = ("abd", "fwd", "rot", "elbow", "turn", "bend", "side", "nod", "tilt")


@dataclass(frozen=True, eq=False)
class Motion:
    """A motion of one body from ``start_s`` to ``end_s`` on its own clock, at ``place_m`` (x, z) on
    the ground with ``heading_deg``. ``release_s`` is the time at which a thrown ball leaves
    ``hand``; None, and "", without a throw."""

    curves: PchipInterpolator
    body: Skeleton
    start_s: float
    end_s: float
    release_s: float | None
    hand: str
    place_m: tuple[float, float]
    heading_deg: float

    def channels(self, time_s: float) -> np.ndarray:
        """Return the values of all channels (C,) at a time: monotone between keys (PCHIP), then
        averaged over about 20 ms, because muscles do not jerk."""
        weights = np.exp(-0.5 * _TAPS**2)
        times = np.clip(time_s + _SMOOTH_S * _TAPS, self.start_s, self.end_s)
        return weights @ self.curves(times) / weights.sum()

    def at(self, time_s: float) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
        """Return the world rotations (24, 3, 3) of SMPL's joints, the pelvis's place (3,) in
        metres, and how far the left and the right hand are closed."""
        values = self.channels(time_s)
        rotations, origin = solve(dict(zip(CHANNELS, values)), self.body)
        angle = np.radians(self.heading_deg)
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        origin = turn @ origin + [self.place_m[0], 0.0, self.place_m[1]]
        return turn @ rotations, origin, (values[_GRIPS[0]], values[_GRIPS[1]])


def _filled(table: Table, mirror: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return key times (T,) and the values of all channels (T, C); channels that a table leaves out
    have their rest values."""
    times = np.array(table["time"])
    rows = []
    for index in range(len(times)):
        pose = REST | {name: row[index] for name, row in table.items() if name != "time"}
        pose = mirrored(pose) if mirror else pose
        if set(pose) != set(CHANNELS):
            raise ValueError(f"no channel {sorted(set(pose) - set(CHANNELS))}")
        rows.append([pose[name] for name in CHANNELS])
    return times, np.array(rows)


def make_motion(
    kind: str,
    body: Skeleton,
    random: np.random.Generator,
    manner: float = 1.0,
    tempo: float = 1.0,
    seconds: float | None = None,
) -> Motion:
    """Return a motion of `MOTIONS`, with arms and trunk changed a little at random.

    ``manner`` is the size of these changes, 0 for none; ``tempo`` is a factor of its speed. A cycle
    is repeated for ``seconds``; of a throw, the ``seconds`` around its release are taken. Raises
    ValueError for an unknown kind.
    """
    if kind not in MOTIONS:
        raise ValueError(f"no motion {kind!r}: {', '.join(MOTIONS)}")
    entry = MOTIONS[kind]
    table = entry.table(random, (seconds or entry.seconds) * tempo)
    times, rows = _filled(table, entry.mirror)
    for column, name in enumerate(CHANNELS):
        part = name.partition("_")[2] or name
        if part in _MANNER:
            middle = rows[:, column].mean()
            grown = 1 + manner * random.normal(0, 0.07)
            rows[:, column] = middle + grown * (rows[:, column] - middle)
            rows[:, column] += manner * random.normal(0, 2.0)
            if part == "elbow" and manner > 1:
                rows[:, column] = np.maximum(rows[:, column], 0.0)  # no elbow bends backwards
    if entry.throws and manner > 1:
        # The length and the depth of the stride: feet on the ground stay on the ground.
        stride = np.clip(1 + manner * random.normal(-0.02, 0.04), 0.7, 1.1)
        rows[:, [CHANNELS.index(name) for name in ("x", "l_fx", "r_fx")]] *= stride
        depth = rows[:, CHANNELS.index("height")]
        grown = np.clip(1 + manner * random.normal(0, 0.1), 0.5, 1.4)
        rows[:, CHANNELS.index("height")] = depth.max() + grown * (depth - depth.max())
    hand = ("left" if entry.mirror else "right") if entry.throws else ""
    times = times / tempo
    start, end = float(times[0]), float(times[-1])
    if entry.throws and seconds:
        # Throws for training are released at any time between two frames.
        late = random.uniform(-0.5, 0.5) / 30 if manner > 1 else 0.0
        start = max(start, -0.62 * seconds - late)
        end = min(end, start + seconds)
    elif not entry.throws:
        end = min(end, seconds or entry.seconds)
    return Motion(
        PchipInterpolator(times, rows), body, start, end,
        0.0 if entry.throws else None, hand, (0.0, 0.0), 0.0,
    )  # fmt: skip
