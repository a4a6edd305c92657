"""A whole clip from one seed: people, motions, place, light and camera."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import cv2
import numpy as np

from synth.backdrop import Backdrop, Light, paint
from synth.camera import Camera, make_camera
from synth.kinds import CALM, MOTIONS
from synth.motion import Motion, make_motion
from synth.person import Person, make_person
from synth.pose import Skeleton
from synth.rig import Posed
from synth.scene import Instant, Scene
from synth.setup import SAMPLE, SAMPLE_SEED, make_light, random_setup

GRAVITY = np.array([0.0, -9.81, 0.0])
_FLIGHT_S = 0.6


class Clip:
    """A clip; everything in it follows from its seed.

    Args:
        kind: The first person's motion, of `MOTIONS`.
        seed: The seed.
        people: The number of people.
        size: The (height, width) in pixels.
        fps: Frames a second.
        seconds: The length; None for the motion's own. A throw's is around its release.
        manner: How much the people's motions differ; None for the seed's own, 1.

    Raises:
        ValueError: The kind is unknown, or there would be no person or no picture.
    """

    def __init__(
        self,
        kind: str = "pitch",
        seed: int = SAMPLE_SEED,
        people: int = 1,
        size: tuple[int, int] = (720, 1280),
        fps: float = 30.0,
        seconds: float | None = None,
        manner: float | None = None,
    ) -> None:
        if kind not in MOTIONS:
            raise ValueError(f"no motion {kind!r}: {', '.join(MOTIONS)}")
        if people < 1 or min(size) < 64 or fps <= 0:
            raise ValueError("a clip wants a person, 64 pixels each way and frames in its seconds")
        self.kind, self.seed, self.fps = kind, seed, fps
        throws = MOTIONS[kind].throws
        sample = (kind, seed, people) == ("pitch", SAMPLE_SEED, 1)
        self.setup = SAMPLE if sample else random_setup(seed, throws)
        if manner is not None:
            self.setup = replace(self.setup, manner=manner)
        others = np.random.default_rng([seed, 2]).integers(len(CALM), size=people - 1)
        self.kinds = [kind, *(MOTIONS[kind].others or CALM[k] for k in others)]
        self.cast: list[Person] = []
        self.motions: list[Motion] = []
        for number, name in enumerate(self.kinds):
            person, motion = self._cast(number, name, seconds)
            seconds = motion.end_s - motion.start_s if number == 0 else seconds
            self.cast.append(person)
            self.motions.append(motion)
        self.seconds = self.motions[0].end_s - self.motions[0].start_s
        self._arrange()
        light = make_light(self.setup)
        self.camera = self._camera(size, self.cast[0].stature_m)
        self.scene = Scene(self.camera, light, self._paint(light), tuple(self.cast))
        self._throw = self._release() if throws else None

    def _cast(self, number: int, kind: str, seconds: float | None) -> tuple[Person, Motion]:
        entry = MOTIONS[kind]
        random = np.random.default_rng([self.seed, 4, number])
        glove = "" if not entry.throws else "R" if entry.mirror else "L"
        person = make_person(random, entry.throws, glove)
        motion = make_motion(
            kind, Skeleton.of(person), random, self.setup.manner, self.setup.tempo, seconds
        )
        return person, motion

    def _arrange(self) -> None:
        """Place the others beside the first person, across the camera's view, facing any way."""
        if MOTIONS[self.kind].others:
            self._arrange_onlookers()
            return
        random = np.random.default_rng([self.seed, 5])
        yaw = np.radians(self.setup.yaw_deg)
        across, along = np.array([np.cos(yaw), -np.sin(yaw)]), np.array([np.sin(yaw), np.cos(yaw)])
        for number in range(1, len(self.motions)):
            step = (1 if number % 2 else -1) * ((number + 1) // 2) * random.uniform(1.15, 1.5)
            place = step * across + random.uniform(-0.9, 0.9) * along
            self.motions[number] = replace(
                self.motions[number], place_m=(float(place[0]), float(place[1])),
                heading_deg=float(random.uniform(-180, 180)),
            )  # fmt: skip

    def _arrange_onlookers(self) -> None:
        """Place the others around the first person, at its sides and behind it, facing it."""
        random = np.random.default_rng([self.seed, 5])
        count = len(self.motions) - 1
        for number in range(1, count + 1):
            # From the camera's left around the back to its right.
            share = (number - 0.5 + random.uniform(-0.3, 0.3)) / count
            angle = self.setup.yaw_deg + 75 + 210 * share
            away = random.uniform(1.5, 2.4)
            place = away * np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))])
            self.motions[number] = replace(
                self.motions[number], place_m=(float(place[0]), float(place[1])),
                heading_deg=float(angle + 180 + random.uniform(-25, 25)),
            )  # fmt: skip

    def _joints(self) -> np.ndarray:
        """Return all people's joints (K, 3) at every tenth of a second, metres in the world."""
        times = np.linspace(0, self.seconds, int(10 * self.seconds) + 2)
        return np.concatenate([body.joints() for time in times for body in self.posed(time)])

    def _reach(self) -> tuple[float, float]:
        """Return the least and the greatest distance of people along the camera's level axis,
        metres."""
        forward = self.camera.rotation[2] * [1, 0, 1]
        away = (self._joints() - self.camera.place_m) @ (forward / np.linalg.norm(forward))
        return float(away.min()), float(away.max())

    def _camera(self, size: tuple[int, int], stature_m: float) -> Camera:
        """Return a camera that has all joints in the picture all the time."""
        setup, joints = self.setup, self._joints()
        aim = 0.5 * (joints.min(0) + joints.max(0))
        aim[1] = 0.5 * stature_m
        focal = setup.focal * float(np.hypot(*size))
        distance = focal * stature_m / (setup.share * size[0])
        # A margin: hands, hair and shoes extend beyond the joints.
        around = np.concatenate([
            joints + [x, y, z] for x in (-0.25, 0.25) for y in (-0.1, 0.25) for z in (-0.25, 0.25)
        ])  # fmt: skip
        for _ in range(60):
            camera = make_camera(size, focal, setup.yaw_deg, distance, setup.height_m, aim)
            seen = camera.see(around)
            pixels = camera.project(seen)
            height, width = size
            if (seen[:, 2] > 1).all() and ((pixels > 0) & (pixels < (width, height))).all():
                break
            distance *= 1.05
        return camera

    def _paint(self, light: Light) -> Backdrop:
        random = np.random.default_rng([self.seed, 3])
        return paint(self.setup.place, self.camera, light, self._reach(), random)

    def camera_at(self, time_s: float) -> Camera:
        """Return the camera at a time from the clip's start."""
        return self.camera

    def scene_at(self, frame: int) -> Scene:
        """Return the scene as the camera sees it at a frame."""
        return self.scene

    @property
    def frames(self) -> int:
        return int(self.seconds * self.fps + 1e-6)

    @property
    def release_s(self) -> float:
        """The time of the release, seconds into the clip; NaN without one."""
        first = self.motions[0]
        return float("nan") if first.release_s is None else first.release_s - first.start_s

    @property
    def release_frame(self) -> int:
        """The frame whose middle is nearest to the ball's release; -1 without one."""
        return -1 if isnan(self.release_s) else round(self.release_s * self.fps)

    def _clock(self, motion: Motion, time_s: float) -> float:
        return motion.start_s + min(time_s, motion.end_s - motion.start_s)

    def posed(self, time_s: float) -> list[Posed]:
        """Return all people's rigs at a time from the clip's start."""
        out = []
        for person, motion in zip(self.cast, self.motions):
            out.append(person.rig.pose(*motion.at(self._clock(motion, time_s))))
        return out

    def _grip(self, body: Posed) -> np.ndarray:
        """Return the ball's place in the throwing hand: between the thumb and the first two
        fingers."""
        side = "L" if self.motions[0].hand == "left" else "R"
        names = body.rig.names
        tips = [body.heads[names.index(f"finger{k}-3.{side}")] for k in (1, 2, 3)]
        knuckle = body.heads[names.index(f"finger2-1.{side}")]
        return 0.35 * tips[0] + 0.25 * tips[1] + 0.25 * tips[2] + 0.15 * knuckle

    def _release(self) -> tuple[float, np.ndarray, np.ndarray]:
        """Return the time and the place of the release, and the ball's velocity: to the plate, 17 m
        away."""
        first, when = self.motions[0], self.release_s
        start = self._grip(self.posed(when)[0])
        way = np.array([-17.0 if first.hand == "left" else 17.0, -1.0, 0.0])
        speed = np.random.default_rng([self.seed, 6]).uniform(34, 41) * self.setup.tempo
        return when, start, speed * way / np.linalg.norm(way)

    def ball(self, time_s: float, bodies: list[Posed]) -> np.ndarray | None:
        """Return the ball's centre (3,) in the world; None if there is no ball, or no more."""
        if self._throw is None:
            return None
        when, start, velocity = self._throw
        flown = time_s - when
        if flown < 0:
            return self._grip(bodies[0])
        if flown > _FLIGHT_S:
            return None
        return start + velocity * flown + 0.5 * GRAVITY * flown**2

    def instant(self, time_s: float) -> tuple[Instant, list[Posed]]:
        """Return people and ball at a time from the clip's start."""
        bodies = self.posed(time_s)
        people = tuple(
            person.clothed.posed(body.transforms) for person, body in zip(self.scene.people, bodies)
        )
        return Instant(people, self.ball(time_s, bodies)), bodies

    def _exposed(self, time_s: float, middle_s: float) -> Instant:
        """Return people and ball at a time of an exposure."""
        return self.instant(time_s)[0]

    def picture(self, frame: int) -> np.ndarray:
        """Return a frame, RGB uint8 (H, W, 3): the mean over the exposure around its time, as a
        sensor records it."""
        middle, open_s = frame / self.fps, self.setup.shutter / self.fps
        scene = self.scene_at(frame)
        ends = [self._exposed(middle + side * open_s / 2, middle) for side in (-1, 1)]
        count = scene.subframes(*ends)
        spread = (np.arange(count) + 0.5) / count - 0.5
        linear = scene.picture([self._exposed(middle + s * open_s, middle) for s in spread])
        return self._developed(linear, np.random.default_rng([self.seed, 7, frame]))

    def _developed(self, linear: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Convert linear light to a picture: exposure, soft highlights, shot noise, the sRGB curve
        and 8 bits."""
        light = np.clip(linear * self.setup.exposure, 0, None)
        light = np.where(light < 0.7, light, 0.7 + 0.3 * (1 - np.exp(-(light - 0.7) / 0.3)))
        noise = random.standard_normal(light.shape, np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), 0.6) * 1.5
        light = np.clip(light + noise * np.sqrt(6e-6 + 6e-5 * light), 0, 1)
        curve = np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        return (curve * 255 + 0.5).astype(np.uint8)
