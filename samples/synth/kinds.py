"""The kinds of motion: key poses that are played once or repeated, and gaits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synth.floor import floor_act, seated
from synth.key_poses import (
    BEND,
    BOX,
    JACKS,
    JUMP,
    KICK,
    PITCH,
    SQUAT,
    STRETCH,
    WAVE,
    Table,
)
from synth.walks import lunges, path


@dataclass(frozen=True)
class Entry:
    """A kind of motion: the function that makes its ``table`` from a random generator and seconds,
    whether it may be mirrored, whether a ball leaves the hand at time 0, and the kind of motion of
    everybody else; "" for any of the upright ones."""

    table: Callable[[np.random.Generator, float], Table]
    seconds: float
    mirror: bool = False
    throws: bool = False
    others: str = ""


def _once(table: Table) -> Callable[[np.random.Generator, float], Table]:
    return lambda random, seconds: table


def _cycle(table: Table) -> Callable[[np.random.Generator, float], Table]:
    """Return a table repeated for at least ``seconds``."""

    def repeated(random: np.random.Generator, seconds: float) -> Table:
        count = max(1, int(np.ceil(seconds / table["time"][-1])))
        out = {name: row[:1] + count * row[1:] for name, row in table.items()}
        steps = count * tuple(np.diff(table["time"]))
        return {**out, "time": (0.0, *np.cumsum(steps))}

    return repeated


def gait(random: np.random.Generator, seconds: float, running: bool) -> Table:
    """Return walking or running along +z, with random steps and arms; a foot on the ground does not
    move.

    Phases after Perry, Gait Analysis (1992): a walker's foot is down for 60% of its cycle, heel
    first; a runner's here for 36%.
    """
    step_s = random.uniform(0.34, 0.40) if running else random.uniform(0.48, 0.60)
    step = random.uniform(0.85, 1.15) if running else random.uniform(0.60, 0.80)
    down = 0.36 if running else 0.60
    times = np.arange(0, seconds + 2 * step_s, step_s / 12)
    beat = times / step_s
    swing = random.uniform(0.7, 1.3)
    table: dict[str, np.ndarray] = {"time": times, "z": step * beat}
    turn = np.cos(np.pi * beat)  # +1: the left foot lands
    bounce = np.cos(2 * np.pi * (beat - (0.36 if running else 0.5)))
    table["height"] = (0.945 + 0.035 * bounce) if running else (0.962 + 0.014 * bounce)
    table["tilt"] = np.full(len(times), 8.0 if running else 3.0)
    table["bend"] = np.full(len(times), 8.0 if running else 2.0)
    table["yaw"], table["turn"] = -7 * turn, (16 if running else 10) * turn
    table["list"] = 3 * np.sin(np.pi * beat)
    arms = (46 if running else 24) * swing
    for side, sign, offset in (("l", 1, 0.0), ("r", -1, 1.0)):
        cycle = (beat - offset) / 2
        phase, number = cycle % 1, np.floor(cycle)
        smooth = np.clip((phase - down) / (1 - down), 0, 1)
        smooth = smooth * smooth * (3 - 2 * smooth)
        ahead = (0.44 if running else 0.52) * step + 0.13
        table[f"{side}_fz"] = (2 * (number + smooth) + offset) * step + ahead
        heels = (-4, 0, 0, 60, 112, 70, -4) if running else (-20, 0, 0, 46, 40, 4, -20)
        knots = (0.06, 0.22, down, 0.62, 0.84) if running else (0.08, 0.34, down, 0.7, 0.9)
        table[f"{side}_heel"] = np.interp(phase, (0, *knots, 1), heels)
        lifts = (0, 0, 0.05, 0.36, 0.16, 0) if running else (0, 0, 0.05, 0.05, 0.03, 0)
        table[f"{side}_lift"] = np.interp(phase, (0, down, down + 0.08, 0.66, 0.88, 1), lifts)
        table[f"{side}_fx"] = np.full(len(times), sign * (0.07 if running else 0.085))
        table[f"{side}_fyaw"] = np.full(len(times), sign * 6.0)
        table[f"{side}_fwd"] = np.full(len(times), 84.0)
        table[f"{side}_rot"] = np.full(len(times), 94.0)
        table[f"{side}_out"] = np.full(len(times), 12.0 if running else 14.0)
        table[f"{side}_abd"] = -sign * arms * turn - (6 if running else -2)
        table[f"{side}_elbow"] = (88.0 if running else 22.0) - sign * 12 * turn
    return {name: tuple(row) for name, row in table.items()}


MOTIONS = {
    "pitch": Entry(_once(PITCH), 3.6, throws=True),
    "throw_left": Entry(_once(PITCH), 3.6, mirror=True, throws=True),
    "walk": Entry(lambda random, seconds: gait(random, seconds, False), 3.0),
    "run": Entry(lambda random, seconds: gait(random, seconds, True), 1.6),
    "wave": Entry(_cycle(WAVE), 2.6),
    "jump": Entry(_cycle(JUMP), 2.2),
    "jacks": Entry(_cycle(JACKS), 2.58),
    "squat": Entry(_cycle(SQUAT), 2.3),
    "kick": Entry(_cycle(KICK), 2.5),
    "stretch": Entry(_cycle(STRETCH), 4.2),
    "bend": Entry(_cycle(BEND), 2.4),
    "box": Entry(_cycle(BOX), 2.8),
    "floor": Entry(floor_act, 5.0, others="seated"),
    "seated": Entry(seated, 3.0, others="seated"),
    "path": Entry(path, 8.0, others="path"),
    "lunges": Entry(lunges, 8.0, others="path"),
}
CALM = tuple(name for name, entry in MOTIONS.items() if not entry.throws and not entry.others)
"""The upright motions without a ball, which people beside the first one have."""
