"""Evaluate a folder of clips with their truths; and the command that evaluates one clip or many."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app.config import Config, ConfigError, load_config
from app.evaluate import (
    Report,
    evaluate,
    evaluate_dataset,
    evaluate_poses,
    frames_of,
    reuse,
)
from app.evaluate.jobs import run_jobs
from app.evaluate.report import print_report, print_suite, write_json
from app.options import EvaluateOptions
from app.outputs.overwrite import check_overwrites
from app.outputs.paths import reserve_file
from app.outputs.reservation import Reservation

_TRUTH = "_truth.npz"


def pairs_of(folder: Path) -> list[tuple[Path, Path]]:
    """Return every NAME.mp4 of a folder with its NAME_truth.npz, sorted by name.

    Raises:
        FileNotFoundError: There is no such pair.
    """
    truths = sorted(folder.glob(f"*{_TRUTH}")) if folder.is_dir() else []
    clips = [(path.with_name(path.name.removesuffix(_TRUTH) + ".mp4"), path) for path in truths]
    found = [(clip, truth) for clip, truth in clips if clip.exists()]
    if not found:
        raise FileNotFoundError(2, f"no NAME.mp4 with its NAME{_TRUTH} in there", str(folder))
    return found


def evaluate_suite(
    folder: str | Path, config: Config | None = None, *, jobs: int = 1, **options: Any
) -> list[Report]:
    """Evaluate every clip of a folder.

    Args:
        folder: A folder with NAME.mp4 and NAME_truth.npz.
        config: The app's configuration; None for its default.
        jobs: The number of processes.
        **options: Further arguments of `app.evaluate.evaluate`.

    Returns:
        The reports, sorted by the clips' names.

    Raises:
        FileNotFoundError: The folder has no clip with a truth.
        Exception: As `app.evaluate.evaluate` raises; the first error ends the suite.
    """
    pairs = pairs_of(Path(folder))
    work = [(clip, truth, config or load_config(), options) for clip, truth in pairs]
    return run_jobs(_evaluate_clip, work, jobs)


def _evaluate_clip(item: tuple[Path, Path, Config, dict[str, Any]]) -> Report:
    clip, truth, config, options = item
    report = evaluate(clip, truth, config, **options)
    # To standard error: standard output is for the tables.
    print(f"{clip.name}: done", file=sys.stderr, flush=True)
    return report


def evaluate_recordings(
    folder: str | Path, poses: str | Path, *, jobs: int = 1, **options: Any
) -> list[Report]:
    """Measure a recording of every clip of a folder, without running the clips.

    Args:
        folder: A folder with NAME.mp4 and NAME_truth.npz.
        poses: A folder with a NAME.npz for each clip, as `run --poses` writes it.
        jobs: The number of processes.
        **options: Further arguments of `app.evaluate.evaluate_poses`.

    Returns:
        The reports, sorted by the clips' names.

    Raises:
        FileNotFoundError: The folder has no clip with a truth, or a clip has no recording.
        Exception: As `app.evaluate.evaluate_poses` raises; the first error ends the suite.
    """
    work = [
        (Path(poses) / f"{clip.stem}.npz", truth, options) for clip, truth in pairs_of(Path(folder))
    ]
    for recording, _, _ in work:
        # Now, and not after the clips before it.
        if not recording.exists():
            raise FileNotFoundError(2, "there is no such recording", str(recording))
    return run_jobs(_evaluate_recording, work, jobs)


def _evaluate_recording(item: tuple[Path, Path, dict[str, Any]]) -> Report:
    poses, truth, options = item
    return evaluate_poses(poses, truth, **options)


def _check_json(folder: Path | None, json: Path | None) -> None:
    """Raise OutputError where the file of the figures is a clip or a truth of a folder."""
    if folder is None or json is None or not folder.is_dir():
        return
    inputs = [path for path in folder.iterdir() if path.suffix in (".mp4", ".npz")]
    check_overwrites([(f"a file of {folder}", path) for path in inputs], [("--json", json)])


def run_command(chosen: EvaluateOptions, config: Config) -> int:
    """Evaluate one clip or a folder of them, print the figures and return the exit code.

    Args:
        chosen: The command's own options.
        config: The profile with the flags over it.

    Raises:
        ConfigError: Options that do not go together.
        OutputExists, OutputError: The file of the figures cannot be written.
        Exception: As `evaluate` raises.
    """
    for folder in (chosen.suite, chosen.reuse):
        _check_json(folder, chosen.json)
    if chosen.reuse is not None:
        with ExitStack() as stack:
            json = reserve_file(stack, "--json", chosen.json, config.output.existing)
            return reuse.run(chosen.reuse, None if json is None else json.path, sys.stdout)
    if chosen.dataset is not None:
        return _run_dataset(chosen, config)
    for flag, given in (
        ("--split", chosen.split), ("--sequence", chosen.sequence), ("--smpl", chosen.smpl)
    ):  # fmt: skip
        if given:
            raise ConfigError(f"{flag} goes with --dataset")
    truths = [chosen.truth is not None, chosen.nobody, chosen.suite is not None]
    if chosen.poses is not None:
        return _run_poses(chosen, config)
    if sum(truths) != 1:
        raise ConfigError("give one of --truth FILE, --nobody, --suite FOLDER, --dataset NAME")
    if (chosen.clip is None) != (chosen.suite is not None):
        raise ConfigError("give a CLIP with --truth or --nobody, and none with --suite")
    options: dict[str, Any] = {
        # A repeated name counts once, in the order given.
        "without": tuple(dict.fromkeys(chosen.without)),
        "given": tuple(dict.fromkeys(chosen.given)),
        "truth_lens": chosen.truth_lens,
        "frames": None if chosen.frames is None else frames_of(chosen.frames),
        "worst": chosen.worst,
    }
    reports: Sequence[Report]
    with ExitStack() as stack:
        json = reserve_file(stack, "--json", chosen.json, config.output.existing)
        if chosen.suite is not None:
            reports = evaluate_suite(chosen.suite, config, jobs=chosen.jobs, **options)
        else:
            reports = [evaluate(str(chosen.clip), chosen.truth, config, **options)]
        return _finish(reports, chosen.suite is not None, json)


def _finish(reports: Sequence[Report], pool: bool, json: Reservation | None) -> int:
    """Write and print the figures of one clip or, with ``pool``, of a folder; return 0."""
    if json is not None:
        write_json(reports, json.path, pool=pool)
    if pool:
        print_suite(reports, sys.stdout)
    else:
        print_report(reports[0], sys.stdout)
    return 0


def _run_poses(chosen: EvaluateOptions, config: Config) -> int:
    """Measure one recording or a folder of them. Errors as `run_command`."""
    # What a run would do differently cannot change a recording.
    for name in ("clip", "nobody", "truth_lens", "given", "without"):
        if getattr(chosen, name):
            shown = "CLIP" if name == "clip" else f"--{name.replace('_', '-')}"
            raise ConfigError(f"{shown} does not go with --poses, which runs nothing")
    if (chosen.truth is None) == (chosen.suite is None):
        raise ConfigError("--poses: give --truth FILE, or --suite FOLDER with a folder of --poses")
    frames = None if chosen.frames is None else frames_of(chosen.frames)
    options: dict[str, Any] = {"frames": frames, "worst": chosen.worst}
    with ExitStack() as stack:
        json = reserve_file(stack, "--json", chosen.json, config.output.existing)
        poses = chosen.poses
        assert poses is not None
        if chosen.suite is not None:
            reports = evaluate_recordings(chosen.suite, poses, jobs=chosen.jobs, **options)
        else:
            assert chosen.truth is not None
            reports = [evaluate_poses(poses, chosen.truth, **options)]
        return _finish(reports, chosen.suite is not None, json)


def _run_dataset(chosen: EvaluateOptions, config: Config) -> int:
    """Evaluate a dataset, print the figures and return the exit code. Errors as `run_command`."""
    if chosen.clip is None:
        raise ConfigError(f"--dataset {chosen.dataset}: give the dataset's folder")
    for name in ("truth", "nobody", "suite", "frames", "worst", "truth_lens", "given", "poses"):
        if getattr(chosen, name):
            raise ConfigError(f"--{name.replace('_', '-')} does not go with --dataset")
    with ExitStack() as stack:
        json = reserve_file(stack, "--json", chosen.json, config.output.existing)
        reports, total = evaluate_dataset(
            str(chosen.dataset),
            Path(chosen.clip),
            config,
            smpl=chosen.smpl,
            split=chosen.split,
            only=chosen.sequence,
            jobs=chosen.jobs,
            without=tuple(dict.fromkeys(chosen.without)),
        )
        if json is not None:
            write_json(reports, json.path, pool=True, total=total)
    print_suite(reports, sys.stdout, total)
    print_report(total, sys.stdout)
    return 0
