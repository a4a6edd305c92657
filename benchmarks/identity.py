"""Count how often people change their identity, and cuts found, under conditions that make it hard.

Rendered people walk before a made-up background: the lights flicker, go out or flash, a wall passes
before them, they leave and come back on either side, cross, or another person comes. With clips,
the same is done to the clips' pictures, and the plain clip says who is who. Run it:

    python -m benchmarks.identity [CLIP ...] [--seed 1] [--rounds 1]

For each condition it prints the people of the truth, the share of their frames in which they were
found, how often a person's id changed, how often an id went to another person, and the cuts found
and expected. At the end it prints the time of `Tracker.assign` for people who are all followed, and
for the frames in which all of them are described.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import cv2
import numpy as np
import torch

from benchmarks.renderers import hardware
from pipeline.body.load import load_body
from pipeline.body.model import BodyModel
from pipeline.capture.open import open_source
from pipeline.core.camera import project
from pipeline.core.frame import Frame
from pipeline.core.people import Mask, Person
from pipeline.runtime.estimator import BodyEstimator
from pipeline.runtime.make import make_estimator
from pipeline.runtime.window import Windower
from pipeline.tracking.tracker import Tracker

FPS = 15
SIZE = (360, 640)
_FOCAL = 620.0
_LENS = np.array([[_FOCAL, 0, SIZE[1] / 2], [0, _FOCAL, SIZE[0] / 2], [0, 0, 1]])
_AWAY_M = 4.6
_SAME = 0.25
"""A found person is one of the truth within this mean landmark distance, in parts of the size."""
_CLIP_SECONDS = 4.0

Truth = list[dict[int, np.ndarray]]
"""For each frame, the landmarks (33, 2) in pixels of each person who can be seen."""


@dataclass
class Scene:
    """Pictures, who is in them, and how many cuts there are."""

    images: list[np.ndarray]
    truth: Truth
    cuts: int = 0
    fps: float = FPS


@dataclass
class Score:
    """Sums over all scenes of a condition."""

    people: int = 0
    person_frames: int = 0
    found: int = 0
    switches: int = 0
    taken: int = 0
    cuts: int = 0
    expected: int = 0

    def add(self, scene: Scene, tracks: Truth, cuts: int) -> None:
        """Add the tracks found in each frame of a scene."""
        before: dict[int, int] = {}
        owner: dict[int, int] = {}
        for truth, found in zip(scene.truth, tracks):
            self.person_frames += len(truth)
            for person, track in _matched(truth, found).items():
                self.found += 1
                self.switches += before.get(person, track) != track
                self.taken += owner.get(track, person) != person
                before[person], owner[track] = track, person
        self.people += len(set().union(*scene.truth))
        self.cuts, self.expected = self.cuts + cuts, self.expected + scene.cuts


def _matched(truth: dict[int, np.ndarray], found: dict[int, np.ndarray]) -> dict[int, int]:
    """The track nearest to each person of the truth, each track once."""
    pairs = sorted(
        (float(np.linalg.norm(a - b, axis=1).mean() / max(np.ptp(a, 0).max(), 1)), person, track)
        for person, a in truth.items()
        for track, b in found.items()
    )
    out: dict[int, int] = {}
    for distance, person, track in pairs:
        if distance < _SAME and person not in out and track not in out.values():
            out[person] = track
    return out


class Actor:
    """A dressed, walking body; y points up and the person faces the camera."""

    def __init__(self, body: BodyModel, random: np.random.Generator) -> None:
        self.body, self._phase = body, random.uniform(0, 6)
        part = body.weights.numpy().argmax(1)
        colours = np.tile(np.array([230.0, 175, 140]) * random.uniform(0.3, 1.05), (len(part), 1))
        shirt, trousers, shoes, hair = random.uniform(10, 245, (4, 3)) * [[1], [0.8], [0.5], [0.4]]
        sleeves = [16, 17, 18, 19] if random.random() < 0.5 else [16, 17]
        for where, colour in (
            ([3, 6, 9, 13, 14, *sleeves], shirt), ([0, 1, 2, 4, 5], trousers),
            ([7, 8, 10, 11], shoes),
        ):  # fmt: skip
            colours[np.isin(part, where)] = colour
        rest, eyes = (
            body.v_template.numpy(),
            body.landmark_regressor.numpy()[2] @ body.v_template.numpy(),
        )
        colours[(part == 15) & ((rest[:, 1] > eyes[1] + 0.04) | (rest[:, 2] < eyes[2] - 0.1))] = (
            hair
        )
        self.colours = colours[body.faces].mean(1)
        self.betas = torch.from_numpy(random.normal(size=(1, 10)).astype(np.float32))

    def draw(self, image: np.ndarray, x_m: float, away_m: float, t_s: float) -> np.ndarray:
        """Draw the person into a picture, and return the landmarks (33, 2) in pixels."""
        swing = 0.45 * np.sin(6 * t_s + self._phase)
        pose = np.zeros((24, 3), np.float32)
        pose[1, 0], pose[2, 0] = swing, -swing
        pose[4, 0], pose[5, 0] = 0.3 + 0.3 * swing, 0.3 - 0.3 * swing
        pose[16], pose[17] = [-0.5 * swing, 0, -1.15], [0.5 * swing, 0, 1.15]
        root = torch.tensor([[np.pi, 0, 0]], dtype=torch.float32)
        place = torch.tensor([[x_m, 0.1, away_m]], dtype=torch.float32)
        out = self.body.forward(self.betas, root, torch.from_numpy(pose[1:].reshape(1, 69)), place)
        corners = out.vertices_m[0].numpy()[self.body.faces]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        middle = corners.mean(1)
        front = (normal * middle).sum(1) < 0
        light = 0.55 + 0.45 * np.clip(normal @ np.array([-0.4, -0.6, -0.7]), 0, 1)
        pixels = np.rint(8 * project(corners, _LENS)).astype(np.int32)
        # From far to near: what is near covers what is far.
        for face in np.argsort(-middle[:, 2]):
            if front[face]:
                colour = (self.colours[face] * light[face]).tolist()
                cv2.fillConvexPoly(image, pixels[face], colour, shift=3)
        return project(out.landmarks_m[0].numpy(), _LENS)


def _background(random: np.random.Generator) -> np.ndarray:
    image = np.full((*SIZE, 3), random.uniform(60, 190, 3))
    for cells in (4, 12, 40):
        noise = random.normal(size=(cells, cells, 3)).astype(np.float32)
        image += random.uniform(5, 20) * cv2.resize(noise, SIZE[::-1])
    for _ in range(8):
        x, y, wide, high = (int(v) for v in random.integers(10, 300, 4))
        cv2.rectangle(
            image, (2 * x, y), (2 * x + wide, y + high), random.uniform(20, 230, 3).tolist(), -1
        )
    return image.clip(0, 255)


_Path = Callable[[float], float | None]
"""From seconds to a person's place across in metres; None while the person is away."""


def staged(
    body: BodyModel, random: np.random.Generator, paths: Sequence[_Path], seconds: float
) -> Scene:
    """Return a scene of as many people as paths; the first is the farthest."""
    background, actors = _background(random), [Actor(body, random) for _ in paths]
    scene = Scene([], [])
    for frame in range(round(seconds * FPS)):
        image, truth = background.copy(), {}
        for number, (actor, path) in enumerate(zip(actors, paths)):
            x_m = path(frame / FPS)
            if x_m is not None:
                away = _AWAY_M + 0.5 * (len(paths) - 1 - number)
                landmarks = actor.draw(image, x_m, away, frame / FPS)
                inside = (landmarks >= 0).all(1) & (landmarks < SIZE[::-1]).all(1)
                # At the edge a person need not be found.
                if inside.mean() > 0.9:
                    truth[number] = landmarks
        image += random.normal(0, 2, image.shape)
        scene.images.append(image.clip(0, 255).astype(np.uint8))
        scene.truth.append(truth)
    return scene


def _stands(x_m: float) -> _Path:
    return lambda t: x_m + 0.1 * float(np.sin(t))


def _away(start_s: float, end_s: float, side: float, back: float) -> _Path:
    """Walks out at one side, and in again at a side later."""

    def path(t: float) -> float | None:
        if start_s + 2 <= t < end_s:
            return None
        if t < start_s:
            return 0.0
        return side * 1.6 * (t - start_s) if t < end_s else back * max(3.2 - 1.6 * (t - end_s), 0)

    return path


def _leaves(at_s: float) -> _Path:
    return lambda t: 0.0 if t < at_s else -1.6 * (t - at_s) if t < at_s + 2 else None


def _comes(at_s: float) -> _Path:
    return lambda t: None if t < at_s else max(3.2 - 1.6 * (t - at_s), 0.0)


def _crosses(from_m: float, to_m: float, seconds: float) -> _Path:
    return lambda t: from_m + (to_m - from_m) * min(t / seconds, 1.0)


def _lit(scene: Scene, gains: Sequence[float], offset: float = 0.0) -> Scene:
    """The scene with each picture's light multiplied, and the levels clipped as a camera does."""
    images = [
        image if gain == 1 else np.clip(image * gain + offset * (gain > 1), 0, 255).astype(np.uint8)
        for image, gain in zip(scene.images, gains)
    ]
    truth = [people if gain > 0.15 else {} for people, gain in zip(scene.truth, gains)]
    return replace(scene, images=images, truth=truth)


def _wall(scene: Scene, random: np.random.Generator) -> Scene:
    """A wall as wide as a third of the picture stands before the people for two seconds."""
    height, width = scene.images[0].shape[:2]
    colour = random.uniform(40, 200, 3).astype(np.uint8)
    images, truth = [], []
    begin_s = 0.3 * len(scene.images) / scene.fps
    hidden = np.mean([points[:, 0].mean() for people in scene.truth for points in people.values()])
    for number, (image, people) in enumerate(zip(scene.images, scene.truth)):
        t = number / scene.fps - begin_s
        # It comes within a third of a second, stays, and goes on.
        step = np.clip(3 * t, 0, 1) + np.clip(3 * (t - 2), 0, 1)
        left = round(hidden + width * (step - 1) * 1.2 - width / 4)
        image = image.copy()
        image[:, max(left, 0) : max(left + width // 2, 0)] = colour
        images.append(image)
        truth.append({k: p for k, p in people.items() if not 0 < p[:, 0].mean() - left < width / 2})
    return replace(scene, images=images, truth=truth)


def _joined(one: Scene, two: Scene, mixed: int) -> Scene:
    """Two scenes after each other; the people of the second are others."""
    height, width = one.images[0].shape[:2]
    images = [cv2.resize(image, (width, height)) for image in two.images]
    scale = np.array([width, height]) / two.images[0].shape[1::-1]
    after = [{person + 100: p * scale for person, p in people.items()} for people in two.truth]
    last = len(one.images) - mixed
    shares = (np.arange(mixed) + 0.5) / mixed
    blend = [
        cv2.addWeighted(old, 1 - share, new, share, 0)
        for old, new, share in zip(one.images[last:], images, shares)
    ]
    unknown: Truth = [{} for _ in range(mixed)]
    truth = one.truth[:last] + unknown + after[mixed:]
    return Scene([*one.images[:last], *blend, *images[mixed:]], truth, 1, one.fps)


Making = dict[str, Callable[[], Scene]]
"""How the scene of each condition is made; only those that are run are made."""


def lights(scene: Callable[[], Scene], random: np.random.Generator) -> Making:
    """Return a scene under other lights, and with a wall before its people."""

    def lit(gain: Callable[[np.ndarray], np.ndarray], offset: float = 0.0) -> Callable[[], Scene]:
        def make() -> Scene:
            plain = scene()
            # From 0 to 1 over the scene.
            return _lit(plain, gain(np.linspace(0, 1, len(plain.images))), offset)

        return make

    def strobe(part: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(part)) // 3 % 2, 0.0, 1.0)

    def flashes(part: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(part)) % 13 == 7, random.uniform(2, 5), 1.0)

    return {
        "plain": scene,
        "strobe, 3 of 6 frames dark": lit(strobe),
        "dark for a third": lit(lambda part: np.where(abs(part - 0.5) < 1 / 6, 0.02, 1.0)),
        "faded to black and back": lit(lambda part: np.clip(6 * abs(part - 0.5) - 0.5, 0, 1)),
        "camera flashes": lit(flashes, 60.0),
        "exposure jumps": lit(lambda part: np.where((3 * part).astype(int) % 2, 0.4, 1.0)),
        "hidden by a wall for 2 s": lambda: _wall(scene(), random),
    }


def conditions(body: BodyModel, seed: int) -> Making:
    """Return how to make rendered scenes by condition."""
    random = np.random.default_rng(seed)
    side = float(random.choice([-1, 1]))

    def stage(*paths: _Path, seconds: float, more: int = 0) -> Scene:
        # Each scene has people of its own, whichever scenes are made.
        return staged(body, np.random.default_rng((seed, more)), paths, seconds)

    one = cache(lambda: stage(_stands(0.0), seconds=5))
    two = cache(lambda: stage(_stands(-0.8), _stands(0.8), seconds=2.5, more=1))
    other = cache(lambda: stage(_stands(0.2), seconds=2.5, more=2))
    return lights(one, random) | {
        "two people, strobe": lights(two, random)["strobe, 3 of 6 frames dark"],
        "out and back, same side": lambda: stage(_away(1, 5, side, side), seconds=8),
        "out and back, other side": lambda: stage(_away(1, 6, side, -side), seconds=9),
        "another person comes": lambda: stage(_leaves(1), _comes(4), seconds=7),
        "two cross": lambda: stage(_crosses(-1.6, 1.6, 4), _crosses(1.6, -1.6, 4), seconds=5),
        "hard cut": lambda: _joined(other(), two(), 0),
        "dissolve": lambda: _joined(other(), two(), round(1.2 * FPS)),
    }


def _run(estimator: BodyEstimator, scene: Scene) -> tuple[Truth, int]:
    """The landmarks by track of each frame, and the number of cuts found."""
    windower, state = Windower(max_wait_ms=float("inf")), estimator.begin()
    tracks: Truth = []
    resets = 0
    frames = [Frame(k, "scene", 0, k / scene.fps, image) for k, image in enumerate(scene.images)]
    windows = [window for frame in frames for window in windower.add(frame)]
    for window in windows + windower.finish():
        resets += window.reset
        found = estimator.perceive([window], [state])[0].people
        tracks += [{k: person.landmarks_px for k, person in people.items()} for people in found]
    return tracks, resets - 1


def _clip_scene(estimator: BodyEstimator, path: str) -> Scene:
    """The beginning of a clip; its truth is what is found in it as it is."""
    source = open_source(path)
    source.open()
    images, times = [], []
    for frame in source.frames():
        if frame.pts_s > _CLIP_SECONDS:
            break
        images.append(frame.image)
        times.append(frame.pts_s)
    source.close()
    step = max(1, round((len(times) - 1) / max(times[-1] - times[0], 1e-3) / FPS))
    images = images[::step]
    scene = Scene(images, [{} for _ in images], fps=1 / max(times[step] - times[0], 1e-3))
    tracks, _ = _run(estimator, scene)
    # Only people who are there for half of the time: others come and go for reasons of their own.
    seen = [track for people in tracks for track in people]
    lasting = {track for track in seen if seen.count(track) > len(images) / 2}
    scene.truth = [{k: p for k, p in people.items() if k in lasting} for people in tracks]
    return scene


def _of_clips(scenes: Sequence[Scene], seed: int) -> list[Making]:
    """How to make the conditions of each clip; cuts lead to the next clip."""
    random = np.random.default_rng(seed)
    out: list[Making] = []
    for one, two in zip(scenes, [*scenes[1:], scenes[0]]):
        making = lights(partial(replace, one), random)
        if len(scenes) > 1:
            making["hard cut"] = partial(_joined, one, two, 0)
            making["dissolve"] = partial(_joined, one, two, round(one.fps))
        out.append(making)
    return out


HEAD = ("condition", "people", "found %", "switches", "taken over", "cuts", "expected")


def row(name: str, score: Score) -> str:
    """Return a line of the table."""
    found = 100 * score.found / max(score.person_frames, 1)
    return (
        f"{name:28} {score.people:7} {found:8.0f} {score.switches:9} {score.taken:11} "
        f"{score.cuts:5} {score.expected:9}"
    )


def assign_times_ms(count: int, frames: int = 150) -> np.ndarray:
    """Return the milliseconds of `Tracker.assign` in each of these frames of made-up people.

    They are the thread's own, so that other load on the machine does not count.
    """
    random = np.random.default_rng(0)
    image = random.integers(0, 255, (720, 1280, 3), np.uint8)
    shape = random.uniform(-1, 1, (33, 2)) * [30, 100]
    tracker, times = Tracker(), []
    for frame in range(frames):
        people = []
        for number in range(count):
            points = (shape + [60 + 75 * number + frame / 10, 300]).astype(np.float32)
            box = np.concatenate((points.min(0), points.max(0)))
            to_image = np.array([[2, 0, points[0, 0] - 128], [0, 2, 172]], np.float32)
            mask = Mask(np.ones((128, 128), np.float32), to_image)
            seen, world = np.ones(33, np.float32), np.zeros((33, 3), np.float32)
            people.append(Person(box, 1.0, points, seen, world, mask, roi=number))
        begun = time.thread_time()
        tracker.assign(people, frame / 30, image)
        times.append(1e3 * (time.thread_time() - begun))
    return np.array(times[1:])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identity", description=__doc__)
    parser.add_argument("clips", nargs="*", metavar="CLIP")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="rendered scenes of each condition")
    parser.add_argument("--only", nargs="+", help="conditions whose names have one of these texts")
    options = parser.parse_args(arguments)
    estimator = make_estimator(people=4, device="cpu")
    if options.clips:
        making = _of_clips([_clip_scene(estimator, path) for path in options.clips], options.seed)
    else:
        body = load_body()
        making = [conditions(body, 1000 * options.seed + k) for k in range(options.rounds)]
    print(f"{hardware()}; seed {options.seed}")
    print("{:28} {:>7} {:>8} {:>9} {:>11} {:>5} {:>9}".format(*HEAD), flush=True)
    for name in making[0]:
        if any(text in name for text in options.only or [""]):
            score = Score()
            for scenes in making:
                scene = scenes[name]()
                score.add(scene, *_run(estimator, scene))
            print(row(name, score), flush=True)
    estimator.close()
    for count in (1, 8, 16):
        p50, most = np.quantile(assign_times_ms(count), (0.5, 0.98))
        print(f"assign, {count} people: p50 {p50:.2f} ms, all described {most:.2f} ms")


if __name__ == "__main__":
    main()
