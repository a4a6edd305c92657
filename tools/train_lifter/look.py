"""Make pairs of BlazePose's landmarks and the truth, to train the lifter.

    python -m tools.train_lifter.look MOTIONS.npz OUT.npz --seed N --seconds S

It draws synthetic people (`people`) for S seconds of wall clock, in sequences of 64 frames, with
motion blur, grain and JPEG artefacts, and runs the perceiver on them as on a clip. For every
sequence it writes ``px`` (64, 33, 2), ``vis`` (64, 33), ``world`` (64, 33, 3), ``seen`` (64,),
``truth`` (64, 33, 3) in metres in the camera's axes, and ``K`` (3, 3). A process uses one core.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pipeline.body.kinematics import vertex_normals
from pipeline.body.load import load_body
from pipeline.core.frame import Frame, Window
from pipeline.perception.blazepose.perceiver import BlazePose
from pipeline.weights import store as weights
from tools.train_lifter.people import (
    SIDE,
    Motions,
    Wardrobe,
    backdrop,
    before_camera,
    moving,
)

FRAMES = 64
_BLURRED = 2


@numba.njit(cache=True, fastmath=True)
def paint(pixels, depths, colors, faces, image, nearest):
    """Draw Gouraud-shaded triangles (F, 3), counter-clockwise in the image, into ``image``
    (H, W, 3) with the depth buffer ``nearest`` (H, W)."""
    height, width = nearest.shape
    for f in range(len(faces)):
        a, b, c = faces[f]
        ax, ay = pixels[a]
        bx, by = pixels[b]
        cx, cy = pixels[c]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area <= 1e-9:
            continue
        for y in range(
            max(0, int(np.ceil(min(ay, by, cy)))), min(height - 1, int(max(ay, by, cy))) + 1
        ):
            for x in range(
                max(0, int(np.ceil(min(ax, bx, cx)))), min(width - 1, int(max(ax, bx, cx))) + 1
            ):
                wc = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
                wb = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
                wa = 1 - wb - wc
                depth = wa * depths[a] + wb * depths[b] + wc * depths[c]
                if wa < 0 or wb < 0 or wc < 0 or depth >= nearest[y, x]:
                    continue
                nearest[y, x] = depth
                for k in range(3):
                    image[y, x, k] = wa * colors[a, k] + wb * colors[b, k] + wc * colors[c, k]


class Studio:
    """Draws sequences and runs the perceiver on them."""

    def __init__(self, motions: Motions, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.motions = motions
        self.body = load_body()
        self.wardrobe = Wardrobe(self.body)
        # The image's y points down: fronts turn the other way round.
        self.faces = np.ascontiguousarray(self.body.faces[:, ::-1].astype(np.int64))
        self.perceiver = BlazePose(weights.find("blazepose"), max_people=1, threads=1)
        self.grain = self.random.normal(size=(SIDE + 64, SIDE + 64, 3)).astype(np.float32)

    def sequence(self) -> dict[str, np.ndarray]:
        """Return one sequence's arrays, as the module describes them."""
        poses = moving(self.motions, self.random, FRAMES)
        poses, lens, place = before_camera(poses, self.random)
        betas = self.random.normal(size=10) * ([1.2] * 5 + [0.9] * 5)
        pictures, truth = self.draw(poses, betas, lens, place)
        return {**self.look(pictures), "truth": truth, "K": lens}

    def draw(self, poses, betas, lens, place) -> tuple[list[np.ndarray], np.ndarray]:
        """Return pictures (SIDE, SIDE, 3) uint8 and the landmarks (T, 33, 3) of the body under the
        clothes, metres."""
        random = self.random
        colors, off = self.wardrobe.dress(random)
        stand_off = torch.from_numpy((self.wardrobe.normals * off[:, None]).astype(np.float32))
        clothed = replace(self.body, v_template=self.body.v_template + stand_off)
        full = np.concatenate((poses, np.zeros((len(poses), 2, 3))), 1)
        truth = _posed(self.body, full, betas, place).landmarks_m.numpy()
        shutter, following = random.uniform(0.1, 0.6), np.r_[1 : len(poses), len(poses) - 1]
        now, then = (Rotation.from_rotvec(p.reshape(-1, 3)) for p in (full, full[following]))
        shots = []
        for shot in range(_BLURRED):
            share = shutter * ((shot + 0.5) / _BLURRED - 0.5)
            # Motion blur: the body is drawn at two moments while the shutter is open.
            turns = now * Rotation.from_rotvec(share * (now.inv() * then).as_rotvec())
            moved = place + share * (place[following] - place)
            turned = turns.as_rotvec().reshape(full.shape)
            shots.append(_posed(clothed, turned, betas, moved).vertices_m.numpy())
        scene = backdrop(random)
        light = random.normal(size=3) * [1, 0.5, 0.6] + [0, -1.2, -0.8]
        light /= np.linalg.norm(light)
        ambient, warmth = random.uniform(0.3, 0.75), 1 + 0.06 * random.normal(size=3)
        grain, quality, blur = random.uniform(0.003, 0.03), random.integers(55, 95), random.random()
        pictures = []
        for frame in range(len(poses)):
            vertices = torch.from_numpy(shots[0][frame])
            normals = vertex_normals(vertices, self.body.faces).numpy()
            shade = ambient + 1.2 * (1 - ambient) * (normals @ light).clip(0)
            shaded = (colors * shade[:, None] * warmth).astype(np.float32)
            image = np.mean([self._shot(s[frame], shaded, lens, scene) for s in shots], 0)
            if blur > 0.35:
                image = cv2.GaussianBlur(image, (0, 0), blur)
            down, across = random.integers(0, 64, 2)
            image = image + grain * self.grain[down : down + SIDE, across : across + SIDE]
            pixels = np.clip(255 * image, 0, 255).astype(np.uint8)
            # OpenCV's JPEG takes the first channel for blue, but treats red no differently.
            coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
            pictures.append(np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)))
        return pictures, truth

    def _shot(self, vertices, colors, lens, scene) -> np.ndarray:
        image, nearest = scene.copy(), np.full((SIDE, SIDE), 1e9, np.float32)
        pixels = vertices[:, :2] / vertices[:, 2:] * lens[0, 0] + lens[:2, 2]
        paint(pixels.astype(np.float32), vertices[:, 2], colors, self.faces, image, nearest)
        return image

    def look(self, pictures: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Return the perceiver's results for the one person in each picture."""
        count = len(pictures)
        out = {
            "px": np.zeros((count, 33, 2), np.float32), "vis": np.zeros((count, 33), np.float32),
            "world": np.zeros((count, 33, 3), np.float32), "seen": np.zeros(count, bool),
        }  # fmt: skip
        memory = None
        # In windows of four with the memory of the last one, as the app perceives a clip.
        for first in range(0, count, 4):
            frames = (Frame(k, "", 0, k / 30, pictures[k]) for k in range(first, first + 4))
            window = Window(tuple(frames), 0, first == 0)
            embedding = self.perceiver.embed(window, memory)
            people, memory = self.perceiver.decode(embedding, window)
            for k, found in enumerate(people, first):
                if found:
                    out["px"][k], out["vis"][k] = found[0].landmarks_px, found[0].visibility
                    out["world"][k], out["seen"][k] = found[0].world_m, True
        return out


def _posed(body, poses, betas, place):
    turns = torch.from_numpy(poses.astype(np.float32))
    shape = torch.from_numpy(betas.astype(np.float32)).expand(len(turns), 10)
    return body.forward(
        shape, turns[:, 0], turns[:, 1:].flatten(1), torch.from_numpy(place.astype(np.float32))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Let BlazePose look at made-up people.")
    parser.add_argument("motions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300.0)
    args = parser.parse_args()
    # One core a process: several run side by side, each with its own seed.
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    studio = Studio(Motions.load(args.motions), args.seed)
    # One sequence in any case, so that the file is never empty.
    rows, end = [studio.sequence()], time.monotonic() + args.seconds
    while time.monotonic() < end:
        rows.append(studio.sequence())
    arrays: dict[str, Any] = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    np.savez(args.out, **arrays)
    print(f"{len(rows)} sequences, seen in {np.mean([row['seen'] for row in rows]):.1%}")


if __name__ == "__main__":
    main()
