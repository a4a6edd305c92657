"""A folder of pictures, or those that match a pattern, as one clip."""

from __future__ import annotations

import fnmatch
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from av.video.frame import VideoFrame

from pipeline.capture.base import SourceDefaults, SourceInfo, SourceOptions, StopSignal
from pipeline.capture.errors import (
    SourceEmpty,
    SourceNotFound,
    SourceNotVideo,
    SourceRefused,
    reason,
)
from pipeline.capture.files import mark_of
from pipeline.capture.hdr_tags import peak_nits
from pipeline.capture.picture import Converter, upright_size
from pipeline.capture.side_data import display_matrix
from pipeline.capture.still import SUFFIXES, NoPicture, decode_still
from pipeline.core.frame import Frame
from pipeline.core.yuv import size_of

DEFAULT_FPS = 30.0
"""Pictures a second, where `SourceOptions.fps` does not say."""

_MOST_BYTES = 1 << 26
"""The most bytes of a picture's file."""
_NUMBER = re.compile(r"%(?:0?([1-9]))?d")
_EPSILON = 1e-6


def is_pictures(spec: str) -> bool:
    """Return whether a source is a folder, or a pattern that is not the name of a file.

    FFmpeg would take a picture whose own name holds ``%03d`` for a pattern; it is one here too.
    """
    # Of os.path, which takes names that no file can have for absent ones.
    path = Path(os.path.expanduser(spec))
    if os.path.isdir(path):
        return True
    pattern = re.search(r"[*?\[]", path.name) or _NUMBER.search(path.name)
    return pattern is not None and (not os.path.exists(path) or path.suffix.lower() in SUFFIXES)


def picture_files(spec: str) -> list[Path]:
    """Return the pictures of a folder or a pattern, sorted by name with numbers by their value.

    A pattern is a name with ``%04d`` (a number of at least four digits) or with the shell's ``*``,
    ``?`` and ``[...]``; it stands for files of one folder. Hidden files do not count.

    Raises:
        SourceNotFound: There are none, or no such folder.
        SourceRefused: The folder may not be read.
    """
    path = Path(os.path.expanduser(spec))
    if path.is_file():
        return [path]
    folder, wanted = (path, None) if path.is_dir() else (path.parent, _matcher(path.name))
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except PermissionError as error:
        raise SourceRefused(f"{folder}: this user may not read it") from error
    except OSError as error:
        raise SourceNotFound(f"{folder}: {reason(error)}") from error
    names = [
        name
        for name in names
        if not name.startswith(".")
        and name.lower().endswith(SUFFIXES)
        and (wanted is None or wanted.fullmatch(name))
    ]
    if not names:
        kinds = f"({', '.join(SUFFIXES)})"
        if wanted is None:
            raise SourceNotFound(f"{spec}: a folder without pictures {kinds}: give a clip in it")
        raise SourceNotFound(f"{spec}: no picture {kinds} has such a name")
    return [folder / name for name in sorted(names, key=_natural)]


def _matcher(pattern: str) -> re.Pattern[str]:
    if not _NUMBER.search(pattern):
        return re.compile(fnmatch.translate(pattern))
    texts = _NUMBER.split(pattern)
    # Split at a group: texts and widths take turns.
    parts = [re.escape(text.replace("%%", "%")) for text in texts[::2]]
    numbers = [f"[0-9]{{{width or 1},}}" for width in texts[1::2]]
    return re.compile("".join(a + b for a, b in zip(parts, [*numbers, ""])))


def _natural(name: str) -> tuple[list[str | int], str]:
    """The key that sorts img_2 before img_10."""
    parts: list[str | int] = list(re.split("([0-9]+)", name))
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, name


class PicturesSource(SourceDefaults):
    """Pictures read as one clip, one file at a time, as fast as the consumer takes them.

    ``Frame.id`` is the place of the picture among the files, ``Frame.pts_s`` that place divided by
    the rate. A picture of another size than the one before is a discontinuity. Files that cannot be
    decoded are skipped and counted as "damaged".

    Args:
        spec: A folder or a pattern, as `picture_files` takes it.
        options: ``start_s``, ``seconds``, ``fps``, ``allocate`` and ``planes`` count here.
        stop_signal: Ends ``frames()`` from outside.
        clock_ns: The clock of `Frame.captured_ns`.
    """

    live = False

    def __init__(
        self,
        spec: str,
        options: SourceOptions,
        *,
        stop_signal: StopSignal | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._spec = spec
        path = Path(os.path.expanduser(spec))
        self.name = (path.resolve() if path.is_dir() else path).name or "pictures"
        self._fps = options.fps or DEFAULT_FPS
        self._start_s, self._end_s = options.start_s, options.end_s
        self._stop = stop_signal or StopSignal()
        self._clock_ns = clock_ns
        self._convert = Converter(options.allocate, options.planes)
        self._info: SourceInfo | None = None
        self._pictures: Iterator[tuple[int, VideoFrame, str]] | None = None
        self._first: tuple[int, VideoFrame, str] | None = None
        self._damaged = 0
        self.warnings: list[str] = []

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            raise RuntimeError(f"{self.name} is not open")
        return self._info

    @property
    def counts(self) -> Counter[str]:
        """The number of files that could not be decoded, as "damaged"."""
        return Counter(damaged=self._damaged)

    @property
    def mark(self) -> str:
        """Eight hex digits of the folder's path, size and time of change; "" for a pattern."""
        return mark_of(self._spec)

    def open(self) -> None:
        """List the files and decode the first picture of the part to be read.

        Raises:
            SourceError: There are no pictures, none in that part, or none that can be decoded.
        """
        files = picture_files(self._spec)
        first = math.ceil(self._start_s * self._fps - _EPSILON)
        end = min(self._end_s * self._fps - _EPSILON, len(files))
        numbers = range(first, math.ceil(end))
        if not numbers:
            raise SourceEmpty(
                f"{self.name}: has no picture there: it ends at {len(files) / self._fps:.2f} s"
            )
        self._pictures = self._decode(files, numbers)
        self._first = next(self._pictures, None)
        if self._first is None:
            raise SourceNotVideo(f"{self.name}: none of its pictures can be decoded")
        _, picture, codec = self._first
        width, height = upright_size(picture, None, display_matrix(picture))
        self._info = SourceInfo(
            name=self.name, live=False, width=width, height=height, fps=self._fps,
            frame_count=len(numbers), codec=codec,
        )  # fmt: skip

    def close(self) -> None:
        self._stop.set()

    def frames(self) -> Iterator[Frame]:
        """Yield the pictures, once."""
        first, pictures = self._first, self._pictures
        if first is None or pictures is None:
            raise RuntimeError(f"{self.name} is not open, or was read already")
        self._first, size = None, None
        for number, picture, _ in chain((first,), pictures):
            if self._stop.is_set():
                break
            captured_ns = self._clock_ns()
            pixels = self._convert(picture, None, display_matrix(picture), peak_nits(picture))
            broken = size not in (None, size_of(pixels))
            size = size_of(pixels)
            yield Frame(number, self.name, captured_ns, number / self._fps, pixels, broken)
        if self._damaged:
            self.warnings.append(f"{self.name}: {self._damaged} damaged pictures skipped")

    def _decode(self, files: list[Path], numbers: range) -> Iterator[tuple[int, VideoFrame, str]]:
        """The number, the picture and the codec of each file that can be decoded."""
        for number in numbers:
            try:
                picture, codec = decode_still(_read(files[number]))
            except (OSError, NoPicture):
                self._damaged += 1
                continue
            yield number, picture, codec


def _read(path: Path) -> bytes:
    """The bytes of a regular file. Raises OSError, NoPicture."""
    # A pipe would be waited for.
    if not path.is_file():
        raise NoPicture("it is not a regular file")
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise NoPicture(f"it has more than {_MOST_BYTES >> 20} MB")
    return data
