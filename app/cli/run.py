"""``run``: draw bodies over the people of a source, or of several."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from app.cli.flags import command
from app.cli.signals import stop_by_signal
from app.cli.system import keep_memory_together
from app.config import Config, ConfigError, OutputConfig, calibrated
from app.files import input_files
from app.options import RunOptions
from app.outputs.catalog import entries
from app.run import check_outputs, prepare, run_prepared
from pipeline.core.redact import without_credentials


def run(options: RunOptions, config: Config) -> int:
    """Run the sources to their ends or until a signal comes; return the exit code."""
    # Wrong options are reported before anything slow is imported.
    check_outputs(config.output)
    config = calibrated(config)
    if len(options.source) > 1 or options.cluster is not None:
        return _run_many(options, config)
    config = replace(config, source=options.source[0])

    from app.run_report import ProgressView, print_report

    prepare(options, config)
    # With JSON lines on standard output, everything for people goes to standard error.
    table_stream = sys.stderr if _writes_stdout(config.output) else sys.stdout
    keep_memory_together()
    with stop_by_signal() as stop:
        view = ProgressView(options.quiet)
        report, renamed = run_prepared(options, config, view, stop.event, own_process=True)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not options.quiet:
        print_report(report, table_stream, renamed)
    return stop.exit_code(0)


def _run_many(options: RunOptions, config: Config) -> int:
    from app.multi_run import outputs_of, run_many
    from app.outputs.overwrite import check_overwrites
    from app.outputs.paths import prepare_outputs, print_notes, reserve_outputs
    from app.outputs.unfinished import command_of
    from app.run_report import ProgressView, print_report
    from app.run_workers import run_in_workers
    from app.source_names import names_of
    from app.source_result import NOT_BEGUN, Result
    from pipeline.capture.addresses import STANDARD_INPUT

    if set(STANDARD_INPUT) & set(options.source):
        raise ConfigError("-: standard input is read by itself; give no other source beside it")
    names = dict(zip(names_of(options.source), options.source))
    outputs, written = {}, []
    for name, source in names.items():
        outputs[name] = output = outputs_of(config.output, name)
        # All sources are checked before the first one begins.
        prepare_outputs(output, input_files(options, config))
        own = {entry.flag: getattr(output, entry.name) for entry in entries()}
        written += [(f"{flag} of {source}", path) for flag, path in own.items() if path]
    check_overwrites((), written)
    keep_memory_together()
    with ExitStack() as stack:
        stop = stack.enter_context(stop_by_signal())
        configs, reserved = {}, {}
        for name, source in names.items():
            own_config = replace(config, source=source, output=outputs[name])
            command = command_of([source], own_config)
            mine = stack.enter_context(reserve_outputs(outputs[name], command))
            print_notes(mine.notes)
            reserved[name] = mine
            configs[name] = replace(own_config, output=replace(outputs[name], **mine.paths))
        view = stack.enter_context(ProgressView(options.quiet))
        # Signals stay this process's: it ends its workers as it ends its threads.
        workers = options.workers
        run = run_many if workers == 1 else partial(run_in_workers, workers=workers)
        if options.cluster is not None:
            from app.cluster.run import run_in_cluster

            # One is no wish for fewer: it is what the command has alone.
            wanted = None if workers == 1 else workers
            run = partial(run_in_cluster, address=options.cluster, workers=wanted)

        def ended(result: Result) -> None:
            # At once: what is complete stays so, whatever becomes of the others.
            if result.error is None:
                reserved[result.name].finish()

        results = run(
            configs, on_progress=view, stop=stop.event, on_build=view.building, on_result=ended
        )
    for result in results:
        source = names[result.name]
        for warning in result.report.warnings:
            print(f"warning: {_named(warning, result.name, source)}", file=sys.stderr)
        if result.error is not None:
            print(f"error: {_named(result.error, result.name, source)}", file=sys.stderr)
        # A source that only failed, or was not begun, has no figures to show.
        shown = result.error is None and result.report.ended != NOT_BEGUN
        if not options.quiet and (shown or result.report.frames_read):
            print(f"{result.name}: {without_credentials(source)}")
            print_report(result.report, sys.stdout, reserved[result.name].renamed)
    late = [one.name for one in results if one.error is None and one.report.ended == NOT_BEGUN]
    if late and not options.quiet:
        print(f"not begun: {', '.join(late)}")
    # The exit code covers all sources: one that failed must not go unnoticed in a script.
    return stop.exit_code(1 if any(result.error is not None for result in results) else 0)


def _named(line: str, name: str, source: str) -> str:
    """Return a line that names the source, as it is where it does."""
    shown = without_credentials(source)
    # An output of several has its source's name in its own.
    known = any(word in line for word in (shown, Path(shown).name, f"_{name}.", f"{name}:"))
    return line if known else f"{name}: {line}"


def _writes_stdout(output: OutputConfig) -> bool:
    return any(
        entry.kind == "file or -" and str(getattr(output, entry.name)) == "-" for entry in entries()
    )


app = command("run", RunOptions, run, profile=True)
