"""Evaluate a folder of clips with their truths; and the command that evaluates one clip or many."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from app.config import Config, ConfigError, load_config
from app.evaluate import Report, evaluate, frames_of, reuse
from app.evaluate.report import print_report, print_suite, write_json

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
    if jobs <= 1:
        return [_evaluate_clip(item) for item in work]
    # Spawned, not forked: torch and OpenCV have started threads, and a forked process lacks them.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(work)), context) as pool:
        futures = [pool.submit(_evaluate_clip, item) for item in work]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _evaluate_clip(item: tuple[Path, Path, Config, dict[str, Any]]) -> Report:
    clip, truth, config, options = item
    report = evaluate(clip, truth, config, **options)
    print(f"{clip.name}: done", file=sys.stderr, flush=True)
    return report


def run_command(args: argparse.Namespace, config: Config) -> int:
    """``python -m app evaluate``, its flags parsed. Raises as `evaluate` does."""
    if args.reuse is not None:
        return reuse.run(args.reuse, args.json, sys.stdout)
    chosen = [args.truth is not None, args.nobody, args.suite is not None]
    if sum(chosen) != 1:
        raise ConfigError("give one of --truth FILE, --nobody, --suite FOLDER")
    if (args.clip is None) != (args.suite is not None):
        raise ConfigError("give a CLIP with --truth or --nobody, and none with --suite")
    if args.jobs < 1 or args.worst < 0:
        raise ConfigError("--jobs is 1 or more, --worst 0 or more")
    options: dict[str, Any] = {
        "without": tuple(dict.fromkeys(args.without)),
        "given": tuple(dict.fromkeys(args.given)),
        "truth_lens": args.truth_lens,
        "frames": None if args.frames is None else frames_of(args.frames),
        "worst": args.worst,
    }
    reports: Sequence[Report]
    if args.suite is not None:
        reports = evaluate_suite(args.suite, config, jobs=args.jobs, **options)
    else:
        reports = [evaluate(args.clip, args.truth, config, **options)]
    if args.json is not None:
        write_json(reports, args.json, pool=args.suite is not None)
    if args.suite is not None:
        print_suite(reports, sys.stdout)
    else:
        print_report(reports[0], sys.stdout)
    return 0
