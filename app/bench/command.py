"""``python -m app bench``, its flags parsed."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import traceback
from pathlib import Path

from app.bench import hardware, masks, readme, results, view
from app.bench.record import Bench, Options
from app.bench.rows import ROWS, Row, choose
from app.bench.subject import missing
from app.config import ConfigError, size_of


def run_command(args: argparse.Namespace, rows: tuple[Row, ...] = ROWS) -> int:
    """Measure rows that are not there yet, write after each, show them. 0; 1 where a row failed or
    one asked for by name cannot be measured here. Raises ConfigError, OSError, ValueError."""
    if args.compare_masks is not None:
        return _compare_masks(args)
    chosen = choose(args.rows, rows)
    reasons = {row.id: missing(row, args.weights) for row in chosen}
    if args.list:
        view.print_list(chosen, reasons, sys.stdout)
        return 0
    if args.readme is not None and args.rows is None:
        return _update_readme(args)
    bench = Bench(_options(args))
    path = args.out / hardware.file_name(bench.hardware)
    absent = {name: reason for name, reason in reasons.items() if reason is not None}
    failed = _measure_all(bench, path, [r for r in chosen if r.id not in absent], rows, args)
    document = results.read(path)
    if args.json:
        print(json.dumps(document, indent=1))
    else:
        view.print_results(document, [row.id for row in chosen], absent, sys.stdout)
    if args.readme is not None:
        _update_readme(args)
    return 1 if failed or (args.rows is not None and absent) else 0


def _compare_masks(args: argparse.Namespace) -> int:
    result = masks.compare(args.compare_masks, args.people, args.weights, "auto")
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        masks.show(result, sys.stdout)
    return 0


def _options(args: argparse.Namespace) -> Options:
    if args.windows < 1 or args.people < 1 or args.warm < 0:
        raise ConfigError("--windows and --people are 1 or more, --warm 0 or more")
    return Options(
        windows=args.windows,
        warm=args.warm,
        size=size_of(args.size),
        people=args.people,
        clip=args.clip,
        weights_folder=args.weights,
    )


def _measure_all(
    bench: Bench, path: Path, todo: list[Row], rows: tuple[Row, ...], args: argparse.Namespace
) -> bool:
    """Every row, the file written after each; True if one failed."""
    failed = False
    order = [row.id for row in rows]
    with view.Progress() as progress:
        for number, row in enumerate(todo, 1):
            document = results.read(path)
            known = results.finished(document, row.id, bench.fingerprint(row))
            if known and not (args.again or args.profile):
                progress.say(f"{row.id}: measured before (--again measures it anew)")
                continue
            progress.row(number, len(todo), row.id)
            try:
                record = bench.measure(row, progress, path if args.profile else None)
            except Exception as error:
                # One row's failure must not cost the others; the exit code tells of it.
                failed = True
                progress.say(f"{row.id}: failed: {_first_line(error)}")
                if args.debug:
                    traceback.print_exc()
                continue
            machine = bench.hardware_with_ceilings(document["hardware"])
            results.write(path, results.merge(document, record, machine, command_line(), order))
            progress.say(f"{row.id}: {record['total_ms_p50']} ms, in {path}")
    return failed


def command_line() -> str:
    """This run's command as one would type it."""
    program = Path(sys.argv[0]).name
    start = "python -m app" if program == "__main__.py" else program
    return " ".join([start, *map(shlex.quote, sys.argv[1:])])


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no message'}"


def _update_readme(args: argparse.Namespace) -> int:
    changed = readme.update(args.readme, args.out)
    words = "the tables are new" if changed else "nothing to change"
    print(f"{args.readme}: {words}", file=sys.stderr)
    return 0
