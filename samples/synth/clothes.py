"""A person's clothes: the parts of the skin that each garment covers, its distance from the skin,
and its colours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix

from synth.raster import vertex_normals

SKIN, SHIRT, UNDERSHIRT, TROUSERS, BELT, SOCK, SHOE, SOLE, HAT, HAIR, TRIM = range(11)
# Distance from the skin and depth of folds, metres; passes of smoothing; gloss.
FIT = {
    SKIN: (0.0, 0.0, 0, 0.035), SHIRT: (0.017, 0.011, 22, 0.0), UNDERSHIRT: (0.004, 0.001, 4, 0.0),
    TROUSERS: (0.021, 0.014, 24, 0.0), BELT: (0.022, 0.0, 22, 0.05), SOCK: (0.005, 0.001, 4, 0.0),
    SHOE: (0.0, 0.0, 0, 0.06), SOLE: (0.0, 0.0, 0, 0.02), HAT: (0.020, 0.0, 10, 0.01),
    HAIR: (0.014, 0.004, 6, 0.05), TRIM: (0.018, 0.004, 12, 0.0),
}  # fmt: skip
_SKIN_TONES = ((0.91, 0.74, 0.64), (0.85, 0.65, 0.52), (0.74, 0.54, 0.41), (0.60, 0.42, 0.31),
               (0.44, 0.30, 0.22), (0.31, 0.21, 0.16))  # fmt: skip
_HAIR_TONES = ((0.08, 0.06, 0.05), (0.20, 0.13, 0.08), (0.36, 0.24, 0.13), (0.62, 0.48, 0.28),
               (0.55, 0.54, 0.52))  # fmt: skip
_CLOTH_TONES = ((0.75, 0.10, 0.12), (0.10, 0.20, 0.50), (0.05, 0.35, 0.22), (0.92, 0.92, 0.90),
                (0.10, 0.10, 0.12), (0.90, 0.55, 0.12), (0.45, 0.60, 0.78), (0.42, 0.16, 0.30),
                (0.55, 0.55, 0.52), (0.85, 0.80, 0.30))  # fmt: skip
_TROUSER_TONES = ((0.12, 0.15, 0.24), (0.24, 0.30, 0.42), (0.10, 0.10, 0.11), (0.48, 0.42, 0.33),
                  (0.40, 0.41, 0.43), (0.75, 0.74, 0.70))  # fmt: skip


@dataclass(frozen=True)
class Outfit:
    """Colours (sRGB in [0, 1]) by garment, and the cuts: ``sleeve`` from 0, the shoulder, to 1, the
    wrist; ``leg`` from 0, the hip, to 1, the ankle; ``hem``, the length of the shirt below the
    belt, metres; ``loose``, a factor of the distance from the skin. ``number`` is on the back; 0
    for none."""

    colors: dict[int, tuple[float, float, float]]
    sleeve: float
    leg: float
    hem: float
    loose: float
    hat: bool
    long_hair: bool
    number: int = 0
    stripes: bool = False


def random_outfit(random: np.random.Generator, sport: bool, female: bool) -> Outfit:
    """Return random clothes: for a ball game (tucked jersey, belt, cap, long trousers), or everyday
    ones."""

    def pick(tones):
        tone = np.array(tones[random.integers(len(tones))])
        return tuple(np.clip(tone * random.uniform(0.9, 1.1) + random.normal(0, 0.015, 3), 0, 1))

    team = pick(_CLOTH_TONES[:3] + _CLOTH_TONES[4:8])
    shirt = pick(_CLOTH_TONES)
    shoe = float(random.uniform(0.04, 0.9))
    colors = {
        SKIN: pick(_SKIN_TONES), HAIR: pick(_HAIR_TONES), SHIRT: shirt, UNDERSHIRT: shirt,
        TROUSERS: pick(_TROUSER_TONES), BELT: (0.07, 0.06, 0.06), SOCK: (0.85, 0.85, 0.84),
        SHOE: (shoe, shoe, shoe * 0.97), SOLE: (0.82, 0.82, 0.80), HAT: pick(_CLOTH_TONES),
        TRIM: (0.92, 0.92, 0.90) if random.random() < 0.3 else shirt,
    }  # fmt: skip
    long_hair = bool(female and random.random() < 0.6)
    outfit = Outfit(
        colors,
        sleeve=float(random.choice([0.3, 0.42, 0.92])),
        leg=float(random.choice([0.45, 0.95, 0.95])),
        hem=float(random.uniform(0.06, 0.16)),
        loose=float(random.uniform(0.6, 1.5)),
        hat=bool(not long_hair and random.random() < 0.3),
        long_hair=long_hair,
    )
    if not sport:
        return outfit
    plain = (0.90, 0.90, 0.88) if random.random() < 0.5 else (0.60, 0.61, 0.63)
    jersey = team if random.random() < 0.6 else plain
    trim = plain if jersey == team else team
    dark = tuple(0.45 * np.array(team))
    colors |= {SHIRT: jersey, UNDERSHIRT: dark, TROUSERS: plain, HAT: team, TRIM: trim}
    colors |= {SHOE: (0.08, 0.08, 0.09), SOLE: (0.16, 0.16, 0.16), SOCK: team}
    return replace(
        outfit, sleeve=0.46, leg=0.93, hem=0.0, hat=True, long_hair=False,
        loose=float(random.uniform(1.0, 1.5)), number=int(random.integers(1, 60)),
        stripes=bool(jersey == plain and random.random() < 0.4),
    )  # fmt: skip


def labels(points: np.ndarray, joints: np.ndarray, outfit: Outfit, floor: float) -> np.ndarray:
    """Return the garment that covers each skin point (N, 3) at rest, given SMPL's joints
    (24, 3)."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    shoulder, wrist = abs(joints[16, 0]), abs(joints[20, 0])
    waist, ankle = joints[0, 1] + 0.07, joints[7, 1]
    head, neck = joints[15], joints[12]
    size = joints[12, 1] - joints[0, 1]
    out = np.full(len(points), SKIN, np.uint8)
    cuff = shoulder + outfit.sleeve * (wrist - shoulder)
    if outfit.number:  # a jersey's sleeves end over those of an undershirt
        out[(y > waist) & (x < wrist - 0.03)] = UNDERSHIRT
    hem = waist - outfit.hem
    legs_end = joints[1, 1] + outfit.leg * (ankle - joints[1, 1])
    out[(y <= waist) & (x < wrist - 0.2) & (y > legs_end)] = TROUSERS
    if outfit.number:
        out[(np.abs(y - waist) < 0.017)] = BELT
        hem = waist + 0.017
    shirt = (y > hem) & (x < cuff) & ((y > waist - 0.2) | (x < shoulder))
    out[shirt] = SHIRT
    if outfit.number:
        out[shirt & (x > cuff - 0.022)] = TRIM
    collar = neck[1] - 0.035 * size / 0.56 - 0.55 * (z - neck[2])
    out[(y > collar) & (x < 0.8 * shoulder)] = SKIN
    out[(out == SHIRT) & (y > collar - 0.02) & (x < 0.6 * shoulder)] = TRIM
    out[(y <= max(legs_end, ankle + 0.02)) & (y < ankle + 0.16)] = SOCK
    out[y <= ankle + 0.015] = SHOE
    out[y <= floor + 0.016] = SOLE
    top = head[1] + 0.155 * size / 0.56
    brow = head[1] + 0.075 * size / 0.56
    over = y > brow + 0.22 * (z - head[2] - 0.09)
    nape = (z < head[2] - 0.02) & (y > head[1] - 0.045) & (y < top + 1)
    temple = (z < head[2] + 0.015) & (y > head[1] + 0.01) & (x < 0.075)
    out[(y > head[1] - 0.06) & (over | nape | temple)] = HAIR
    if outfit.hat:
        out[over & (y > head[1])] = HAT
    return out


def clothe(
    skin: np.ndarray,
    faces: np.ndarray,
    label: np.ndarray,
    outfit: Outfit,
    random: np.random.Generator,
) -> np.ndarray:
    """Return the clothed surface (V, 3) over the skin (V, 3): smoothed under cloth, then moved out
    along the normals by garment, with folds. ``label`` (V,) is as `labels` returns it."""
    table = np.array([FIT[k] for k in range(len(FIT))])
    stand, fold, passes, _ = table[label].T
    edges = faces[:, [0, 1, 1, 2, 2, 0, 1, 0, 2, 1, 0, 2]].reshape(-1, 2)
    links = csr_matrix((np.ones(len(edges)), edges.T), (len(skin),) * 2)
    links.data[:] = 1
    count = np.maximum(np.asarray(links.sum(1)), 1)
    cloth = skin.copy()
    for turn in range(int(passes.max())):
        moved = links @ cloth / count
        active = passes > turn
        cloth[active] = 0.5 * (cloth + moved)[active]
    loose = np.where(np.isin(label, (SHIRT, TROUSERS, TRIM, UNDERSHIRT)), outfit.loose, 1.0)
    away = loose * (stand + fold * folds(skin, random))
    for _ in range(2):  # no step of a full garment within one triangle
        away = 0.5 * (away + (links @ away) / count[:, 0])
    away[label == SKIN] = 0
    normals = vertex_normals(cloth, faces)
    own = vertex_normals(skin, faces)
    # Smoothing sinks bulges into the body: move them back to a few millimetres over the skin.
    sunk = ((skin - cloth) * own).sum(1) - 0.9 * stand
    covered = label != SKIN
    cloth += np.where(covered, np.clip(sunk, 0, None), 0)[:, None] * own + away[:, None] * normals
    return cloth


def folds(points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the folds of loose cloth at points: waves, about [-1, 1], with sharp crests."""
    total = np.zeros(len(points))
    for _ in range(9):
        direction = random.normal(0, 1, 3) * [1.0, 1.3, 0.6]
        wave = random.uniform(22, 75) * direction / np.linalg.norm(direction)
        warp = 0.8 * np.sin(points @ random.normal(0, 12, 3))
        total += (1 - 2 * np.abs(np.sin(points @ wave + warp + random.uniform(0, 6.3)))) / 4
    return np.clip(total, -1, 1)
