"""Measure the app on the sequences of a dataset."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from app import hardware
from app.config import Config, ConfigError, load_config
from app.evaluate.datasets import emdb, threedpw
from app.evaluate.datasets.joint_sets import LSP_14, SMPL_24_HIPS, SMPL_24_PELVIS, JointSet
from app.evaluate.datasets.rows import rows_of
from app.evaluate.datasets.ruler import Ruler
from app.evaluate.datasets.scores import Scores, compare_frame
from app.evaluate.datasets.sequence import DatasetSequence, in_camera, smpl_joints
from app.evaluate.datasets.smpl_files import WANTED, SmplFiles, load_smpl_files, smpl_paths
from app.evaluate.jobs import run_jobs
from app.evaluate.replay import Played, Timing, load_estimator, mean_focal_px, replay
from app.evaluate.report import Report
from app.evaluate.truth import TruthError
from app.setting import did_you_mean
from pipeline.body.smpl_landmarks import SMPL_VERTICES
from pipeline.runtime.one_thread import one_thread

_FAR_MM = 10.0
"""SMPL files whose joints are farther than this from a dataset's own are the wrong ones."""


@dataclass(frozen=True)
class Dataset:
    """A dataset that can be measured.

    Attributes:
        splits: Its parts, the usual one first.
        find: Returns the files of a part's sequences.
        joints: The joint set of its 24 joints.
    """

    splits: tuple[str, ...]
    find: Callable[[Path, str], list[Path]]
    joints: JointSet


DATASETS = {
    "3dpw": Dataset(threedpw.SPLITS, threedpw.find, SMPL_24_PELVIS),
    "emdb": Dataset(emdb.SPLITS, emdb.find, SMPL_24_HIPS),
}


@dataclass(frozen=True)
class Job:
    """One sequence to run, for a process of its own."""

    dataset: str
    path: Path
    smpl: Path | None
    config: Config
    without: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Result:
    """What `Job` gave: the scores of the sequence's actors on these joint sets."""

    name: str
    truth: str
    sets: tuple[JointSet, ...]
    scores: list[Scores]
    timing: Timing
    notes: tuple[str, ...]


def evaluate_dataset(
    dataset: str,
    folder: Path,
    config: Config | None = None,
    *,
    smpl: Path | None = None,
    split: str | None = None,
    only: Collection[str] = (),
    jobs: int = 1,
    without: Sequence[str] = (),
) -> tuple[list[Report], Report]:
    """Run every sequence of a dataset through the pipeline, with its own lens, and measure it.

    Args:
        dataset: "3dpw" or "emdb".
        folder: The dataset's folder.
        config: The app's configuration; None for its default. Of ``capture``, only the part of the
            clip is used.
        smpl: The folder of the official SMPL files. EMDB needs them; on 3DPW the vertices and the
            14 joints do. Its neutral body is fitted unless the configuration names another one.
        split: A part of the dataset; None for "test" and "emdb1".
        only: The names of the sequences to run; empty for all.
        jobs: The number of processes.
        without: Parts of the fit to switch off, as in `app.evaluate.evaluate`.

    Returns:
        The reports of the sequences, and the one of all of them.

    Raises:
        OSError: The folder holds no such dataset, or a file or picture is missing.
        TruthError: A file of the dataset is damaged, hostile or of another kind.
        ValueError: An SMPL file is none.
        ConfigError: The options do not go together.
        SourceError, WeightsError: As of `app.evaluate.evaluate`.
    """
    chosen, config = DATASETS[dataset], config or load_config()
    split = split or chosen.splits[0]
    if split not in chosen.splits:
        raise ConfigError(f"--split {split}: {dataset} has {', '.join(chosen.splits)}")
    if smpl is None and dataset == "emdb":
        raise ConfigError(f"--dataset emdb: it holds no joints: give --smpl DIR with {WANTED}")
    if config.capture.fov_deg is not None or config.capture.focal_px is not None:
        raise ConfigError("--dataset: the dataset has its own lens; leave --fov-deg and --focal-px")
    if smpl is not None and config.fit.body is None:
        config = replace(config, fit=replace(config.fit, body=smpl_paths(smpl).get("neutral")))
    paths = _chosen(chosen.find(folder, split), only)
    work = [Job(dataset, path, smpl, config, tuple(without)) for path in paths]
    for job in work:
        # All of them first: a missing picture is reported now, and not after hours of work.
        _read(job).check_pictures()
    results = run_jobs(_run, work, jobs)
    # EMDB's splits have its name already.
    kind = split if split.startswith(dataset) else f"{dataset} {split}"
    settings = tuple(f"without {name}" for name in without) + _part(config)
    reports = [_report([one], one.name, one.truth, kind, settings) for one in results]
    count = f"{len(results)} sequence" + "s" * (len(results) > 1)
    return reports, _report(results, "all", count, kind, settings)


def _chosen(paths: list[Path], only: Collection[str]) -> list[Path]:
    names = {path.stem.removesuffix("_data"): path for path in paths}
    for name in only:
        if name not in names:
            hint = did_you_mean(name, names)
            raise ConfigError(f"--sequence {name}: not among the {len(names)} of this split{hint}")
    return [path for name, path in names.items() if not only or name in only]


def _part(config: Config) -> tuple[str, ...]:
    capture = config.capture
    if capture.start_s == 0 and capture.seconds is None:
        return ()
    length = "" if capture.seconds is None else f" for {capture.seconds:g} s"
    return (f"of each sequence from {capture.start_s:g} s{length}",)


@functools.cache
def _smpl(folder: Path) -> SmplFiles:
    # Loading takes seconds, and a process runs many sequences.
    return load_smpl_files(folder)


def _read(job: Job) -> DatasetSequence:
    smpl = None if job.smpl is None else _smpl(job.smpl)
    if job.dataset == "emdb":
        assert smpl is not None
        return emdb.read(job.path, smpl)
    sequence = threedpw.read(job.path)
    if smpl is not None:
        for actor in sequence.actors:
            smpl.body(actor.gender)
    return sequence


def _run(job: Job) -> Result:
    sequence, config = _read(job), job.config
    focal_px = mean_focal_px(sequence.intrinsics)
    estimator = load_estimator(config, job.without, focal_px, sequence.intrinsics)
    smpl = None if job.smpl is None else _smpl(job.smpl)
    smpl_mesh = len(estimator.body.v_template) == SMPL_VERTICES
    ruler = _ruler(job.dataset, smpl if smpl_mesh else None)
    scores = [Scores.none(actor.valid, ruler.sets) for actor in sequence.actors]
    timing = Timing()
    try:
        with one_thread():
            frames = replay(estimator, str(sequence.pictures), config, timing)
            for played in _checked(frames, sequence, config):
                # There may be more pictures than truth.
                if played.id < sequence.frames:
                    compare_frame(played, sequence, scores, ruler)
    finally:
        estimator.close()
    # To standard error: standard output is for the tables.
    print(f"{sequence.name}: done", file=sys.stderr, flush=True)
    notes = _notes(job.dataset, sequence, smpl, ruler, estimator.body.name)
    return Result(sequence.name, sequence.truth.name, ruler.sets, scores, timing, notes)


def _ruler(dataset: str, smpl: SmplFiles | None) -> Ruler:
    sets: tuple[JointSet, ...] = (DATASETS[dataset].joints,)
    if dataset == "3dpw" and smpl is not None and smpl.lsp_regressor is not None:
        # First, for the field's figures on 3DPW are those of this set.
        sets = (LSP_14, *sets)
    return Ruler(sets, smpl)


def _checked(
    frames: Iterable[Played], sequence: DatasetSequence, config: Config
) -> Iterator[Played]:
    """Yield a sequence's frames.

    Raises:
        TruthError: The source had to skip a picture, or the pictures have another size than the
            truth says.
    """
    following = 0 if config.capture.start_s == 0 else None
    for played in frames:
        if following is not None and played.id != following:
            raise TruthError(f"{sequence.picture(following)}: this picture cannot be decoded")
        if sequence.size not in (None, played.size):
            raise TruthError(f"{sequence.truth}: of pictures of (height, width) {sequence.size}; "
                             f"they are {played.size}")  # fmt: skip
        following = played.id + 1
        yield played
    if config.capture.seconds is None and following is not None and following < sequence.frames:
        raise TruthError(f"{sequence.picture(following)}: this picture cannot be decoded")


def _notes(
    dataset: str, sequence: DatasetSequence, smpl: SmplFiles | None, ruler: Ruler, body: str
) -> tuple[str, ...]:
    notes = [f"our joints are those of the fitted body: {body}"]
    if ruler.smpl is None:
        what = "PVE" if dataset == "emdb" else "PVE and the 14 joints"
        notes.append(f"{what}: give --smpl DIR with {WANTED}, and no other --body")
    elif dataset == "3dpw" and LSP_14 not in ruler.sets:
        notes.append("the 14 joints: add J_regressor_h36m.npy to the folder of --smpl")
    if dataset == "3dpw" and smpl is not None:
        drift_mm = _drift_mm(sequence, smpl)
        if drift_mm > _FAR_MM:
            notes.append(f"{sequence.name}: the SMPL files' joints are {drift_mm:.0f} mm from "
                         "jointPositions: are they the right files?")  # fmt: skip
    return tuple(notes)


def _drift_mm(sequence: DatasetSequence, smpl: SmplFiles) -> float:
    """Return the median distance of the SMPL files' joints from the dataset's own ones."""
    found = [np.zeros(0)]
    for actor in sequence.actors:
        body = smpl.body(actor.gender)
        joints = in_camera(
            smpl_joints(body, actor.pose, actor.betas, actor.transl_m), actor.to_camera
        )
        found.append(np.linalg.norm(joints - actor.joints_m, axis=-1)[actor.valid].ravel())
    distances = np.concatenate(found)
    return 1e3 * float(np.median(distances)) if len(distances) else 0.0


def _report(
    results: Sequence[Result], name: str, truth: str, kind: str, settings: tuple[str, ...]
) -> Report:
    scores = [one for result in results for one in result.scores]
    rows = rows_of(scores, results[0].sets, [result.timing for result in results])
    notes = dict.fromkeys(note for result in results for note in result.notes)
    weight = sum(float(one.found.sum()) for one in scores)
    return Report(name, truth, kind, tuple(rows), weight, settings, (*notes, hardware.summary()))
