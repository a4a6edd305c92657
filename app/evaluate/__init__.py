"""``bodystream evaluate``: measure the app's bodies against a truth.

Example:
    from app.evaluate import evaluate

    report = evaluate("clip.mp4", "clip_truth.npz")
    print(report.row("mpjpe_mm").mesh, report.row("mpjpe_mm").ratio)
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from app.config import Config, ConfigError, load_config
from app.evaluate import figures
from app.evaluate.compare import Pair, Tally, compare
from app.evaluate.datasets.run import evaluate_dataset
from app.evaluate.given import check_given
from app.evaluate.metrics import mean
from app.evaluate.motion import motion_rows
from app.evaluate.outcome import Outcome, Row
from app.evaluate.recorded import load_bodies
from app.evaluate.replay import (
    Played,
    Timing,
    load_estimator,
    mean_focal_px,
    replay,
)
from app.evaluate.report import Report, Worst
from app.evaluate.truth import Truth, TruthError, load_truth
from app.evaluate.world_rows import world_rows
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.one_thread import one_thread

__all__ = [
    "Report",
    "Row",
    "Truth",
    "TruthError",
    "evaluate",
    "evaluate_dataset",
    "evaluate_poses",
    "load_truth",
]


def evaluate(
    clip: str | Path,
    truth: str | Path | Truth | None,
    config: Config | None = None,
    *,
    without: Sequence[str] = (),
    given: Sequence[str] = (),
    truth_lens: bool = False,
    frames: Collection[int] | None = None,
    worst: int = 0,
) -> Report:
    """Run a clip through the pipeline, frame by frame, and measure its bodies.

    Args:
        clip: The path of the clip.
        truth: A truth file as `app.evaluate.truth` describes it, or a truth already read; None for
            a clip without people, in which every body is an error.
        config: The app's configuration; None for its default. Of ``capture``, only the part of the
            clip and the lens are used.
        without: Parts of the fit to switch off; `replay.switches` lists them.
        given: Parts of the truth that replace what is perceived; `given.GIVEN` lists them.
        truth_lens: Whether to use the truth's focal length.
        frames: The frames that are measured; None for all. Every frame is run in any case.
        worst: How many of the worst person-frames to list.

    Returns:
        The figures of the clip.

    Raises:
        OSError: The truth file cannot be read.
        SourceError: The clip cannot be read.
        WeightsError: A network's weights are missing.
        TruthError: The truth is unreadable or belongs to another clip.
        ConfigError: A setting is unknown or does not fit this truth.
    """
    config = config or load_config()
    truth = load_truth(truth) if isinstance(truth, str | Path) else truth
    if truth is None and (given or truth_lens):
        raise ConfigError("--given and --truth-lens need a truth")
    if truth is not None:
        check_given(given, truth)
    focal_px = _focal_of(truth) if truth_lens else None
    # True world landmarks must reach the fit unchanged: the lifter corrects the perceiver's only.
    without = (*without, "lifter") if "world" in given and "lifter" not in without else without
    # After the checks of the truth, because loading takes seconds.
    estimator = load_estimator(config, without, focal_px)
    try:
        with one_thread():
            report = _measure(estimator, str(clip), truth, config, given, frames, worst)
    finally:
        estimator.close()
    settings = [f"without {name}" for name in without] + [f"given {name}" for name in given]
    settings += ["the truth's lens"] if truth_lens else []
    return replace(report, settings=tuple(settings))


def evaluate_poses(
    poses: str | Path,
    truth: str | Path | Truth,
    *,
    frames: Collection[int] | None = None,
    worst: int = 0,
) -> Report:
    """Measure the bodies of a recording against a truth, without running the clip.

    All frames of the truth's clip are measured: those without a row have no body. The file has
    nothing perceived, so that column is empty; surfaces and silhouettes need the file's vertices.

    Args:
        poses: The npz that `run --poses` wrote.
        truth: A truth file, or a truth already read.
        frames: The frames that are measured; None for all.
        worst: How many of the worst person-frames to list.

    Returns:
        The figures of the recording.

    Raises:
        OSError: A file cannot be read.
        TruthError: The truth is unreadable or belongs to another clip.
        ExportError: The recording is unreadable.
        ConfigError: None of the frames is in the clip.
    """
    truth = load_truth(truth) if isinstance(truth, str | Path) else truth
    recorded = load_bodies(poses)
    pairs, tallies, _, _ = _compared(recorded.frames(truth), truth, recorded.faces, frames)
    outcome = Outcome.of(truth, pairs, tallies, without_meshes=not len(recorded.faces))
    return _report(recorded.name, outcome, [], worst)


def _focal_of(truth: Truth | None) -> float:
    if truth is None or truth.intrinsics is None:
        raise ConfigError("--truth-lens: this truth has no intrinsics")
    return mean_focal_px(truth.intrinsics)


def _measure(
    estimator: BodyEstimator,
    clip: str,
    truth: Truth | None,
    config: Config,
    given: Sequence[str],
    only: Collection[int] | None,
    worst: int,
) -> Report:
    timing = Timing()
    results = replay(estimator, clip, config, timing, truth, given)
    pairs, tallies, tracks, total = _compared(results, truth, estimator.body.faces, only)
    times = figures.time_rows(timing.perceive_ms, timing.fit_ms)
    name = Path(clip).name
    if truth is None:
        rows = [*figures.nobody_rows(tallies, len(tracks)), *times]
        with_body = [tally.frame for tally in tallies if tally.bodies]
        notes = (f"frames with a body: {ranges(with_body)}",) if with_body else ()
        return Report(name, "nobody", "nobody", tuple(rows), len(tallies), notes=notes)
    # Only a whole clip can be compared by its number of frames.
    if config.capture.start_s == 0 and config.capture.seconds is None:
        size = truth.size or (0, 0)
        truth.check_clip(name, size=size, frames=total)
    return _report(name, Outcome.of(truth, pairs, tallies), times, worst)


def _compared(
    results: Iterable[Played],
    truth: Truth | None,
    faces: np.ndarray,
    only: Collection[int] | None,
) -> tuple[list[Pair], list[Tally], set[int], int]:
    """Return the pairs, the counts and the tracks of the frames ``only``, and how many frames there
    are in all."""
    pairs: list[Pair] = []
    tallies: list[Tally] = []
    tracks: set[int] = set()
    total = 0
    for played in results:
        total += 1
        # Played all the same: tracking and the fit depend on the frames before.
        if only is not None and played.id not in only:
            continue
        count = len(played.bodies)
        if truth is None:
            tallies.append(Tally(played.id, count, count, 0))
        else:
            found, tally = compare(played, truth, faces)
            pairs += found
            tallies.append(tally)
        tracks.update(played.bodies.track.tolist())
    if not tallies:
        raise ConfigError("--frames: none of them is in this part of the clip")
    return pairs, tallies, tracks, total


def _report(clip: str, outcome: Outcome, times: list[Row], worst: int) -> Report:
    space, notes = figures.space_rows(outcome) if len(outcome.pairs) else ([], [])
    in_world, where = world_rows(outcome)
    rows = [
        *figures.presence_rows(outcome),
        *space,
        *(figures.image_rows(outcome) if len(outcome.rows) else []),
        *motion_rows(outcome),
        *in_world,
        *times,
    ]
    return Report(
        clip,
        outcome.truth.name,
        outcome.truth.kind,
        tuple(rows),
        len(outcome.rows),
        notes=(*notes, *where),
        worst=_worst(outcome, worst),
    )


def _worst(outcome: Outcome, count: int) -> tuple[Worst, ...]:
    """Return the person-frames with the largest mesh errors in space, the largest first."""
    if not count or outcome.truth.landmarks_m is None or not outcome.pairs:
        return ()
    mesh, perceived, _ = figures.pair_errors_mm(outcome)
    errors = np.array([mean(row) for row in mesh])
    # NaN is sorted last; such a person-frame has no error to rank.
    order = [int(k) for k in np.argsort(-errors) if np.isfinite(errors[k])][:count]
    truth = outcome.truth
    return tuple(
        Worst(
            int(truth.frame[outcome.pairs[k].row]),
            int(truth.person[outcome.pairs[k].row]),
            outcome.pairs[k].track,
            float(errors[k]),
            mean(perceived[k]),
        )
        for k in order
    )


def ranges(numbers: Sequence[int]) -> str:
    """Return rising whole numbers as text, such as "3-7, 12"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def frames_of(text: str) -> frozenset[int]:
    """Return the numbers in a text such as "0-67,120".

    Raises:
        ConfigError: The text has another form.
    """
    found: set[int] = set()
    for part in text.split(","):
        # Seven digits are days of video; a longer range would only fill the memory.
        if not re.fullmatch("[0-9]{1,7}(-[0-9]{1,7})?", part.strip()):
            raise ConfigError(f"--frames: ranges such as 0-67,120, not {text[:40]!r}")
        first, _, last = part.strip().partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
