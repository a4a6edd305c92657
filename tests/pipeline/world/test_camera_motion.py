"""A camera's rotation and zoom against the truth of made-up scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.capture.base import SourceOptions
from pipeline.capture.clip import ClipSource
from pipeline.core.camera import default_intrinsics
from pipeline.core.yuv import to_yuv
from pipeline.world.camera_motion import CameraMotion
from pipeline.world.camera_view import CameraView
from pipeline.world.key_frames import MOST_KEY_FRAMES
from tests.support.clips import write_clip
from tests.support.panorama import Scene, angle_deg, beside, hall, posts, texture, turn, two_planes

SIZE = 360, 640
SCENE = Scene(0, SIZE)
seeds = st.integers(0, 2**31)


def noisy(image: np.ndarray, seed: int, sigma: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def poses_of(images: Iterable[np.ndarray], **options) -> list[CameraView]:
    motion = CameraMotion(default_intrinsics(*SIZE), SIZE)
    return [motion.add(image, **options) for image in images]


def errors(
    poses: Sequence[CameraView], rotations: Sequence[np.ndarray], zooms: Sequence[float]
) -> tuple[float, float]:
    """The largest error of the rotation, degrees, and of the zoom, as a share."""
    angles = [angle_deg(p.rotation, rotations[0].T @ r) for p, r in zip(poses, rotations)]
    shares = [abs(p.zoom / (z / zooms[0]) - 1) for p, z in zip(poses, zooms)]
    return max(angles), max(shares)


@settings(max_examples=8)
@given(
    st.floats(-60, 60), st.floats(-15, 15), st.floats(-15, 15), st.floats(1, 2),
    st.floats(0, 0.2), seeds,
)  # fmt: skip
def test_a_camera_that_turns_zooms_and_shakes(pan, tilt, roll, zoom, shake_deg, seed):
    """Up to 60 degrees and twice the focal length: 0.3 degrees, or a hundredth of the pan."""
    count = 41
    way = np.linspace(0, 1, count)
    shakes = np.random.default_rng(seed).normal(0, shake_deg, (count, 3))
    rotations = [turn(*(np.array([pan, tilt, roll]) * w + s)) for w, s in zip(way, shakes)]
    zooms = list(zoom**way)
    images = [
        noisy(SCENE.picture(r, z), seed + i) for i, (r, z) in enumerate(zip(rotations, zooms))
    ]
    poses = poses_of(images)
    assert all(pose.known for pose in poses)
    assert not any(pose.translated for pose in poses)
    angle, share = errors(poses, rotations, zooms)
    assert angle <= max(0.3, 0.01 * abs(pan))
    assert share <= 0.01


def test_a_blurred_pan_that_returns_closes_the_loop():
    angles = [1.5 * min(i, 60 - i) for i in range(61)]
    rotations, images = [], []
    for i, (before, now) in enumerate(zip([0.0, *angles], angles)):
        rotations.append(turn((before + 3 * now) / 4))
        exposure = [turn(before + (now - before) * part) for part in np.linspace(0.5, 1, 5)]
        images.append(noisy(SCENE.picture(exposure), i))
    poses = poses_of(images)
    assert errors(poses, rotations, [1.0] * 61)[0] <= 0.3
    assert angle_deg(poses[-1].rotation, rotations[-1]) <= 0.03


def walkers(seed: int, grow: float) -> Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Draw three people who walk and sway, a third to half of the picture; boxes of their size
    times ``grow``."""
    rng = np.random.default_rng(seed)
    start, speed = rng.uniform(0, SIZE[1], 3), rng.uniform(-6, 6, 3)
    wide, tall = 110, 280

    def draw(frame: int, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image, boxes = image.copy(), []
        for person, (x0, v) in enumerate(zip(start, speed)):
            left = int((x0 + v * frame) % (SIZE[1] + wide) - wide)
            for part in range(4):
                x = left + int(8 * np.sin(frame / 4 + 1.7 * part + person))
                low, high = max(0, x), min(SIZE[1], x + wide)
                rows = slice(50 + part * 70, 120 + part * 70)
                if high > low:
                    body = texture(2 + person)[rows, 1500 + low - x : 1500 + high - x]
                    image[rows, low:high] = body
            middle = np.array([left + wide / 2, 50 + tall / 2])
            half = grow * np.array([wide / 2, tall / 2])
            boxes.append([*(middle - half), *(middle + half)])
        return image, np.array(boxes)

    return draw


@settings(max_examples=5)
@given(seeds, st.sampled_from([1.0, 0.7]), st.booleans())
def test_nothing_moves_a_still_camera(seed, grow, flicker):
    """Noise, people with boxes that miss a part of them, and lamps that flicker."""
    motion = CameraMotion(SCENE.intrinsics, SIZE)
    draw, background = walkers(seed, grow), SCENE.picture(np.eye(3))
    for i in range(25):
        image, boxes = draw(i, background)
        light = 1 + 0.25 * np.sin(1.3 * i) if flicker else 1.0
        pose = motion.add(noisy(image * light, seed + i), boxes)
        assert pose.still
        assert pose.known
        assert np.array_equal(pose.rotation, np.eye(3))
        assert pose.zoom == 1.0


def test_a_camera_that_starts_and_stops_is_held_where_it_stopped():
    angles = [0.0] * 10 + [0.5 * i for i in range(10)] + [4.5] * 20
    poses = poses_of(noisy(SCENE.picture(turn(a)), i) for i, a in enumerate(angles))
    assert all(pose.still for pose in poses[:10])
    assert not any(pose.still for pose in poses[11:20])
    assert all(pose.still for pose in poses[-8:])
    assert len({pose.rotation.tobytes() for pose in poses[-8:]}) == 1
    assert angle_deg(poses[-1].rotation, turn(4.5)) < 0.03


def test_people_do_not_carry_a_pan_with_them():
    motion, draw = CameraMotion(SCENE.intrinsics, SIZE), walkers(3, 0.7)
    for i in range(40):
        image, boxes = draw(i, SCENE.picture(turn(0.6 * i)))
        pose = motion.add(noisy(image, i), boxes)
        assert angle_deg(pose.rotation, turn(0.6 * i)) <= 0.3
        assert not pose.translated


@pytest.mark.parametrize("way_m", [(0.02, 0, 0), (0, 0, 0.02)], ids=["sideways", "forwards"])
def test_a_camera_that_changes_its_place_is_translated(way_m):
    poses = poses_of(noisy(two_planes(SIZE, i * np.array(way_m), np.eye(3)), i) for i in range(25))
    assert all(pose.translated for pose in poses[10:20])
    assert all(pose.known for pose in poses)


@pytest.mark.parametrize("focal", [0.8, 1.25])
def test_a_pan_with_a_wrong_lens_is_no_translation(focal):
    lens = SCENE.intrinsics * [[focal, 1, 1], [1, focal, 1], [1, 1, 1]]
    motion = CameraMotion(lens, SIZE)
    poses = [motion.add(two_planes(SIZE, np.zeros(3), turn(0.5 * i))) for i in range(40)]
    assert all(pose.known for pose in poses)
    assert not any(pose.translated for pose in poses)


def test_a_distorted_picture_of_a_shutter_that_rolls_is_no_translation():
    shakes = np.cumsum(np.random.default_rng(2).normal(0, 0.1, (30, 3)), 0)
    height, width = SIZE
    x, y = np.meshgrid((np.arange(width) - width / 2) / 734, (np.arange(height) - height / 2) / 734)
    bend = 1 + 0.1 * (x * x + y * y)
    source = ((734 * x * bend + width / 2), (734 * y * bend + height / 2))
    images = []
    for before, now in zip([shakes[0], *shakes], shakes):
        rows = [
            SCENE.picture(turn(*(now + (now - before) * (b / 12 - 0.5) * 0.6))) for b in range(12)
        ]
        image = np.concatenate([rows[b][b * 30 : (b + 1) * 30] for b in range(12)])
        images.append(cv2.remap(image, *(s.astype(np.float32) for s in source), cv2.INTER_LINEAR))
    poses = poses_of(images)
    assert not any(pose.translated for pose in poses)
    assert errors(poses, [turn(*s) for s in shakes], [1.0] * 30)[0] <= 0.3


def test_a_wall_is_not_known():
    wall = np.full(SIZE, 120.0)
    for sigma in (0.0, 2.0, 5.0):
        poses = poses_of(noisy(wall, i, sigma) for i in range(12))
        assert not any(pose.known or pose.still for pose in poses)
        assert all(np.isinf(pose.error_px) for pose in poses)


def test_darkness_holds_the_view_until_it_is_light_again():
    rotations = [turn(0.5 * i) for i in range(30)]
    images = [noisy(SCENE.picture(r), i) for i, r in enumerate(rotations)]
    images[10:16] = [image // 200 for image in images[10:16]]
    poses = poses_of(images)
    assert not any(pose.known for pose in poses[10:16])
    assert np.array_equal(poses[15].rotation, poses[9].rotation)
    assert all(pose.known for pose in poses[17:])
    assert angle_deg(poses[-1].rotation, rotations[-1]) <= 0.1
    assert {pose.reference for pose in poses} == {0}


def test_a_dim_picture_is_aligned_where_its_corners_are_lost():
    rotations = [turn(0.5 * i) for i in range(24)]
    images = [noisy(SCENE.picture(r), i) for i, r in enumerate(rotations)]
    images[10:16] = [image // 50 for image in images[10:16]]
    poses = poses_of(images)
    assert all(pose.known for pose in poses)
    assert errors(poses, rotations, [1.0] * 24)[0] <= 0.15


@settings(max_examples=4)
@given(st.floats(-40, 40), st.floats(-4, 4), st.floats(0.8, 1.6), st.floats(0, 0.15), seeds)
def test_a_pan_in_a_hall_without_corners(pan, tilt, zoom, shake_deg, seed):
    """From the first picture on there are posts, an edge and streaks, and no corner."""
    scene, way = Scene(seed % 3, SIZE, draw=hall), np.linspace(0, 1, 60)
    shakes = np.random.default_rng(seed).normal(0, shake_deg, (60, 3))
    rotations = [turn(*(np.array([pan, tilt, 0]) * w + s)) for w, s in zip(way, shakes)]
    zooms = list(zoom**way)
    poses = poses_of(
        noisy(scene.picture(r, z), seed + i) for i, (r, z) in enumerate(zip(rotations, zooms))
    )
    assert all(pose.known for pose in poses)
    assert {pose.reference for pose in poses} == {0}
    angle, share = errors(poses, rotations, zooms)
    assert angle <= 0.3
    assert share <= 0.01


def test_corners_and_all_pixels_hand_over_without_a_jump():
    """A pan from corners over a hall to corners, and back."""
    scene = Scene(0, SIZE, draw=beside(texture, hall, texture))
    rotations = [turn(pan) for pan in (*np.arange(-60, 60, 1.0), *np.arange(60, -60, -1.0))]
    poses = poses_of(noisy(scene.picture(r), i) for i, r in enumerate(rotations))
    assert all(pose.known for pose in poses)
    assert {pose.reference for pose in poses} == {0}
    wrong = [
        Rotation.from_matrix(rotations[0].T @ r @ pose.rotation.T).as_rotvec()
        for pose, r in zip(poses, rotations)
    ]
    assert np.degrees(np.linalg.norm(wrong, axis=1)).max() <= 0.3
    assert np.degrees(np.linalg.norm(np.diff(wrong, axis=0), axis=1)).max() <= 0.15


@pytest.mark.parametrize("flicker", [False, True])
def test_nothing_moves_a_still_camera_in_a_hall(flicker):
    """People whose boxes miss a part of them, a ball without one, noise and lamps."""
    scene = Scene(1, SIZE, draw=hall)
    motion, draw = CameraMotion(scene.intrinsics, SIZE), walkers(5, 0.8)
    background = scene.picture(turn(5))
    for i in range(40):
        image, boxes = draw(i, background)
        cv2.circle(image, (20 + 15 * i, 150 + (i - 20) ** 2 // 4), 14, 240, -1)
        light = 1 + 0.2 * np.sin(1.3 * i) if flicker else 1.0
        pose = motion.add(noisy(image * light, i), boxes)
        assert pose.known
        assert pose.still
        assert np.array_equal(pose.rotation, np.eye(3))
        assert pose.zoom == 1.0


def test_a_body_without_a_box_does_not_win_in_a_hall():
    """It covers a ninth of the picture, and has all corners but a few."""
    scene = Scene(0, SIZE, draw=hall)
    motion, background = CameraMotion(scene.intrinsics, SIZE), scene.picture(turn(5))
    for i in range(40):
        image, left = background.copy(), 30 + 6 * i
        image[60:340, left : left + 110] = texture(4)[60:340, 1500:1610]
        pose = motion.add(noisy(image, i))
        assert pose.still
        assert np.array_equal(pose.rotation, np.eye(3))


def test_a_pan_in_a_hall_that_stops_is_held():
    scene = Scene(1, SIZE, draw=hall)
    angles = [0.4 * i for i in range(15)] + [5.6] * 20
    poses = poses_of(noisy(scene.picture(turn(a)), i) for i, a in enumerate(angles))
    assert all(pose.still for pose in poses[-6:])
    assert len({pose.rotation.tobytes() for pose in poses[-6:]}) == 1
    assert angle_deg(poses[-1].rotation, turn(5.6)) <= 0.1


def test_people_do_not_carry_a_pan_in_a_hall_with_them():
    scene = Scene(0, SIZE, draw=hall)
    motion, draw = CameraMotion(scene.intrinsics, SIZE), walkers(3, 0.9)
    for i in range(40):
        image, boxes = draw(i, scene.picture(turn(0.5 * i)))
        pose = motion.add(noisy(image, i), boxes)
        assert pose.known
        assert angle_deg(pose.rotation, turn(0.5 * i)) <= 0.3


def test_posts_alone_are_not_known_for_long():
    """Through a long lens posts leave the tilt open, which is guessed for ten frames at most."""
    scene = Scene(0, SIZE, 12.0, draw=beside(texture, posts))
    motion = CameraMotion(scene.intrinsics, SIZE)
    angles = [*np.arange(-6, 8, 0.25), *[8.0] * 20]
    poses = [motion.add(noisy(scene.picture(turn(a)), i)) for i, a in enumerate(angles)]
    assert all(pose.known for pose in poses[:30])
    assert not any(pose.known for pose in poses[-10:])
    for pose, angle in zip(poses, angles):
        if pose.known and pose.reference == 0:
            assert angle_deg(pose.rotation, turn(-6).T @ turn(angle)) <= 0.3


@pytest.mark.parametrize("dark", [1, 2, 4, 6, 9])
def test_no_other_post_is_taken_for_the_one_before_the_dark(dark):
    """Posts are 6.25 degrees apart; in eight dark frames the camera turns by more."""
    scene = Scene(1, SIZE, draw=hall)
    motion, known = CameraMotion(scene.intrinsics, SIZE), []
    for i in range(28):
        image = noisy(scene.picture(turn(0.8 * i)), i)
        pose = motion.add(np.zeros_like(image) if 8 <= i < 8 + dark else image)
        known.append(pose.known)
        if pose.known and pose.reference == 0:
            assert angle_deg(pose.rotation, turn(0.8 * i)) <= 0.3
    assert not any(known[8 : 8 + dark])
    assert dark > 2 or all(known[8 + dark :])


def test_a_cut_begins_again():
    motion = CameraMotion(SCENE.intrinsics, SIZE)
    for i in range(6):
        motion.add(SCENE.picture(turn(i)))
    pose = motion.add(SCENE.picture(turn(-30)), cut=True)
    assert np.array_equal(pose.rotation, np.eye(3))
    assert pose.reference == 6
    pose = motion.add(SCENE.picture(turn(-29)))
    assert angle_deg(pose.rotation, turn(-30).T @ turn(-29)) < 0.05
    assert pose.reference == 6


def test_another_place_without_a_cut_becomes_the_reference():
    other = Scene(1, SIZE)
    images = [SCENE.picture(turn(i)) for i in range(4)]
    images += [other.picture(turn(0.1 * i)) for i in range(16)]
    poses = poses_of(images)
    assert not any(pose.known for pose in poses[4:12])
    assert poses[-1].known
    assert poses[-1].reference > 4


def test_a_place_seen_before_is_found_after_a_jump():
    angles = [*range(0, 30, 2), *range(8)]
    poses = poses_of(SCENE.picture(turn(a)) for a in angles)
    assert all(pose.known for pose in poses[16:])
    assert errors(poses[16:], [turn(a) for a in angles], [1.0] * 8)[0] < 30
    assert angle_deg(poses[-1].rotation, turn(angles[-1])) <= 0.1


def test_key_frames_are_bounded():
    motion = CameraMotion(SCENE.intrinsics, SIZE)
    for i in range(150):
        tilt = 20 * np.sin(i / 8)
        motion.add(SCENE.picture(turn(60 * np.sin(i / 23), tilt), 1.5 + 0.5 * np.sin(i / 37)))
    assert len(motion._keys.all) <= MOST_KEY_FRAMES


def test_colour_grey_and_planes_agree():
    pans = [turn(0.5 * i) for i in range(5)]
    grey = [SCENE.picture(r) for r in pans]
    rgb = [np.repeat(g[..., None], 3, 2) for g in grey]
    last = [poses_of(kind)[-1].rotation for kind in (grey, rgb, [to_yuv(c) for c in rgb])]
    assert all(angle_deg(last[0], other) < 0.01 for other in last[1:])


def test_a_decoded_clip(tmp_path: Path):
    """H.264 at a broadcast's quality, with motion blur."""
    scene = Scene(0, (720, 1280))
    angles = [0.0] * 8 + [0.6 * i for i in range(32)]
    images = []
    for before, now in zip([0.0, *angles], angles):
        exposure = [turn(before + (now - before) * part) for part in (0.75, 1.0)]
        images.append(np.repeat(scene.picture(exposure)[..., None], 3, 2))
    path = write_clip(tmp_path / "pan.mp4", images, options={"crf": "26"})
    motion = CameraMotion(scene.intrinsics, scene.size)
    with closing(ClipSource(str(path), SourceOptions())) as clip:
        clip.open()
        poses = [motion.add(frame.pixels) for frame in clip.frames()]
    assert len(poses) == 40
    assert all(pose.still for pose in poses[:8])
    assert angle_deg(poses[-1].rotation, turn(angles[-1] - 0.075)) <= 0.2
    assert abs(poses[-1].zoom - 1) <= 0.01


K = default_intrinsics(*SIZE)


@pytest.mark.parametrize(
    ("intrinsics", "size", "message"),
    [
        (np.eye(2), SIZE, "intrinsics"),
        (K * np.nan, SIZE, "intrinsics"),
        (-K, SIZE, "focal lengths"),
        (K, (32, 640), "64 pixels"),
    ],
)
def test_a_wrong_camera_is_refused(intrinsics, size, message):
    with pytest.raises(ValueError, match=message):
        CameraMotion(intrinsics, size)


@pytest.mark.parametrize(
    ("image", "boxes", "message"),
    [
        (np.zeros((360, 640, 4), np.uint8), None, "RGB uint8"),
        (np.zeros(SIZE, np.float32), None, "RGB uint8"),
        (np.zeros((640, 360), np.uint8), None, r"this one is \(640, 360\)"),
        (np.zeros(SIZE, np.uint8), np.zeros((3, 5)), r"\(P, 4\)"),
        (np.zeros(SIZE, np.uint8), np.zeros(4), r"\(P, 4\)"),
        (np.zeros(SIZE, np.uint8), np.full((1, 4), np.nan), "finite"),
    ],
)
def test_a_wrong_picture_is_refused(image, boxes, message):
    with pytest.raises(ValueError, match=message):
        CameraMotion(K, SIZE).add(image, boxes)
