"""``export``: files for other programs of a `--poses` file."""

from __future__ import annotations

import sys

from app.cli.flags import command
from app.cli.signals import unwind_by_signal
from app.config import Config, ConfigError
from app.files import input_files
from app.options import ExportOptions
from app.outputs.catalog import entries


def run(options: ExportOptions, config: Config) -> int:
    """Make the files that the flags ask for; return the exit code.

    Raises:
        ConfigError: No flag asks for one.
        OutputError: The recording cannot be read, or a file cannot be written.
    """
    chosen = [e for e in entries() if e.exports and getattr(config.output, e.name) is not None]
    if not chosen:
        flags = [f"{entry.flag} {entry.metavar}" for entry in entries() if entry.exports]
        raise ConfigError(f"there is no output: add {', '.join(flags[:-1])} or {flags[-1]}")

    from app.exports.recording import read_recording
    from app.outputs.paths import prepare_outputs, print_notes, reserve_outputs

    # First, so that a file that is no recording leaves no folder behind.
    recording = read_recording(options.recording)
    prepare_outputs(config.output, input_files(options, config))
    # A file that is half written is removed.
    with unwind_by_signal(), reserve_outputs(config.output, command="") as reserved:
        print_notes(reserved.notes)
        # All of them first: one may need a package that is not installed.
        for output in [e.make(reserved.paths[e.name], config.output) for e in chosen]:
            for path in output.export(recording):
                print(f"wrote {path}")
            for warning in output.warnings:
                print(f"warning: {warning}", file=sys.stderr)
        reserved.finish()
    return 0


app = command("export", ExportOptions, run, profile=True)
