"""Configuration: layers, and errors that name the file and the key."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Config, ConfigError, load_config, profiles


def keys(part: object, prefix: str = "") -> list[str]:
    out = []
    for field in fields(part):  # type: ignore[arg-type]
        value = getattr(part, field.name)
        if is_dataclass(value):
            out += keys(value, f"{field.name}.")
        else:
            out.append(prefix + field.name)
    return out


def profile(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_the_default_profile_says_what_the_code_defaults_to():
    assert load_config() == Config()


def test_the_default_profile_names_every_setting():
    text = (resources.files("configs") / "default.toml").read_text()
    lines = [line.lstrip("# ") for line in text.splitlines()]
    for key in keys(Config()):
        if key != "source":
            name = key.rpartition(".")[2]
            assert any(line.startswith(f"{name} = ") for line in lines), key


def test_every_profile_that_is_shipped_loads():
    for name in profiles():
        load_config(name)


def test_flags_win_over_the_profile_and_the_profile_over_defaults(tmp_path):
    path = profile(tmp_path, "[perceive]\npeople = 2\n[render]\nalpha = 0.5\n")
    config = load_config(path, {"perceive.people": 7})
    assert (config.perceive.people, config.render.alpha, config.render.hud) == (7, 0.5, True)


def test_paths_in_a_profile_are_relative_to_it_and_flags_to_the_working_folder(tmp_path):
    path = profile(tmp_path, '[fit]\nbody = "smpl.npz"\n[output]\njsonl = "-"\n')
    config = load_config(path, {"output.video": "o.mp4"})
    assert config.fit.body == tmp_path / "smpl.npz"
    assert config.output.jsonl == Path("-")
    assert config.output.video == Path("o.mp4")


@pytest.mark.parametrize(
    ("text", "key", "wanted"),
    [
        ("[perceive]\npeopel = 2", "perceive.peopel", "no such setting"),
        ("[percieve]\npeople = 2", "percieve.people", "no such setting"),
        ("speed = 2", "speed", "no such setting"),
        ("[perceive]\npeople = 2.5", "perceive.people", "a whole number, not 2.5"),
        ("[perceive]\npeople = true", "perceive.people", "a whole number, not True"),
        ("[perceive]\npeople = 0", "perceive.people", "1 to 64, not 0"),
        ('[perceive]\npeople = "four"', "perceive.people", "a whole number, not 'four'"),
        ("[render]\nalpha = 1.5", "render.alpha", "0 to 1, not 1.5"),
        ("[render]\nalpha = nan", "render.alpha", "a number, not nan"),
        ("[render]\nhud = 1", "render.hud", "true or false, not 1"),
        ('[render]\nrenderer = "magic"', "render.renderer", "one of auto, numba, gpu, pyrender"),
        ("[capture]\nseconds = 0", "capture.seconds", "above 0, not 0"),
        ("[capture]\nretry_s = -1", "capture.retry_s", "0 or more, not -1"),
        ("[fit]\nbody = 3", "fit.body", "a path, not 3"),
        ("fit = 3", "fit", "a table, not 3"),
        ("[fit.body]\nfile = 3", "fit.body", "a path"),
        ("device = [1]", "device", "one of auto, cpu, cuda"),
        ("[capture]\nfov_deg = 60\nfocal_px = 900", "capture.fov_deg", "not both"),
    ],
)
def test_a_wrong_setting_is_one_line_with_file_and_key(tmp_path, text, key, wanted):
    path = profile(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    message = str(error.value)
    assert message.startswith(f"{path}: {key}: ")
    assert wanted in message
    assert "\n" not in message


def test_not_toml_and_not_there_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"mine\.toml: not valid TOML: .*line 1"):
        load_config(profile(tmp_path, "people: 4"))
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        load_config(str(tmp_path / "none.toml"))
    with pytest.raises(
        ConfigError, match="no profile 'fast'; there are: baseline, default, rtx4090"
    ):
        load_config("fast")
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not a UTF-8 text"):
        load_config(str(binary))


def test_a_flag_is_named_as_it_is_typed():
    with pytest.raises(ConfigError, match=r"^--people: 1 to 64, not 0$"):
        load_config(flags={"perceive.people": 0})
    with pytest.raises(ConfigError, match=r"^--start: 0 or more, not -2$"):
        load_config(flags={"capture.start_s": -2.0})
    with pytest.raises(ConfigError, match="not both"):
        load_config(flags={"capture.fov_deg": 60.0, "capture.focal_px": 900.0})


def test_a_flag_for_the_lens_replaces_a_profiles_choice_of_the_other(tmp_path):
    path = profile(tmp_path, "[capture]\nfov_deg = 60\n")
    capture = load_config(path, {"capture.focal_px": 900.0}).capture
    assert (capture.fov_deg, capture.focal_px) == (None, 900.0)


@given(st.integers(-5, 70), st.floats(-1, 2, allow_nan=False))
def test_what_is_accepted_is_in_range_and_kept(people, alpha):
    flags = {"perceive.people": people, "render.alpha": alpha}
    if 1 <= people <= 64 and 0 <= alpha <= 1:
        config = load_config(flags=flags)
        assert (config.perceive.people, config.render.alpha) == (people, alpha)
    else:
        with pytest.raises(ConfigError):
            load_config(flags=flags)
