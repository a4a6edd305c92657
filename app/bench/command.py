"""``bench`` with its options parsed."""

from __future__ import annotations

import json
import shlex
import sys
import traceback
from pathlib import Path

from app import hardware
from app.bench import masks, readme, results, view
from app.bench.record import Bench, Options
from app.bench.rows import ROWS, Row, choose, with_workers
from app.bench.subject import missing
from app.config import ConfigError, size_of
from app.options import BenchOptions
from pipeline.core.program import program


def run_command(options: BenchOptions, rows: tuple[Row, ...] = ROWS) -> int:
    """Measure the rows that are not there yet, write the file after each, and show them.

    Args:
        options: The command's options.
        rows: All rows there are.

    Returns:
        The exit code: 1 where a row failed, or one that was named cannot be measured here.

    Raises:
        ConfigError, OSError, ValueError: The options or the files are wrong.
    """
    if options.compare_masks is not None:
        return _compare_masks(options.compare_masks, options)
    if options.upstream is not None and not options.upstream.is_dir():
        raise ConfigError(
            f"--upstream: {options.upstream} is no folder; give a clone of "
            "facebookresearch/sam-3d-body"
        )
    chosen = with_workers(choose(options.rows, rows), options.workers)
    # Before anything is measured, so that `--list` answers at once.
    reasons = {row.id: missing(row, options.weights, options.upstream) for row in chosen}
    if options.list:
        view.print_list(chosen, reasons, sys.stdout)
        return 0
    if options.readme is not None and options.rows is None:
        return _update_readme(options.readme, options.out)
    bench = Bench(_options(options))
    path = options.out / hardware.file_name(bench.hardware)
    absent = {name: reason for name, reason in reasons.items() if reason is not None}
    failed = _measure_all(bench, path, [r for r in chosen if r.id not in absent], rows, options)
    document = results.read(path)
    if options.json:
        print(json.dumps(document, indent=1))
    else:
        view.print_results(document, [row.id for row in chosen], absent, sys.stdout)
    if options.readme is not None:
        _update_readme(options.readme, options.out)
    return 1 if failed or (options.rows is not None and absent) else 0


def _compare_masks(clip: Path, options: BenchOptions) -> int:
    result = masks.compare(clip, options.people, options.weights, "auto")
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        masks.show(result, sys.stdout)
    return 0


def _options(options: BenchOptions) -> Options:
    return Options(
        windows=options.windows,
        warm=options.warm,
        size=size_of(options.size),
        people=options.people,
        clip=options.clip,
        weights_folder=options.weights,
        upstream_folder=options.upstream,
    )


def _measure_all(
    bench: Bench, path: Path, todo: list[Row], rows: tuple[Row, ...], options: BenchOptions
) -> bool:
    """Measure every row, writing the file after each; return whether one failed."""
    failed = False
    order = [row.id for row in rows]
    with view.Progress() as progress:
        for number, row in enumerate(todo, 1):
            document = results.read(path)
            known = results.finished(document, row.id, bench.fingerprint(row))
            # A profile needs a run, also of a row that is known.
            if known and not (options.again or options.profile):
                progress.say(f"{row.id}: measured before (--again measures it anew)")
                continue
            progress.row(number, len(todo), row.id)
            try:
                record = bench.measure(row, progress, path if options.profile else None)
            except Exception as error:
                # The other rows are still measured; the exit code reports the failure.
                failed = True
                progress.say(f"{row.id}: failed: {_first_line(error)}")
                if options.debug:
                    traceback.print_exc()
                continue
            machine = bench.hardware_with_ceilings(document["hardware"])
            # After each row: an interrupted run keeps what it has measured.
            results.write(path, results.merge(document, record, machine, command_line(), order))
            progress.say(f"{row.id}: {record['total_ms_p50']} ms, in {path}")
    return failed


def command_line() -> str:
    """Return this run's command as a person would type it."""
    return " ".join([program(), *map(shlex.quote, sys.argv[1:])])


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"


def _update_readme(page: Path, folder: Path) -> int:
    changed = readme.update(page, folder)
    words = "the tables are new" if changed else "nothing to change"
    print(f"{page}: {words}", file=sys.stderr)
    return 0
