"""A camera of a calibration file, against the world's own conventions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from app.config import CaptureConfig, ConfigError, calibrated, load_config
from pipeline.world.calibration import read_calibration
from pipeline.world.ground import up_of


def text_of(
    name="cam01", size=(1088, 1920), focal=1680.0, rotation=(0, 0, 0), translation=(0, 0, 0)
):
    matrix = [[focal, 0.0, size[0] / 2], [0.0, focal, size[1] / 2], [0.0, 0.0, 1.0]]
    return (
        f'[{name}]\nname = "{name}"\nsize = {list(size)}\nmatrix = {matrix}\n'
        f"distortions = [0.1, 0.0, 0.0, 0.0]\nrotation = {[float(v) for v in rotation]}\n"
        f"translation = {[float(v) for v in translation]}\nfisheye = false\n\n"
    )


def standing(pitch_deg: float, roll_deg: float, height_m: float, turn_deg: float):
    """The rotation and the translation of a camera that stands so, in a world whose z is up."""
    up = up_of(pitch_deg, roll_deg)
    # Any rotation that brings the world's z to the camera's up, turned about it.
    rotation, _ = Rotation.align_vectors([up], [[0, 0, 1]])
    rotation = rotation * Rotation.from_euler("z", turn_deg, degrees=True)
    translation = -rotation.apply([3.0, -2.0, height_m])
    return rotation.as_rotvec(), translation


def loaded(flags) -> CaptureConfig:
    return calibrated(load_config("default", flags)).capture


@given(
    st.floats(-85, 85), st.floats(-179, 179), st.floats(0.1, 30), st.floats(-180, 180),
    st.floats(10, 150),
)  # fmt: skip
def test_the_pose_and_the_lens_are_those_of_the_file(
    tmp_path_factory, pitch_deg, roll_deg, height_m, turn_deg, fov_deg
):
    focal = 960 / math.tan(math.radians(fov_deg) / 2)
    rotation, translation = standing(pitch_deg, roll_deg, height_m, turn_deg)
    path = tmp_path_factory.mktemp("c") / "c.toml"
    path.write_text(text_of(focal=focal, rotation=rotation, translation=translation))
    camera = read_calibration(path)
    assert camera.fov_deg == pytest.approx(fov_deg, abs=1e-6)
    assert camera.pose.height_m == pytest.approx(height_m, abs=1e-6)
    # Compared as directions: the roll of a camera that looks straight down is any.
    up = up_of(camera.pose.pitch_deg, camera.pose.roll_deg)
    np.testing.assert_allclose(up, up_of(pitch_deg, roll_deg), atol=1e-6)


def test_one_of_several_cameras_is_named(tmp_path):
    path = tmp_path / "c.toml"
    rotation, translation = standing(10, 0, 2, 0)
    how = {"rotation": rotation, "translation": translation}
    path.write_text(
        text_of("a", focal=1000, **how) + text_of("b", **how) + "[metadata]\nerror = 1\n"
    )
    assert read_calibration(path, "a").fov_deg > read_calibration(path, "b").fov_deg
    with pytest.raises(ValueError, match="name one of its cameras: a, b"):
        read_calibration(path)
    with pytest.raises(ValueError, match="there is no camera c: a, b"):
        read_calibration(path, "c")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no camera is in it"),
        ("[a", "not valid TOML"),
        ("[a]\nsize = [1, 2]\n", "no camera is in it"),
        (text_of(translation=(0, 0, 0)), "not above the floor"),
        (text_of(focal=-1.0), "above 0"),
        (text_of().replace("rotation = [0.0, 0.0, 0.0]", 'rotation = "x"'), "rotation is not 3"),
        (text_of().replace("translation = [0.0, 0.0, 0.0]", "translation = [nan, 0.0, 0.0]"),
         "translation is not 3"),
        (text_of().replace("matrix", "matrix = [[1.0]]\nother"), "matrix is not 3 x 3"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_clear_line(tmp_path, text, words):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        read_calibration(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="--camera-file: "):
        loaded({"capture.camera_file": path})


def test_what_is_given_otherwise_wins(tmp_path):
    path = tmp_path / "c.toml"
    rotation, translation = standing(12, 3, 2.5, 40)
    path.write_text(text_of(rotation=rotation, translation=translation))
    capture = loaded({"capture.camera_file": path})
    assert capture.camera_height_m == pytest.approx(2.5)
    assert capture.camera_pitch_deg == pytest.approx(12)
    assert capture.camera_roll_deg == pytest.approx(3)
    assert capture.fov_deg == pytest.approx(math.degrees(2 * math.atan(960 / 1680)))
    flags = {"capture.camera_file": path, "capture.camera_height_m": 1.0, "capture.focal_px": 900.0}
    capture = loaded(flags)
    assert (capture.camera_height_m, capture.focal_px, capture.fov_deg) == (1.0, 900.0, None)
    assert capture.camera_pitch_deg == pytest.approx(12)
    with pytest.raises(ConfigError, match="--camera-name: needs --camera-file"):
        loaded({"capture.camera_name": "a"})
    with pytest.raises(ConfigError, match=r"--camera-file: .*No such file"):
        loaded({"capture.camera_file": tmp_path / "nothing"})
