"""A floor act, as breakdancers show it: inverted, folded, spinning; and its seated onlookers.

An act is a random order of pieces. Each begins and ends upright and turns the whole body (channels
``spin``, ``flip``, ``wheel``, ``roll`` and ``air`` of `synth.pose`) by angles and in times that
differ from seed to seed: a somersault takes 0.6 to 0.8 s, a turn on the head 0.5 to 1.0 s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from synth.key_poses import Table
from synth.pose import REST

Key = tuple[float, dict[str, float]]
"""Seconds since the key before, and the channels that differ from standing."""


def _both(**channels: float) -> dict[str, float]:
    """Return channels for both sides; ``fx`` and ``fyaw`` are mirrored."""
    mirrored = ("fx", "fyaw")
    return {
        f"{side}_{name}": -value if side == "r" and name in mirrored else value
        for side in "lr"
        for name, value in channels.items()
    }


_READY = _both(fx=0.24, abd=40, elbow=40) | {"height": 0.9, "bend": 10}
_POINTED = _both(heel=70, lift=0.1)
_WIDE = _both(fx=0.66, lift=0.26, heel=50)
_SPLIT = {"l_fz": 0.7, "r_fz": -0.45, "l_lift": 0.3, "r_lift": 0.2, "l_heel": 40, "r_heel": 60}
_TUCK = _both(fz=0.30, lift=0.52, heel=20, abd=50, fwd=80, elbow=60) | {"bend": 50, "nod": 30}
_ON_HANDS = _both(abd=168, rot=70, elbow=6)
_ON_HEAD = _both(abd=105, fwd=60, rot=40, elbow=95)
_AROUND_HEAD = _both(abd=60, fwd=50, rot=30, elbow=80)


def _handstand(random: np.random.Generator) -> list[Key]:
    legs = [_POINTED, _SPLIT, _WIDE][random.integers(3)]
    over = {"flip": random.uniform(165, 190), "air": 0.2}
    turned = {"spin": random.uniform(-120, 120)}
    down = _ON_HANDS | {"bend": 30}
    return [
        (0.4, _READY),
        (0.45, down | _SPLIT | {"flip": 95, "air": 0.0}),
        (0.35, _ON_HANDS | _POINTED | over),
        (random.uniform(0.4, 0.9), _ON_HANDS | legs | over | turned),
        (0.45, down | _SPLIT | turned | {"flip": 90}),
        (0.45, _READY | turned),
    ]


def _headspin(random: np.random.Generator) -> list[Key]:
    turns, sense = int(random.integers(1, 4)), random.choice([-1, 1])
    legs = [_WIDE, _SPLIT, _POINTED][random.integers(3)]
    over = {"flip": random.uniform(172, 188), "air": -0.1}
    turn_s = random.uniform(0.5, 1.0)
    keys = [(0.4, _READY), (0.4, _ON_HEAD | _TUCK | {"flip": 130, "air": -0.25})]
    spun = _ON_HEAD | legs | over
    keys += [(turn_s / 4 if k else 0.35, spun | {"spin": 90 * sense * k})
             for k in range(4 * turns + 1)]  # fmt: skip
    last = {"spin": 360 * sense * turns}
    return [*keys, (0.4, _ON_HEAD | _TUCK | last | {"flip": 110, "air": -0.3}),
            (0.5, _READY | last)]  # fmt: skip


def _windmill(random: np.random.Generator) -> list[Key]:
    """Rolling over back and shoulders: a turn about the spine for each turn about the vertical."""
    turns, sense = int(random.integers(1, 3)), random.choice([-1, 1])
    turn_s = random.uniform(0.7, 1.1)
    keys = [(0.4, _READY), (0.5, _TUCK | {"flip": -80, "air": -0.65})]
    for k in range(4 * turns + 1):
        angle = 90 * sense * k
        lean = {"flip": -115 + 15 * (-1) ** k, "spin": angle, "roll": angle, "air": -0.5}
        keys.append((turn_s / 4 if k else 0.3, _AROUND_HEAD | _WIDE | lean))
    last = {"spin": 360 * sense * turns, "roll": 360 * sense * turns}
    return [*keys, (0.4, _TUCK | last | {"flip": -50, "air": -0.6}), (0.5, _READY | last)]


def _freeze(random: np.random.Generator) -> list[Key]:
    """Folded over one arm, held."""
    side = random.choice([-1, 1])
    folded = _TUCK | {
        "flip": random.uniform(105, 150), "wheel": side * random.uniform(20, 50), "air": -0.2,
        "turn": side * 25, "l_lift": 0.35, "l_fz": -0.1, "r_fx": -0.4, "r_fz": 0.5,
    }  # fmt: skip
    held = folded | {"flip": folded["flip"] + random.uniform(-8, 8)}
    return [
        (0.4, _READY), (0.5, folded), (random.uniform(0.5, 1.0), held), (0.3, held), (0.5, _READY)
    ]  # fmt: skip


def _somersault(random: np.random.Generator) -> list[Key]:
    sense, air_s = random.choice([-1, 1]), random.uniform(0.6, 0.8)
    low = _both(fx=0.15, abd=20, fwd=40) | {"height": 0.7, "tilt": 25, "bend": 15}
    up = _both(abd=160, fwd=80, rot=70, heel=60)
    tuck = _TUCK | {"air": 0.55}
    return [
        (0.4, _READY), (0.3, low), (0.15, up | {"air": 0.1}),
        (0.3 * air_s, tuck | {"flip": 100 * sense}), (0.35 * air_s, tuck | {"flip": 240 * sense}),
        (0.35 * air_s, _READY | {"flip": 360 * sense, "air": 0.05}),
        (0.2, low | {"flip": 360 * sense}), (0.3, _READY | {"flip": 360 * sense}),
    ]  # fmt: skip


def _cartwheel(random: np.random.Generator) -> list[Key]:
    sense, takes_s = random.choice([-1, 1]), random.uniform(0.8, 1.1)
    wide = _ON_HANDS | _WIDE
    return [
        (0.4, _READY),
        (0.3 * takes_s, wide | {"wheel": 90 * sense, "air": -0.1}),
        (0.25 * takes_s, wide | {"wheel": 180 * sense, "air": 0.2}),
        (0.25 * takes_s, wide | {"wheel": 270 * sense, "air": -0.1}),
        (0.2 * takes_s, _READY | {"wheel": 360 * sense}),
    ]


_PIECES: tuple[Callable[[np.random.Generator], list[Key]], ...] = (
    _handstand, _headspin, _windmill, _freeze, _somersault, _cartwheel,
)  # fmt: skip


def floor_act(random: np.random.Generator, seconds: float) -> Table:
    """Return pieces in a random order, of at least ``seconds``."""
    keys: list[tuple[float, dict[str, float]]] = [(0.0, _READY)]
    whole = dict.fromkeys(("spin", "flip", "wheel", "roll"), 0.0)
    order: list[int] = []
    while keys[-1][0] < seconds:
        order = order or list(random.permutation(len(_PIECES)))
        for takes_s, channels in _PIECES[order.pop()](random):
            # Angles go on from where the piece before left the body.
            turned = {name: whole[name] + channels.get(name, 0.0) for name in whole}
            keys.append((keys[-1][0] + takes_s, channels | turned))
        whole = {name: keys[-1][1][name] for name in whole}
    return _table(keys)


def seated(random: np.random.Generator, seconds: float) -> Table:
    """Return sitting on the ground: the knees up or the legs ahead, the arms around or behind."""
    ahead, apart = random.uniform(0.42, 0.8), random.uniform(0.08, 0.3)
    pose = {"height": random.uniform(0.2, 0.27), "tilt": random.uniform(-15, 15)}
    pose |= {"bend": random.uniform(5, 35), "nod": random.uniform(-10, 15)}
    pose |= _both(fx=apart, fz=ahead, knee=random.uniform(0, 40), elbow=random.uniform(20, 90))
    pose |= _both(abd=random.uniform(20, 60), fwd=random.uniform(-30, 80))
    keys = [(0.0, pose)]
    while keys[-1][0] < seconds:
        parts = ("turn", "bend", "nod", "gaze", "l_elbow")
        moved = {name: pose.get(name, 0.0) + random.normal(0, 8) for name in parts}
        keys.append((keys[-1][0] + random.uniform(0.5, 1.2), pose | moved))
    return _table(keys)


def _table(keys: list[tuple[float, dict[str, float]]]) -> Table:
    names = {name for _, channels in keys for name in channels}
    rows = {
        name: tuple(float(channels.get(name, REST[name])) for _, channels in keys)
        for name in sorted(names)
    }
    return {"time": tuple(time for time, _ in keys), **rows}
