"""The figures of a clip, from the pairs of all its frames; the figures of motion are in
`motion`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.evaluate import metrics
from app.evaluate.compare import Tally
from app.evaluate.metrics import PAIRS, mean, percentile
from app.evaluate.outcome import NAN, Outcome, Row, row_of

_CLOSE = 0.2
"""A landmark is close within this part of the torso's length, as in PCK."""
_LINES = 720
"""Errors in pixels are scaled to pictures of this height, so that clips can be compared."""


def presence_rows(outcome: Outcome) -> list[Row]:
    """Return the figures of detection and tracking: coverage, ghosts, doubles, tracks and
    switches."""
    truth, tallies = outcome.truth, outcome.tallies
    tracks: dict[int, list[int]] = {}
    for pair in sorted(outcome.pairs, key=lambda pair: int(truth.frame[pair.row])):
        tracks.setdefault(int(truth.person[pair.row]), []).append(pair.track)
    people = np.unique(truth.person[outcome.rows])
    kinds = [len(set(tracks.get(int(person), []))) for person in people]
    switched = [sum(a != b for a, b in zip(row, row[1:])) for row in tracks.values()]
    total = len(outcome.rows)
    # Where the truth may lack people, a body without a match need not be an error.
    where = "on nobody" if truth.complete else "on nobody in the truth"
    return [
        Row("frames", "frames", "", len(tallies)),
        Row("person_frames", "person-frames in the truth", "", total),
        Row("coverage_pct", "of them with a body", "%", _percent(len(outcome.pairs), total)),
        Row("ghosts_pct", f"frames with a body {where}", "%", _frames_with(tallies, "ghosts")),
        Row("ghosts", f"bodies {where}", "", sum(tally.ghosts for tally in tallies)),
        Row("doubles_pct", "frames with two on one person", "%", _frames_with(tallies, "doubles")),
        Row("people", "people in the truth", "", len(people)),
        Row("tracks_each", "tracks a person", "", mean(np.array(kinds))),
        Row("switches", "id switches", "", sum(switched)),
        Row("idf1_pct", "IDF1", "%", _idf1_pct(outcome)),
    ]


def _idf1_pct(outcome: Outcome) -> float:
    """Return IDF1: the F1 score of person-frames, with each person given the one track that serves
    all of the clip best (Ristani et al., ECCV Workshops 2016).

    Only bodies that were matched in their frame can count as right; a body on a person who need not
    be found counts neither way.
    """
    people = outcome.truth.person[outcome.paired]
    tracks = np.array([pair.track for pair in outcome.pairs], np.int64)
    found = len(tracks) + sum(tally.ghosts for tally in outcome.tallies)
    return 100 * metrics.idf1(people, tracks, len(outcome.rows), found)


def nobody_rows(tallies: Sequence[Tally], tracks: int) -> list[Row]:
    """Return the figures of a clip without people."""
    return [
        Row("frames", "frames", "", len(tallies)),
        Row("ghosts_pct", "frames with a body", "%", _frames_with(tallies, "bodies")),
        Row("ghosts", "bodies", "", sum(tally.bodies for tally in tallies)),
        Row("tracks", "tracks", "", tracks),
    ]


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else NAN


def _frames_with(tallies: Sequence[Tally], name: str) -> float:
    return _percent(sum(getattr(tally, name) > 0 for tally in tallies), len(tallies))


def pair_errors_mm(outcome: Outcome) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the limb errors of all pairs.

    Returns:
        The errors (K, 12) of the mesh in millimetres; those of the perceived world landmarks; and
        how the latter were compared: "as they are", or "turned" from the person's ray to the
        camera's axes, whichever has the smaller error. So the mesh is never compared with a
        baseline that is worse than need be.
    """
    assert outcome.truth.landmarks_m is not None
    true_m = outcome.truth.landmarks_m[outcome.paired]
    mesh, plain, turned = (
        1e3 * metrics.limb_errors(outcome.stack(name).reshape(-1, 33, 3), true_m)
        for name in ("mesh_m", "perceived_m", "turned_m")
    )
    if mean(turned) < mean(plain):
        return mesh, turned, "turned"
    return mesh, plain, "as they are"


def space_rows(outcome: Outcome) -> tuple[list[Row], list[str]]:
    """Return the errors in space and remarks on them; empty if the truth has no depth."""
    truth = outcome.truth
    if truth.landmarks_m is None:
        return [], []
    mesh, perceived, baseline = pair_errors_mm(outcome)
    true_m = truth.landmarks_m[outcome.paired]
    ours_m = outcome.stack("mesh_m").reshape(-1, 33, 3)
    name = "turned_m" if baseline == "turned" else "perceived_m"
    perceived_m = outcome.stack(name).reshape(-1, 33, 3)
    # Both are measured on the same person-frames, or their ratio would compare different people.
    both, known = np.isfinite(mesh).any(1), np.isfinite(perceived).any(1)
    if known.any():
        both &= known
    left_out = int(len(both) - both.sum())
    mesh, perceived, true_m = mesh[both], perceived[both], true_m[both]
    ours_m, perceived_m = ours_m[both], perceived_m[both]
    sets = (ours_m, perceived_m)
    frame_means = [np.array([mean(row) for row in errors]) for errors in (mesh, perceived)]
    pa = [[metrics.procrustes_error(a, b) for a, b in zip(x, true_m)] for x in sets]
    depth = [metrics.limb_depth_errors(x, true_m) for x in sets]
    rows = [
        _mm("mpjpe_mm", "12 limbs, mean (MPJPE)", *map(mean, frame_means)),
        _mm("mpjpe_median_mm", "  median person-frame", *(percentile(e, 50) for e in frame_means)),
        _mm("mpjpe_p95_mm", "  95th percentile", *(percentile(e, 95) for e in frame_means)),
        _mm("pa_mpjpe_mm", "  after Procrustes (PA-MPJPE)", *(1e3 * mean(np.array(e)) for e in pa)),
        _mm("depth_mm", "  along the view only", *(1e3 * mean(e) for e in depth)),
    ]
    for k, name in enumerate(PAIRS):
        part = slice(2 * k, 2 * k + 2)
        rows.append(_mm(f"{name}_mm", f"  {name}s", mean(mesh[:, part]), mean(perceived[:, part])))
    if truth.surface is not None and not outcome.without_meshes:
        rows.append(Row("surface_mm", "surface, to the nearest vertex", "mm",
                        1e3 * mean(outcome.stack("surface_m"))))  # fmt: skip
    rows += _root_rows(outcome)
    what = f"world landmarks {baseline}" if known.any() else "none, the network is 2D"
    # A recording holds bodies only.
    if np.isnan(outcome.stack("perceived_px")).all():
        what = "none"
    notes = [f"perceived limbs in space: {what}"]
    if left_out:
        notes.append(f"{left_out} person-frames are not in the errors in space: not known in both")
    return rows, notes


def _mm(key: str, label: str, mesh: float, perceived: float) -> Row:
    return Row(key, label, "mm", mesh, perceived, ratio_to="perceived")


def _root_rows(outcome: Outcome) -> list[Row]:
    """Return the error of the hips' position, the same without each person's mean offset, and the
    error of the distance along z. The first and the last depend on the lens and on the people's
    height, which one camera cannot measure."""
    assert outcome.truth.landmarks_m is not None
    theirs = outcome.truth.landmarks_m[outcome.paired][:, metrics.HIPS].mean(1)
    ours = outcome.stack("mesh_m").reshape(-1, 33, 3)[:, metrics.HIPS].mean(1)
    offset, ratio = 1e3 * (ours - theirs), ours[:, 2] / theirs[:, 2]
    person, motion = outcome.truth.person[outcome.paired], offset.copy()
    for number in np.unique(person):
        # For each person: their distance is off by the error of their height.
        motion[person == number] -= np.nanmean(offset[person == number], axis=0)
    return [
        Row("root_mm", "the hips' place", "mm", mean(np.linalg.norm(offset, axis=1))),
        Row("root_motion_mm", "  less its mean offset", "mm", mean(np.linalg.norm(motion, axis=1))),
        Row("distance_pct", "distance from the camera", "%", 100 * mean(abs(ratio - 1))),
    ]


def image_rows(outcome: Outcome) -> list[Row]:
    """Return the errors of landmarks in the image, and the overlap of silhouettes."""
    truth, rows = outcome.truth, outcome.paired
    visible = truth.visible[rows]
    total = int(truth.visible[outcome.rows].sum())
    # By the shorter side, so that upright and wide clips count alike.
    lines = _LINES / min(truth.size) if truth.size else NAN
    close, pixels = [], []
    for name in ("mesh_px", "perceived_px"):
        ours = outcome.stack(name).reshape(-1, 33, 2)
        errors_px = np.linalg.norm(ours - truth.landmarks_px[rows], axis=-1)
        with np.errstate(invalid="ignore"):  # Comparing NaN: false, as it should be.
            near = (errors_px < _CLOSE * truth.torso_px[rows, None]) & visible
        # Perceived landmarks of no person at all were not recorded: they are not wrong.
        none = name == "perceived_px" and len(ours) and np.isnan(ours).all()
        close.append(NAN if none else _percent(int(near.sum()), total))
        pixels.append(percentile(errors_px[visible], 50) * lines)
    found = [
        row_of("close_pct", f"visible landmarks within {_CLOSE} torso", "%", close),
        row_of("landmarks_px", "visible landmarks, median, at 720 lines", "px", pixels),
    ]
    # A recording without meshes has no silhouettes.
    if truth.masks is not None and not outcome.without_meshes:
        overlaps = [outcome.stack("iou"), outcome.stack("perceived_iou")]
        missed = len(outcome.rows) - len(outcome.pairs)
        # A body that was not found has an overlap of 0, or finding few would look good.
        with_missed = [np.append(values, np.zeros(missed)) for values in overlaps]
        found += [
            row_of("iou", "silhouette, IoU", "", map(mean, overlaps)),
            row_of("iou_all", "  frames without a body as 0", "", map(mean, with_missed)),
        ]
    return found


def time_rows(perceive_ms: Sequence[float], fit_ms: Sequence[float]) -> list[Row]:
    """Return the times of perception and fit, which run one after the other here."""
    found = []
    for name, label, values in (
        ("perceive_ms", "perceive, a frame", perceive_ms),
        ("fit_ms", "fit, a window", fit_ms),
    ):
        for percent, tail in ((50, "median"), (95, "95th percentile")):
            key, value = f"{name}_p{percent}", percentile(np.array(values), percent)
            found.append(Row(key, f"{label}, {tail}", "ms", value))
    return found
