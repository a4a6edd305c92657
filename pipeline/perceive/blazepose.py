"""BlazePose for several people: detect on key frames, follow by regions on every frame.

``embed`` runs the detector on the key frame and joins what it finds with the regions followed so
far; ``decode`` runs the landmark model in each region of each frame, key frame first and outward
from there, each frame's regions coming from its decoded neighbour's landmarks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from pipeline.frame import Frame, Window
from pipeline.people import Person
from pipeline.perceive.detector import (
    Region,
    decode_boxes,
    letterbox,
    make_anchors,
    regions_of,
    suppress,
    tiles,
)
from pipeline.perceive.landmarks import crop, read_person

MIN_PRESENCE = 0.5
_SAME_REGION = 0.4
_SAME_PERSON = 0.12
_PART_INSIDE = 0.5
_KEEP_MISSED = 4
_SECOND_LOOKS = ((0.35, 1.15), (-0.35, 1.0))
_FAVOUR = 1.3


@dataclass(frozen=True)
class Memory:
    """What BlazePose remembers of a source: regions to look in next, the ids among them that were
    followed before (the others are newly detected), the next free region id, and which tile the
    detector looks at next."""

    regions: tuple[Region, ...] = ()
    known: frozenset[int] = frozenset()
    next_id: int = 0
    tile: int = 0


class BlazePose:
    """The default perceiver; LiteRT on the CPU. Not to be called from two threads at once.

    ``files`` are the two model files by name; ``max_people`` are followed, the largest first.
    Raises ValueError when a file is not the model it should be.
    """

    name = "blazepose"

    def __init__(self, files: Mapping[str, Path], max_people: int = 4, threads: int = 2) -> None:
        if max_people < 1:
            raise ValueError(f"at least one person is followed, not {max_people}")
        self.max_people = max_people
        self._anchors = make_anchors()
        self._detect = _model(
            files["pose_detection.tflite"], [(1, 2254, 12), (1, 2254, 1)], threads
        )
        self._landmark = _model(
            files["pose_landmark_full.tflite"],
            [(1, 195), (1, 1), (1, 256, 256, 1), (1, 64, 64, 39), (1, 117)],
            threads,
        )

    def close(self) -> None:
        del self._detect, self._landmark

    def embed(self, window: Window, memory: Memory | None) -> Memory:
        """The regions to look in on the key frame: those followed, and newly detected ones."""
        fresh = memory is None
        memory = memory or Memory()
        image = window.key_frame.image
        followed = list(memory.regions)
        found = self._detections(image, memory, fresh or len(followed) < self.max_people, fresh)
        next_id = memory.next_id
        for region in found:
            match = _overlapping(region, followed)
            if match is None:
                followed.append(replace(region, id=next_id))
                next_id += 1
            elif followed[match].missed:
                followed[match] = replace(region, id=followed[match].id)
        known = frozenset(region.id for region in memory.regions)
        # A few more than wanted: some detections are nobody.
        regions = _largest(followed, known, self.max_people + 2)
        return Memory(regions, known, next_id, memory.tile + 1)

    def decode(self, embedding: Memory, window: Window) -> tuple[list[tuple[Person, ...]], Memory]:
        """The people of every frame, and the regions to begin the next window with."""
        count = len(window.frames)
        people: list[tuple[Person, ...]] = [()] * count
        known = embedding.known
        people[window.key], start = self._look(window.key_frame, embedding.regions, known)
        # Who is not there on the key frame either is nobody, or is looked for from the next one.
        kept = [r for r in start if r.missed == 0 or (r.id in known and r.missed < _KEEP_MISSED)]
        regions = _largest(kept, known, self.max_people)
        chosen = frozenset(region.id for region in regions)
        people[window.key] = tuple(p for p in people[window.key] if p.region in chosen)
        backward = regions
        for t in range(window.key + 1, count):
            people[t], regions = self._look(window.frames[t], regions, chosen)
        for t in range(window.key - 1, -1, -1):
            people[t], backward = self._look(window.frames[t], backward, chosen)
        left = tuple(region for region in regions if region.missed < _KEEP_MISSED)
        return people, replace(embedding, regions=left, known=frozenset(r.id for r in left))

    def _detections(self, image: np.ndarray, memory: Memory, search: bool, all_tiles: bool):
        height, width = image.shape[:2]
        views = [(0, 0, width, height)]
        parts = tiles(height, width)
        if all_tiles:
            views += parts
        elif search and parts:
            views.append(parts[memory.tile % len(parts)])
        found: list[Region] = []
        for view in views:
            tensor, to_image = letterbox(image, view)
            raw, scores = self._detect(tensor)
            for region in regions_of(
                suppress(decode_boxes(raw[0], scores[0, :, 0], self._anchors)), to_image
            ):
                if _overlapping(region, found) is None and region.side > 16:
                    found.append(region)
        return found

    def _look(
        self, frame: Frame, regions: tuple[Region, ...], known: Set[int]
    ) -> tuple[tuple[Person, ...], tuple[Region, ...]]:
        """Look for a person in each region of a frame -> who is there, and where to look next."""
        seen: list[tuple[Person, Region]] = []
        after: list[Region] = []
        for region in regions:
            found = self._person_in(frame, region)
            if found is None:
                after.append(replace(region, missed=region.missed + 1))
                continue
            person, following = found
            if any(_same(person, other) for other, _ in seen):
                continue
            if region.id not in known and (
                any(_part_of(person, other) for other, _ in seen)
                or not self._still_there(frame, following)
            ):
                continue
            seen.append((person, following))
        return tuple(p for p, _ in seen), tuple([r for _, r in seen] + after)

    def _person_in(self, frame: Frame, region: Region) -> tuple[Person, Region] | None:
        """Who is in a region and where to look next, None when nobody is."""
        outputs = self._landmark(crop(frame.image, region))
        presence = float(outputs[1][0, 0])
        if presence < MIN_PRESENCE:
            return None
        return read_person(
            region, outputs[0][0], presence, outputs[2][0, :, :, 0], outputs[3][0], outputs[4][0]
        )

    def _still_there(self, frame: Frame, region: Region) -> bool:
        """A second look, turned and scaled: a person stays one, a bench that looked like one
        does not."""
        return all(
            self._person_in(
                frame, replace(region, angle=region.angle + turn, side=region.side * scale)
            )
            for turn, scale in _SECOND_LOOKS
        )


def _largest(regions: list[Region], known: Set[int], count: int) -> tuple[Region, ...]:
    """The ``count`` largest regions, people already followed favoured; the longest followed come
    first, so that what is found twice stays with whom it belonged to."""
    regions = sorted(regions, key=lambda r: r.side * (_FAVOUR if r.id in known else 1.0))
    return tuple(sorted(regions[::-1][:count], key=lambda r: (r.id not in known, r.id)))


def _same(a: Person, b: Person) -> bool:
    """Whether two people are one person seen twice: their landmarks lie on each other."""
    size = max(float((p.box_px[2:] - p.box_px[:2]).max()) for p in (a, b))
    apart = np.linalg.norm(a.landmarks_px - b.landmarks_px, axis=1)
    return float(np.median(apart)) < _SAME_PERSON * max(size, 1.0)


def _part_of(person: Person, other: Person) -> bool:
    """Whether a find lies on somebody else: a leg taken for a person, or the same one askew."""
    if other.mask is None:
        return False
    back = cv2.invertAffineTransform(other.mask.to_image)
    points = np.rint(person.landmarks_px @ back[:, :2].T + back[:, 2]).astype(int)
    height, width = other.mask.values.shape
    ok = ((points >= 0) & (points < (width, height))).all(1)
    on = other.mask.values[points[ok, 1], points[ok, 0]] > 0.5
    return int(on.sum()) > _PART_INSIDE * len(points)


def _overlapping(region: Region, others: list[Region]) -> int | None:
    """Index of the other region that overlaps this one most, None when none does enough."""
    best, index = _SAME_REGION, None
    for i, other in enumerate(others):
        shared = max(0.0, min(region.x + region.side / 2, other.x + other.side / 2)
                     - max(region.x - region.side / 2, other.x - other.side / 2))  # fmt: skip
        shared *= max(0.0, min(region.y + region.side / 2, other.y + other.side / 2)
                      - max(region.y - region.side / 2, other.y - other.side / 2))  # fmt: skip
        union = region.side**2 + other.side**2 - shared
        if shared / union > best:
            best, index = shared / union, i
    return index


@contextmanager
def _standard_error_to(path: str) -> Iterator[None]:
    """LiteRT announces its CPU delegate from C++, past every setting of its own."""
    sys.stderr.flush()
    kept, other = os.dup(2), os.open(path, os.O_WRONLY)
    try:
        os.dup2(other, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(other)


def _model(
    path: Path, shapes: list[tuple[int, ...]], threads: int
) -> Callable[[np.ndarray], list[np.ndarray]]:
    """A LiteRT model as a function from one input (h, w, c) to its outputs, copied."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        with _standard_error_to(os.devnull):
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path.name} is not a model LiteRT can run: {error}") from error
    outputs = interpreter.get_output_details()
    if [tuple(int(n) for n in out["shape"]) for out in outputs] != shapes:
        raise ValueError(f"{path.name} is another model than the one this version expects")
    tensor = interpreter.get_input_details()[0]["index"]

    def run(values: np.ndarray) -> list[np.ndarray]:
        interpreter.set_tensor(tensor, values[None])
        interpreter.invoke()
        return [interpreter.get_tensor(out["index"]) for out in outputs]

    return run
