"""`bodystream run` as a function, for notebooks and programs of one's own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.config import (
    Config,
    ConfigError,
    OutputConfig,
    calibrated,
    load_config,
    settings,
)
from app.files import check_files, input_files
from app.options import RunOptions
from app.outputs.catalog import entries
from app.setting import Declared, did_you_mean

if TYPE_CHECKING:
    from app.run_report import ProgressView, RunReport


def run(
    source: str | Path,
    *,
    config: str = "default",
    progress: bool = True,
    stop: threading.Event | None = None,
    **settings: Any,
) -> RunReport:
    """Return the report of a run over a source, as `bodystream run` makes it.

    An interrupt (Ctrl-C, or a notebook's Interrupt) ends the run with its files complete and is
    raised then; a second one is raised at once.

    Args:
        source: A clip's path, an address, a camera, as `open_source` takes it.
        config: A profile's name, or the path of a TOML file.
        progress: Show a bar in a notebook and on a terminal, else a line every ten seconds.
        stop: Ends the run from another thread when it is set; that is no error.
        **settings: The flags of `bodystream run`, which win over the profile:
            ``poses="bodies.npz"``, ``people=2``, ``fov_deg=60``; a setting without a flag of its
            own has its name in a profile, such as ``existing="overwrite"``. One output at least.

    Raises:
        ConfigError: A setting is unknown or wrong, or there is no output.
        SourceError: The source cannot be read, or is lost.
        WeightsError: A model file is missing or is not the right one.
        OutputError: An output cannot be written.
        ValueError, RuntimeError: The estimator cannot be made, for want of a GPU for example.
        KeyboardInterrupt: It was interrupted.
    """
    options = RunOptions(source=(str(source),), config=config)
    chosen = calibrated(replace(load_config(config, keys_of(settings)), source=str(source)))
    check_files(options, chosen)
    check_outputs(chosen.output)

    from app.run_report import ProgressView

    prepare(options, chosen)
    with stop_at_interrupt(stop or threading.Event()) as ended:
        report, _ = run_prepared(options, chosen, ProgressView(quiet=not progress), ended)
    return report


def keys_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their keys in a profile: of ``{"start": 2}``, ``{"capture.start_s": 2}``.

    Raises:
        ConfigError: There is no such setting.
    """
    keys = {_keyword(each): each.key for each in settings().values() if each.key != "source"}
    for name in values:
        if name not in keys:
            raise ConfigError(f"there is no setting {name!r}{did_you_mean(name, keys)}")
    return {keys[name]: value for name, value in values.items()}


def _keyword(setting: Declared) -> str:
    return (setting.flag or setting.name).removeprefix("--").replace("-", "_")


def prepare(options: RunOptions, config: Config) -> None:
    """Check the outputs' paths and make the folders above them. Raises as `prepare_outputs`."""
    from app.outputs.paths import prepare_outputs

    prepare_outputs(config.output, input_files(options, config))


def run_prepared(
    options: RunOptions,
    config: Config,
    view: ProgressView,
    stop: threading.Event,
    own_process: bool = False,
) -> tuple[RunReport, dict[Path, Path]]:
    """Run one source to outputs that nothing else writes to, after `prepare`.

    Args:
        options: Those of the command, for its one source.
        config: Everything about the run.
        view: Shows the progress.
        stop: Ends the run when it is set.
        own_process: As `build.run`.

    Returns:
        The report, and the path that was asked for by the one that was written instead.
    """
    from app.outputs.paths import print_notes, reserve_outputs
    from app.outputs.unfinished import command_of

    with reserve_outputs(config.output, command_of(options.source, config)) as reserved:
        print_notes(reserved.notes)
        # Imported with the handlers set: that takes seconds, and Ctrl-C must end it cleanly.
        from app import build

        config = replace(config, output=replace(config.output, **reserved.paths))
        with view:
            report = build.run(
                config,
                on_progress=view,
                stop=stop,
                on_build=view.building,
                own_process=own_process,
            )
        reserved.finish()
        return report, reserved.renamed


@contextmanager
def stop_at_interrupt(stop: threading.Event) -> Iterator[threading.Event]:
    """Set the event at the first SIGINT and raise KeyboardInterrupt after the block; a second
    SIGINT raises it at once. Outside the main thread, which alone gets signals, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    interrupted = threading.Event()

    def handle(number: int, frame: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        stop.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted.is_set():
        raise KeyboardInterrupt


def check_outputs(output: OutputConfig) -> None:
    """Raise ConfigError where there is no output, or one that lacks what it belongs to."""
    paths = {entry.name: getattr(output, entry.name) for entry in entries()}
    if output.vertices and paths["poses"] is None:
        raise ConfigError("--vertices: needs --poses, the file they go into")
    if output.mhr_vertices and paths["mhr"] is None:
        raise ConfigError("--mhr-vertices: needs --mhr, the file they go into")
    if paths["video"] is None:
        for name in ("rotate_s", "rotate_mb", "rotate_keep"):
            if getattr(output, name):
                raise ConfigError(f"--{name.replace('_', '-')}: needs --video, the file it is of")
    check_rotation(output)
    if not output.window and all(path is None for path in paths.values()):
        flags = [f"{entry.flag} {entry.metavar}" for entry in entries()]
        raise ConfigError(
            f"there is no output: add --window, {', '.join(flags[:-1])} or {flags[-1]}"
        )


def check_rotation(output: OutputConfig) -> None:
    """Raise ConfigError where files are to be deleted and there is only one."""
    if output.rotate_keep and output.rotate_s is None and output.rotate_mb is None:
        raise ConfigError("--rotate-keep: needs --rotate-s or --rotate-mb; there is one file")
