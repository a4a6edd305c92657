"""What a first pass saw and fitted of all people, on disk until the second pass is done."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.core.people import Bodies, Person
from pipeline.fitting.observations import EDGE_SIZE, UNKNOWN, layout, write_rows
from pipeline.fitting.track_frames import FittedFrames, SeenFrames
from pipeline.fitting.visibility import picture_sizes
from pipeline.tracking.appearance import Appearance
from pipeline.tracking.pieces import NO_ONE, Sightings

_OUTLINE = "inside"


class StoreError(OSError):
    """A first pass cannot be kept on disk; the message is one line that names the folder."""


class StoredBodies(NamedTuple):
    """The bodies of one frame, P rows.

    Attributes:
        track: (P,) track ids, rising.
        score: (P,) the perceiver's scores.
        seen: (P, 33) the landmarks' visibility.
        turns: (P, 24, 3) rotations, axis-angle, radians.
        transl_m: (P, 3) metres.
        residual_mean: (P,) as in `pipeline.fitting.solver.Solution`.
    """

    track: np.ndarray
    score: np.ndarray
    seen: np.ndarray
    turns: np.ndarray
    transl_m: np.ndarray
    residual_mean: np.ndarray


class TrackStore:
    """A record for each person of each frame, two and a half kilobytes, in files without names.

    In memory it keeps 24 bytes a record: one person over two hours at 30 frames a second is 550 MB
    on disk and 5 MB in memory. One thread writes; after `finish` one thread reads.

    Attributes:
        cuts: The numbers of the frames with which another scene began.
        shapes: (10,) float32 of each track.
        frames: (N,) int64 the frames' numbers of all records, rising; from `finish` on.
        ids: (N,) int64 the records' track ids; from `finish` on.

    Args:
        folder: The folder on whose disk the files are.
        surface: How many points of an MHR body's skin people bring; 0 for none.

    Raises:
        StoreError: It cannot be made, or later written.
    """

    def __init__(self, folder: Path, surface: int = 0) -> None:
        self.surface = surface
        self._beside = folder
        self._failed: StoreError | None = None
        self._layout = layout(1, outlines=True, surface=surface)
        kept = {n: s[1:] for n, s in self._layout.shapes.items() if n != _OUTLINE}
        self._record = np.dtype(
            [
                ("frame", np.int64),
                ("score", np.float32),
                ("turns", np.float32, (24, 3)),
                ("transl_m", np.float32, (3,)),
                ("colours", np.float16, (5, 3, 5)),
                ("looked", np.float16, (5,)),
                # Two bits a pixel: on the person, and unknown.
                (_OUTLINE, np.uint8, (2, EDGE_SIZE**2 // 8)),
                *((name, np.float32, shape) for name, shape in kept.items()),
            ]
        )
        self._kept = tuple(kept)
        self._fitted = np.dtype(
            [("turns", np.float32, (24, 3)), ("transl_m", np.float32, (3,)), ("mean", np.float32)]
        )
        self._tracks, self._frames = array("q"), array("q")
        self.shapes: dict[int, np.ndarray] = {}
        self.cuts: list[int] = []
        self._seen: np.ndarray | None = None
        self._made: np.ndarray | None = None
        with self._on_disk():
            # Files without names: whatever ends the process, nothing of them is left.
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (see `close`)
            self._poses = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (see `close`)

    def add(
        self,
        frame: int,
        people: Mapping[int, Person],
        bodies: Bodies,
        intrinsics: np.ndarray,
        size: tuple[int, int],
        zoom: float = 1.0,
        looks: Mapping[int, Appearance] | None = None,
    ) -> None:
        """Add the people of a frame with their bodies; frames come in order.

        Args:
            frame: The frame's number.
            people: By track id.
            bodies: The first pass's.
            intrinsics: K (3, 3) of the frame, pixels.
            size: The picture's height and width, pixels.
            zoom: By which ``intrinsics`` are longer than those that the bodies were fitted with.
            looks: What people look like, of those who were described, by track id.
        """
        # A window whose fit failed has no numbers; it is given up, and so are its bodies.
        known = bodies.finite_rows
        tracks = [track for track in bodies.track[known].tolist() if track in people]
        if not tracks:
            return
        own = np.isin(bodies.track, tracks)
        rows = np.empty((len(tracks), self._layout.size), np.float32)
        write_rows(
            [[people[track]] for track in tracks],
            np.broadcast_to(intrinsics, (len(tracks), 3, 3)),
            picture_sizes([size] * len(tracks)),
            rows,
            outlines=True,
            surface=self.surface,
        )
        records = np.zeros(len(tracks), self._record)
        parts = self._layout.split(rows)
        for name in self._kept:
            records[name] = parts[name][:, 0]
        inside = parts[_OUTLINE].reshape(len(tracks), -1)
        records[_OUTLINE][:, 0] = np.packbits(inside > 0, axis=1)
        records[_OUTLINE][:, 1] = np.packbits(inside == UNKNOWN, axis=1)
        records["frame"] = frame
        records["score"] = [people[track].score for track in tracks]
        for record, look in zip(records, map((looks or {}).get, tracks)):
            if look is not None:
                record["colours"], record["looked"] = look.colours, look.seen
        pose = np.concatenate((bodies.global_orient, bodies.body_pose), 1)[own]
        records["turns"], records["transl_m"] = pose.reshape(-1, 24, 3), bodies.transl_m[own]
        # What looks as large through a longer lens is farther away.
        records["transl_m"][:, 2] *= zoom
        with self._on_disk():
            self._file.write(records.tobytes())
        self._tracks.extend(tracks)
        self._frames.extend([frame] * len(tracks))
        self.shapes |= dict(zip(tracks, bodies.betas[own]))

    def finish(self) -> None:
        """Add no more; what was added can be read from now on."""
        count = len(self._tracks)
        with self._on_disk():
            self._file.flush()
            if count:
                # Poses are in a file of their own, so that what was seen stays as it was.
                self._seen = np.memmap(self._file, self._record, "r", shape=(count,))
                for part in _chunks(count):
                    # Written, not mapped: on a full disk a new mapping kills the process.
                    made = np.zeros(len(self._seen[part]), self._fitted)
                    made["turns"] = self._seen["turns"][part]
                    made["transl_m"] = self._seen["transl_m"][part]
                    self._poses.write(made.tobytes())
                self._poses.flush()
                self._made = np.memmap(self._poses, self._fitted, "r+", shape=(count,))
        self.frames = np.frombuffer(self._frames, np.int64) if count else np.zeros(0, np.int64)
        self.ids = np.frombuffer(self._tracks, np.int64) if count else np.zeros(0, np.int64)

    @property
    def tracks(self) -> list[int]:
        """The track ids, rising: the first pass's, or those of `rename`."""
        return sorted(self.shapes)

    def track(self, track: int) -> StoredTrack:
        """Return one track's records."""
        return StoredTrack(self, np.flatnonzero(self.ids == track), self.shapes[track])

    def set_shape(self, track: int, betas: np.ndarray) -> None:
        """Set the shape (10,) of a track."""
        self.shapes[track] = betas

    def sightings(self, rows: np.ndarray) -> Sightings:
        """Return what `pipeline.tracking` reads of some records."""
        seen, made = self._read(rows)
        values = seen["score"], seen["image"], made["transl_m"], seen["colours"]
        return Sightings(self.frames[rows], *values, seen["looked"])

    def rename(self, ids: np.ndarray) -> None:
        """Give every record another id; records with the same one are one person's.

        A track's shape becomes the mean over the records that it is made of.

        Args:
            ids: (N,) int64 in the order of `add`; `NO_ONE` leaves a record out.

        Raises:
            ValueError: There are not N, or two records of a frame would have the same id.
        """
        if ids.shape != self.ids.shape:
            raise ValueError(f"{len(self.ids)} records need as many ids, not {ids.shape}")
        kept = np.flatnonzero(ids != NO_ONE)
        pairs = np.stack((self.frames[kept], ids[kept]))
        if np.unique(pairs, axis=1).shape[1] < len(kept):
            raise ValueError("two records of a frame cannot have the same id")
        parts, counts = np.unique(np.stack((ids[kept], self.ids[kept])), axis=1, return_counts=True)
        betas = {}
        for name in np.unique(ids[kept]).tolist():
            own = parts[0] == name
            shapes = [self.shapes[track] for track in parts[1, own].tolist()]
            betas[name] = np.average(shapes, 0, counts[own]).astype(np.float32)
        self.ids, self.shapes = ids.astype(np.int64), betas

    def shape(self, track: int) -> np.ndarray:
        """Return the shape (10,) of a track."""
        return self.shapes[track]

    def bodies(self, frame: int) -> tuple[StoredBodies, np.ndarray]:
        """Return the bodies of a frame and their shapes (P, 10)."""
        first, last = np.searchsorted(self.frames, [frame, frame + 1]).tolist()
        if self._seen is None or self._made is None or first == last:
            none = [np.zeros((0, *s), np.float32) for s in ((), (33,), (24, 3), (3,), ())]
            return StoredBodies(np.zeros(0, np.int64), *none), np.zeros((0, 10), np.float32)
        ids = self.ids[first:last]
        order = np.argsort(ids, kind="stable")
        order = order[ids[order] != NO_ONE]
        seen, made = self._seen[first:last][order], self._made[first:last][order]
        betas = np.zeros((len(order), 10), np.float32)
        for row, track in enumerate(ids[order].tolist()):
            betas[row] = self.shapes[track]
        values = seen["score"], seen["visible"], made["turns"], made["transl_m"], made["mean"]
        return StoredBodies(ids[order], *map(np.array, values)), betas

    def sample(
        self, choose: Callable[[int], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, StoredBodies, np.ndarray]:
        """Return some records by rising frame: frames (N,), tracks (N,), bodies, shapes (N, 10).

        Args:
            choose: Returns the rows to read, by the number of all that are people's.
        """
        kept = np.flatnonzero(self.ids != NO_ONE)
        rows = kept[choose(len(kept))]
        seen, made = self._read(rows)
        tracks = self.ids[rows]
        betas = np.array([self.shapes[track] for track in tracks.tolist()], np.float32)
        values = seen["score"], seen["visible"], made["turns"], made["transl_m"], made["mean"]
        stored = StoredBodies(tracks, *map(np.array, values))
        return np.array(seen["frame"]), tracks, stored, betas

    @property
    def last_frame(self) -> int | None:
        """The number of the last frame with a person; None without any."""
        return self._frames[-1] if self._frames else None

    def close(self) -> None:
        """Give all of it back. Safe to call twice."""
        self._seen = self._made = None
        for file in (self._file, self._poses):
            # What no longer fits the disk is not needed.
            with suppress(OSError):
                file.close()

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        """Turn an error of the disk into a `StoreError`, the same one from then on: after a piece
        that does not fit, records would no longer be where they are looked for."""
        if self._failed is not None:
            raise self._failed
        try:
            yield
        except OSError as error:
            self._failed = StoreError(
                f"{self._beside}: cannot keep the first of two passes: {error.strerror}"
            )
            raise self._failed from None

    def _read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert self._seen is not None
        assert self._made is not None
        return self._seen[rows], self._made[rows]

    def _rows(self, seen: np.ndarray) -> np.ndarray:
        """The observations (N, layout.size) of records."""
        rows = np.zeros((len(seen), self._layout.size), np.float32)
        parts = self._layout.split(rows)
        for name in self._kept:
            parts[name][:, 0] = seen[name]
        on, unknown = (np.unpackbits(seen[_OUTLINE][:, k], axis=1) for k in (0, 1))
        inside = np.where(unknown, np.float32(UNKNOWN), on.astype(np.float32))
        parts[_OUTLINE][:, 0] = inside.reshape(-1, EDGE_SIZE, EDGE_SIZE)
        return rows


class StoredTrack:
    """One track of a `TrackStore`, as `pipeline.fitting.track_fit.TrackFitter` reads and writes
    it.

    Attributes:
        frame: (N,) int64 the numbers of its frames, rising.
        betas: (10,) float32 its shape.
    """

    def __init__(self, store: TrackStore, rows: np.ndarray, betas: np.ndarray) -> None:
        self._store, self._places, self.betas = store, rows, betas
        self.frame: np.ndarray = store.frames[rows]

    def read(self, part: slice) -> SeenFrames:
        """Return a part of the track as it was seen, with the poses written last."""
        seen, made = self._store._read(self._places[part])
        return SeenFrames(
            self.frame[part],
            self._store._rows(seen),
            np.array(made["turns"]),
            np.array(made["transl_m"]),
        )

    def write(self, part: slice, fitted: FittedFrames) -> None:
        """Replace the poses of a part."""
        places, made = self._places[part], self._store._made
        assert made is not None
        made["turns"][places], made["transl_m"][places] = fitted.turns, fitted.transl_m
        made["mean"][places] = fitted.residual_mean


def _chunks(count: int, size: int = 10_000) -> Iterator[slice]:
    for first in range(0, count, size):
        yield slice(first, first + size)
