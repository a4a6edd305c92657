"""Evaluate a folder of clips with their truths; and the command that evaluates one clip or many."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app.config import Config, ConfigError, load_config
from app.evaluate import Report, evaluate, evaluate_dataset, frames_of, reuse
from app.evaluate.jobs import run_jobs
from app.evaluate.report import print_report, print_suite, write_json
from app.options import EvaluateOptions
from app.outputs.overwrite import check_overwrites
from app.outputs.paths import reserve_file

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
        if json is not None:
            write_json(reports, json.path, pool=chosen.suite is not None)
    if chosen.suite is not None:
        print_suite(reports, sys.stdout)
    else:
        print_report(reports[0], sys.stdout)
    return 0


def _run_dataset(chosen: EvaluateOptions, config: Config) -> int:
    """Evaluate a dataset, print the figures and return the exit code. Errors as `run_command`."""
    if chosen.clip is None:
        raise ConfigError(f"--dataset {chosen.dataset}: give the dataset's folder")
    for name in ("truth", "nobody", "suite", "frames", "worst", "truth_lens", "given"):
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
