"""`run A B C`: several sources through one estimator, each with outputs of its own."""

from __future__ import annotations

import os
import re
import threading
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from app.build import is_low_latency, load, make_outputs, note_unread_heights, source_of
from app.config import Config, ConfigError, OutputConfig
from app.outputs.base import Output, OutputError
from app.outputs.catalog import entries
from app.outputs.streams import is_stream
from app.render_loop import RenderLoop
from app.render_loop_low_latency import make_render_loop
from app.run_report import Progress, RunReport
from pipeline.capture.addresses import STANDARD_INPUT, is_address
from pipeline.capture.errors import SourceError, SourceNotFound
from pipeline.core.problem import Notice, one_line
from pipeline.core.redact import without_credentials
from pipeline.runtime.scheduler import StreamScheduler
from pipeline.runtime.video_stream import VideoStream

_LONGEST_NAME, _LONGEST_BYTES = 60, 120
"""Of a source's name, in characters and as UTF-8: a file's name has 255 bytes at most."""
_SCRIPTS = ("L", "M", "N", "So", "Sk")
"""Unicode's categories of letters, marks, numbers and pictures."""


@dataclass(frozen=True)
class Result:
    """The result of one of several sources; ``error`` is the line that ended it, None if the source
    ended by itself."""

    name: str
    report: RunReport
    error: str | None


def names_of(sources: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Return a short name for each source, fit for file names, in the source's own script.

    A clip's is its name without the suffix, an address's its host and path, without a login. No
    name comes twice, also where a file system ignores case, and none is in ``taken``.
    """
    names: list[str] = []
    used = {_folded(name) for name in taken}
    for source in sources:
        name = _name(source)
        number = 2
        while _folded(name) in used:
            # Clips in two folders may have the same name.
            name = f"{_name(source)}-{number}"
            number += 1
        used.add(_folded(name))
        names.append(name)
    return names


def _folded(name: str) -> str:
    """What two names share that some file system takes for one."""
    return unicodedata.normalize("NFC", name.casefold())


def _name(source: str) -> str:
    shown = without_credentials(source)
    if is_address(source):
        # What is hidden leaves no trace: names become file names.
        text = re.sub(r"[^/]*@|\*\*\*", "", shown.partition(":")[2])
    elif source in STANDARD_INPUT:
        text = "stdin"
    elif source.isdigit():
        text = f"camera{source}"
    elif Path(source).suffix and ":" not in source:
        text = Path(source).stem
    else:
        text = shown
    # Composed, as most systems write it: another form would be another name.
    composed = unicodedata.normalize("NFC", text)
    runs = groupby(composed, _is_plain)
    text = "".join("".join(run) if plain else "-" for plain, run in runs)
    # No leading dot or dash: a file must not be hidden, nor look like a flag.
    text = text.strip("-._")[:_LONGEST_NAME]
    text = text.encode()[:_LONGEST_BYTES].decode(errors="ignore")
    # Some systems drop a dot at the end.
    return text.rstrip("-._") or "source"


def _is_plain(character: str) -> bool:
    """Return whether every file system takes a character as it is."""
    if character.isascii():
        return character.isalnum() or character in "._-"
    return unicodedata.category(character).startswith(_SCRIPTS)


def outputs_of(output: OutputConfig, name: str) -> OutputConfig:
    """Return the outputs of one of several sources: OUT.mp4 becomes OUT_NAME.mp4, DIR becomes
    DIR/NAME.

    Raises:
        ConfigError: The window, standard output or a pipe, which serve one source, are among them.
    """
    if output.window:
        raise ConfigError("--window: shows one source; `serve` shows several on a page")
    paths = {entry: getattr(output, entry.name) for entry in entries()}
    own: dict[str, Any] = {}
    for entry, path in paths.items():
        if path is None or str(path) == os.devnull:
            continue
        if is_stream(path):
            raise ConfigError(f"{entry.flag} {path}: takes one source; give a file's name")
        own[entry.name] = entry.path_of(path, name)
    return replace(output, **own)


def run_many(
    configs: Mapping[str, Config],
    *,
    on_progress: Callable[[Progress], None],
    stop: threading.Event,
    on_build: Callable[[str, int, int], None] | None = None,
) -> list[Result]:
    """Run several sources to their ends in one pass each, or until ``stop`` is set.

    A source that fails ends alone, whether it cannot be read, estimated, drawn or written, and its
    `Result` says why. What was written is complete, whatever is raised.

    Args:
        configs: Each source's configuration, by name; the first one's describes the estimator.
        on_progress: Called with the sum of all sources' progress.
        stop: Ends all sources when it is set.
        on_build: Called with (name, done, of) while engines are built.

    Raises:
        WeightsError, ValueError, RuntimeError: The run cannot be done.
    """
    # One estimator for all: its networks fill the memory once, and batches hold several sources.
    first = next(iter(configs.values()))
    shows: list[_SourceThread] = []
    with ExitStack() as stack:
        estimator = load(first, on_build)
        stack.callback(estimator.close)
        _note_one_pass(configs)
        # After the scheduler's end: the threads still finish what was written.
        stack.callback(_join, shows)
        faults: list[BaseException] = []
        progress = ProgressSum(on_progress)
        scheduler = stack.enter_context(StreamScheduler(estimator, on_error=faults.append))
        with ExitStack() as unstarted:
            for name, config in configs.items():
                outputs = make_outputs(config)
                for output in outputs:
                    unstarted.callback(output.close)
                stream = scheduler.add(
                    name, source_of(config, stop), low_latency=is_low_latency(config)
                )  # fmt: skip
                show = make_render_loop(config, stream, outputs, progress.of(name))
                shows.append(_SourceThread(stream, show, outputs, faults))
            # From here on each thread closes its own.
            unstarted.pop_all()
        for shown in shows:
            # Only once every source is set up: an error before this leaves no thread drawing.
            shown.thread.start()
        _wait(shows, stop)
    if faults:
        raise faults[0]
    return [shown.result() for shown in shows]


def _note_one_pass(configs: Mapping[str, Config]) -> None:
    """Say that clips get one pass here, where a run of each alone would give two."""
    first = next(iter(configs.values()))
    clips = any(os.path.exists(config.source) for config in configs.values())
    note_unread_heights(first)
    if clips and not first.fit.one_pass:
        line = "several sources take one pass; a clip that is run alone gets two"
        warnings.warn(line, Notice, stacklevel=2)


class _SourceThread:
    """Draws and writes one source's results in a thread of its own."""

    def __init__(
        self,
        stream: VideoStream,
        show: RenderLoop,
        outputs: Sequence[Output],
        faults: Sequence[BaseException],
    ) -> None:
        self.stream, self._show, self._outputs, self._faults = stream, show, outputs, faults
        self._stop = threading.Event()
        self._error: str | None = None
        self.thread = threading.Thread(target=self._run, name=f"show {stream.name}")

    def _run(self) -> None:
        with self._one_fault():
            self._show.run(self._stop)
        self.stream.stop()
        for output in self._outputs:
            # Each by itself: the others' files are completed all the same.
            with self._one_fault():
                output.close()

    @contextmanager
    def _one_fault(self) -> Iterator[None]:
        """Keep the first error of this source, which ends none of the others."""
        try:
            yield
        except BaseException as error:
            # An error of the estimator reaches every source; it is reported once.
            if self._error is None and error not in self._faults:
                self._error = self._line_of(error)
                # The reason stands in the report's table; the line is printed as an error.
                self._show.end_because(_ending(error))

    def _line_of(self, error: BaseException) -> str:
        # The messages of a source and of an output name them.
        named = isinstance(error, SourceError | OutputError)
        return one_line(error) if named else f"{self.stream.name}: {one_line(error)}"

    def stop(self) -> None:
        self._stop.set()
        self.stream.stop()

    def result(self) -> Result:
        # Frames that the scheduler still holds must be counted as dropped first.
        self.stream.settle()
        return Result(self.stream.name, self._show.report(), self._error)


def _ending(error: BaseException) -> str:
    if isinstance(error, SourceNotFound):
        return "not found"
    return "lost" if isinstance(error, SourceError) else "an error"


def _join(shows: Sequence[_SourceThread]) -> None:
    for shown in shows:
        # A thread that was never started cannot be joined.
        if shown.thread.ident is not None:
            shown.thread.join()


def _wait(shows: Sequence[_SourceThread], stop: threading.Event) -> None:
    """Wait until all have ended; once ``stop`` is set, end them."""
    ending = False
    while any(shown.thread.is_alive() for shown in shows):
        if stop.is_set() and not ending:
            ending = True
            for shown in shows:
                shown.stop()
        for shown in shows:
            # Short, so that `stop` is noticed soon after a signal has set it.
            shown.thread.join(0.05)


class ProgressSum:
    """Adds up the progress of several sources.

    Args:
        on_progress: Called with the sum whenever a part has changed.
    """

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._latest: dict[str, Progress] = {}

    def of(self, name: str) -> Callable[[Progress], None]:
        """Return what takes the progress of one part, from any thread."""

        def update(progress: Progress) -> None:
            with self._lock:
                # Under the lock: the sources report from threads of their own.
                self._latest[name] = progress
                self._on_progress(self._sum())

        return update

    def _sum(self) -> Progress:
        every = list(self._latest.values())
        # One source of unknown length makes the whole unknown.
        totals = [each.total for each in every]
        return Progress(
            frames_read=sum(each.frames_read for each in every),
            frames_drawn=sum(each.frames_drawn for each in every),
            dropped=sum(each.dropped for each in every),
            total=None if None in totals else sum(total or 0 for total in totals),
            seconds=max(each.seconds for each in every),
            fps=sum(each.fps for each in every),
            people=sum(each.people for each in every),
        )
