"""Configuration: layers, and errors that name the file and the key."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import dataclass, fields, is_dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import Config, ConfigError, FitConfig, load_config, profiles, settings
from app.profile_text import default_profile
from app.setting import Declared, Section, Setting


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
    assert (config.perceive.people, config.render.alpha, config.render.hud) == (7, 0.5, None)


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
        ('[fit]\nbody = "a\\u0000b"', "fit.body", "a path without control characters"),
        ('[output]\nvideo = "a\\u0000b.mp4"', "output.video", "a path without control characters"),
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


def test_a_word_that_is_nearly_right_gets_a_suggestion(tmp_path):
    for text, near in (
        ("[perceive]\npeopel = 2", "did you mean perceive.people?"),
        ("[percieve]\npeople = 2", "did you mean perceive.people?"),
        ("[fit]\npeople = 2", "did you mean perceive.people?"),
        ("people = 2", "did you mean perceive.people?"),
        ("[nowhere]\npeople = 2", "did you mean perceive.people?"),
        ("devise = 'cpu'", "did you mean device?"),
        ("[render]\nrenderer = 'nmba'", "did you mean numba?"),
    ):
        with pytest.raises(ConfigError, match=rf"mine\.toml: .*{re.escape(near)}$"):
            load_config(profile(tmp_path, text))
    with pytest.raises(ConfigError, match=r"or a path; did you mean rtx4090\?$"):
        load_config("rtx490")
    with pytest.raises(ConfigError) as error:
        load_config(profile(tmp_path, "[perceive]\nzzz = 2"))
    assert "did you mean" not in str(error.value)


def test_the_models_names_come_from_their_catalogs(tmp_path):
    config = load_config()
    assert (config.estimator, config.perceive.perceiver) == ("keypoints", "blazepose")
    with pytest.raises(ConfigError, match=r"^--perceiver: .*blazpose"):
        load_config(flags={"perceive.perceiver": "blazpose"})
    with pytest.raises(ConfigError, match=r"mine\.toml: estimator: .*keypoint"):
        load_config(profile(tmp_path, "estimator = 'keypoint'"))


def test_a_profile_with_the_retired_model_still_loads(tmp_path):
    assert load_config(profile(tmp_path, "[perceive]\nmodel = 'blazepose'")) == Config()


def test_the_default_profile_is_the_declared_settings():
    text = (resources.files("configs") / "default.toml").read_text()
    assert text == default_profile(), "python -m app.profile_text > configs/default.toml"


# One declaration: what is true of every setting, whatever there will be.


def values_of(setting: Declared) -> list:
    """Values that are allowed and not the default."""
    limits = setting.setting
    kind = setting.base
    if limits.check is not None:
        return [limits.example] if limits.example is not None else []
    if choices := get_args(kind):
        return [choice for choice in choices if choice != setting.default]
    if kind is bool:
        return [not setting.default]
    if kind in (int, float):
        inside = [limits.low, limits.low + 0.5 * (min(limits.high, limits.low + 8) - limits.low)]
        inside = inside[1:] if limits.above else inside
        return [kind(v) for v in inside if kind(v) != setting.default]
    return ["a/b" if kind is Path else "text"]


@pytest.mark.parametrize("setting", settings().values(), ids=lambda s: s.key)
def test_every_setting_is_set_by_profile_and_by_flag_and_checked(setting, tmp_path):
    section, _, name = setting.key.rpartition(".")

    def found(config: Config) -> object:
        return getattr(getattr(config, section) if section else config, name)

    assert found(Config()) == setting.default
    table = f"[{section}]\n" if section else ""
    for value in values_of(setting):
        loaded = found(load_config(profile(tmp_path, f"{table}{name} = {json.dumps(value)}")))
        wanted = tmp_path / value if setting.base is Path else value
        assert loaded == wanted
        assert found(load_config(flags={setting.key: value})) == (
            Path(value) if setting.base is Path else value
        )
    limits = setting.setting
    bad: list = [[1], {"a": 1}]
    if setting.base in (int, float):
        bad += [v for v in (limits.low - 1, limits.high + 1) if math.isfinite(v)]
        bad += [limits.low] if limits.above else []
        bad += ["4", True, math.nan]
    if get_args(setting.base):
        bad += ["nothing", 1]
    for value in bad:
        with pytest.raises(ConfigError) as error:
            load_config(flags={setting.key: value})
        assert str(error.value).startswith("--") or not setting.flags


@pytest.mark.parametrize("command", ["run", "serve", "events", "evaluate"])
def test_every_setting_of_a_command_is_in_its_help_and_on_its_command_line(command, capsys):
    from app import cli

    assert cli.main([command, "--help"]) == 0
    page = capsys.readouterr().out
    words = {"run": "a", "serve": "0", "events": "a", "evaluate": "a"}[command]
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", page))
    for setting in settings().values():
        if command not in setting.commands:
            # Of these commands they are options of their own.
            own = {"events": {"--jsonl"}, "evaluate": {"--poses"}}.get(command, set())
            assert not (shown - own) & set(setting.flags), setting.key
            continue
        assert shown >= set(setting.flags), setting.key
        text = setting.setting.help
        texts = [t for _, t in setting.setting.stands_for.values()] or [text]
        for text in texts:
            assert " ".join(text.split()) in " ".join(page.split()), setting.key
        for flag, (value, _) in setting.setting.stands_for.items():
            call = cli.parse([command, words, flag])
            assert call is not None
            assert call.flags == {setting.key: value}
        if setting.flag is not None:
            for value in values_of(setting):
                # A list is the flag again and again.
                typed = []
                for each in value if isinstance(value, tuple) else (value,):
                    typed += [setting.flag] if each is True else [setting.flag, str(each)]
                call = cli.parse([command, words, *typed])
                assert call is not None
                assert call.flags == {setting.key: value}
                assert call.config() is not None


@dataclass(frozen=True)
class WithSmoothing(FitConfig):
    smoothing: Annotated[float, Setting("How smooth the motion is.", "X", low=0, high=2)] = 0.5


@dataclass(frozen=True)
class NewConfig(Config):
    fit: Annotated[WithSmoothing, Section("models", ("run", "serve"))] = WithSmoothing()


def test_a_new_field_is_a_setting_everywhere(monkeypatch, tmp_path, capsys):
    """What adding a setting takes: one annotated field."""
    import app.config as config_module
    from app import cli

    monkeypatch.setattr(config_module, "Config", NewConfig)
    settings.cache_clear()
    for name in ("app.cli.run", "app.cli.serve", "app.cli.events"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        for command, there in (("run", True), ("serve", True), ("events", False)):
            assert cli.main([command, "--help"]) == 0
            page = capsys.readouterr().out
            assert ("--smoothing X" in page) == there
            assert ("How smooth the motion is. [default: 0.5]" in page) == there
        call = cli.parse(["run", "a", "--smoothing", "1.5"])
        assert call is not None
        assert call.config().fit.smoothing == 1.5  # type: ignore[attr-defined]
        assert cli.main(["run", "a", "--smoothing", "3"]) == 2
        assert "--smoothing: 0 to 2, not 3" in capsys.readouterr().err
        path = profile(tmp_path, "[fit]\nsmoothing = 2.5")
        with pytest.raises(ConfigError, match=r"fit\.smoothing: 0 to 2, not 2\.5"):
            load_config(path)
        assert "# How smooth the motion is. From 0 to 2.\nsmoothing = 0.5\n" in default_profile()
    finally:
        settings.cache_clear()
        for name in ("app.cli.run", "app.cli.serve", "app.cli.events"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("text", ["1e400", "inf", "-inf", "nan", "1" + 400 * "0", "-1" + 400 * "0"])
@pytest.mark.parametrize("key", ["capture.fov_deg", "capture.retry_s", "perceive.people"])
def test_numbers_without_end_are_refused_in_one_short_line(tmp_path, key, text):
    section, _, name = key.partition(".")
    profile = tmp_path / "p.toml"
    profile.write_text(f"[{section}]\n{name} = {text}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(str(profile))
    assert f"{key}: " in str(caught.value)
    assert len(str(caught.value)) < 200 + len(str(profile))
