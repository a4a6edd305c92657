"""The exports as outputs of a run: their files are made of all rows, at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from app.exports import angles, bvh, c3d, trc
from app.exports.recording import (
    COLUMNS,
    ExportError,
    Recording,
    Track,
    check,
    make_recording,
)
from app.outputs.base import OutputError, RunInfo
from app.outputs.poses import ROWS, TRACKS, kept_rows, turn_column
from app.outputs.rows import file_facts
from app.outputs.spool import ColumnSpool
from app.outputs.world_columns import GIVEN, TURN
from pipeline.core.frame import Frame
from pipeline.core.people import Bodies
from pipeline.core.problem import one_line
from pipeline.core.user_file import reading


class ExportOutput:
    """An `Output` that makes its files of a `Recording`; subclass it and write `export`.

    Rows are kept on disk until the end. A run without people leaves no file.

    Args:
        path: The file, or the folder.

    Attributes:
        name: Its name in the catalog, by which `recover` finds it.
    """

    name = ""
    needs_picture = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: tuple[Path, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self._info: RunInfo | None = None
        self._columns: ColumnSpool | None = None

    def export(self, recording: Recording) -> Iterator[Path]:
        """Write the files of a recording; yield each when it is written. Raises OutputError."""
        raise NotImplementedError

    def in_the_way(self) -> Path | None:
        """Return a file that `export` would replace, None without one."""
        return self.path if self.path.exists() and self.path.stat().st_size else None

    @property
    def rows_beside(self) -> Path:
        """What its rows are kept beside until they are files."""
        return self.path

    def open(self, info: RunInfo) -> None:
        self._info = info

    def write(self, frame: Frame, bodies: Bodies, picture: np.ndarray | None) -> None:
        assert self._info is not None, "write() before open()"
        if len(bodies):
            # Here and not in `open`, so that a run that is killed before leaves nothing.
            if self._columns is None:
                self._columns = self._begin(self._info)
            self._columns.append(kept_rows(self._info, frame, bodies))

    def _begin(self, info: RunInfo) -> ColumnSpool:
        extra: dict[str, np.ndarray | np.generic] = {
            "model": np.str_(info.model),
            "export": np.str_(self.name),
            GIVEN: info.camera_pose.as_array(),
        }
        shapes = {name: ROWS[name] for name in COLUMNS} | turn_column(info)
        return ColumnSpool(self.rows_beside, shapes, {**file_facts(info), **extra})

    def close(self) -> None:
        info, self._info = self._info, None
        columns, self._columns = self._columns, None
        if columns is None:
            if info is not None:
                self.warnings = (f"{self.path}: no people were found, so nothing is written",)
            return
        with columns.kept_after_errors(self.path):
            for path in self.export(recording_of(columns)):
                self.files = (*self.files, path)


def recording_of(columns: ColumnSpool) -> Recording:
    """Return the recording of an `ExportOutput`'s rows. Raises ExportError where they are none."""
    with reading(columns.folder, " has no rows of a run", ExportError):
        turn = {TURN} & set(columns.names)
        arrays = {name: columns.read(name) for name in (*COLUMNS, *turn)}
        # Single values of a run are numpy's numbers, those of a file arrays.
        arrays |= {name: np.asarray(value) for name, value in columns.extra.items()}
        check(arrays)
        return make_recording(arrays)


class TrackFiles(ExportOutput):
    """A folder with a file a track: ``track_0001`` and the ``suffix``; write `write_track`."""

    suffix = ""

    def write_track(self, recording: Recording, track: Track, path: Path) -> None:
        """Write one track as a file. Raises OSError."""
        raise NotImplementedError

    def problem(self, track: Track) -> str:
        """Return why the format cannot hold a track, nothing where it can."""
        return ""

    def export(self, recording: Recording) -> Iterator[Path]:
        self._make_folder()
        problems = {track.id: self.problem(track) for track in recording.tracks}
        if all(problems.values()):
            raise OutputError(f"{self.path}: {'; '.join(problems.values())}")
        for track in recording.tracks:
            path = self.path / f"track_{track.id:04d}{self.suffix}"
            if problems[track.id]:
                # The other tracks are still worth their files.
                self.warnings = (*self.warnings, f"{path}: not written: {problems[track.id]}")
                continue
            with _writing(path):
                self.write_track(recording, track, path)
            yield path

    def in_the_way(self) -> Path | None:
        return next(iter(sorted(self.path.glob(f"track_*{self.suffix}"))), None)

    @property
    def rows_beside(self) -> Path:
        return self.path / TRACKS

    def open(self, info: RunInfo) -> None:
        super().open(info)
        self._make_folder()

    def _make_folder(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be made: {error.strerror}") from None


class BvhOutput(TrackFiles):
    """One BVH file a track (`app.exports.bvh`)."""

    name, suffix = "bvh", ".bvh"
    write_track = staticmethod(bvh.write)


class GlbOutput(ExportOutput):
    """One GLB file of all people (`app.exports.gltf`)."""

    name = "glb"

    def export(self, recording: Recording) -> Iterator[Path]:
        # Late: it loads torch, which no other format needs.
        from app.exports import gltf

        with _writing(self.path):
            gltf.write(recording, self.path)
        if warning := gltf.mesh_warning(recording):
            self.warnings = (f"{self.path}: {warning}",)
        yield self.path


class TrcOutput(TrackFiles):
    """One TRC file a track (`app.exports.trc`)."""

    name, suffix = "trc", ".trc"
    write_track = staticmethod(trc.write)


class C3dOutput(TrackFiles):
    """One C3D file a track (`app.exports.c3d`).

    Raises:
        ExportError: ezc3d is not installed, or the folder's name is not UTF-8.
    """

    name, suffix = "c3d", ".c3d"
    write_track = staticmethod(c3d.write)
    problem = staticmethod(c3d.length_problem)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # Before the run, which may take hours.
        c3d.load_ezc3d()
        c3d.check_name(path)


class AnglesOutput(ExportOutput):
    """One CSV file of joint angles (`app.exports.angles`)."""

    name = "angles"

    def export(self, recording: Recording) -> Iterator[Path]:
        with _writing(self.path):
            angles.write(recording, self.path)
        yield self.path


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raise what goes wrong with a file as OutputError."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
    except Exception as error:
        # Of any kind: numbers that no body has fail in numpy or scipy, each in its own way.
        raise OutputError(f"{path}: cannot be written: {one_line(error)}") from error
