"""The command line: flags, exit codes, errors of a line or two, signals, pipes.

The pipeline is replaced by a function that does as it is told: this is about what surrounds it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import app
from app import cli
from app.cli.signals import StopSignal, stop_by_signal
from app.config import Config, ConfigError, OutputConfig
from app.options import BenchOptions
from app.run import check_outputs
from app.run_report import Progress, RunReport
from app.setting import declared
from app.track_log import TrackSummary
from pipeline.tracking.extrapolate import PredictionError
from pipeline.weights import store as weights
from tests.support.paths import ROOT
from tests.support.waiting import until

Run = Callable[..., RunReport]


@pytest.fixture
def build(monkeypatch) -> Iterator[types.SimpleNamespace]:
    """Stands in for app.build: remembers its configuration, then does ``then``."""
    seen = types.SimpleNamespace(config=None, then=lambda stop, on_progress: RunReport(3, 3))

    def run(config: Config, *, on_progress, stop: threading.Event, on_build, **_) -> RunReport:
        seen.config = config
        return seen.then(stop, on_progress)

    module = types.SimpleNamespace(run=run)
    monkeypatch.setitem(sys.modules, "app.build", module)
    monkeypatch.setattr(app, "build", module, raising=False)
    return seen


def test_every_flag_reaches_its_setting(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = (
        "run clip.mp4 --video o/v.mp4 --poses o/p.npz --vertices --jsonl o/b.jsonl --amass o/t "
        "--window --no-hud --quiet --live --start 2 --seconds 1.5 --retry-s 0 --fov-deg 50 "
        "--people 2 --weights w --body b.npz --device cpu --renderer pyrender "
        "--rotate-s 600 --rotate-mb 50.5 --rotate-keep 3"
    )
    assert cli.main(arguments.split()) == 0
    config = build.config
    assert config.source == "clip.mp4"
    assert config.device == "cpu"
    output = config.output
    names = [str(p) for p in (output.video, output.poses, output.jsonl, output.amass)]
    assert names == ["o/v.mp4", "o/p.npz", "o/b.jsonl", "o/t"]
    assert (output.vertices, output.window, config.render.hud) == (True, True, False)
    assert (output.rotate_s, output.rotate_mb, output.rotate_keep) == (600.0, 50.5, 3)
    capture = config.capture
    assert (capture.pace, capture.start_s, capture.seconds) == ("live", 2.0, 1.5)
    assert (capture.retry_s, capture.fov_deg, capture.focal_px) == (0.0, 50.0, None)
    assert (config.perceive.people, config.perceive.weights) == (2, Path("w"))
    assert (config.fit.body, config.render.renderer) == (Path("b.npz"), "pyrender")
    flags = "--every-frame --focal-px 900 --no-window --jsonl -"
    assert cli.main(["run", "0", *flags.split()]) == 0
    assert build.config.capture.pace == "every-frame"
    assert build.config.capture.focal_px == 900
    assert build.config.output.window is False


def test_without_flags_the_configuration_is_the_default(build):
    assert cli.main(["run", "rtsp://camera/live", "--window"]) == 0
    wanted = Config(source="rtsp://camera/live", output=OutputConfig(window=True))
    assert build.config == wanted


def test_sources_stand_before_and_after_flags():
    for words, sources in (
        ("serve 8080 --people 2 door=rtsp://d --events yard=0", ["door=rtsp://d", "yard=0"]),
        ("serve 8080 a=0", ["a=0"]),
        ("serve 8080", []),
        ("run a.mp4 --people 2 b.mp4 --window c.mp4", ["a.mp4", "b.mp4", "c.mp4"]),
        ("events a.mp4 --report r b.mp4", ["a.mp4", "b.mp4"]),
    ):
        call = cli.parse(words.split())
        assert call is not None
        assert list(call.options.source) == sources


def test_flags_that_are_not_given_leave_the_profile_alone(build, tmp_path):
    profile = tmp_path / "mine.toml"
    profile.write_text('[output]\nwindow = true\n[render]\nhud = false\n[capture]\npace = "live"\n')
    assert cli.main(["run", "0", "--config", str(profile)]) == 0
    config = build.config
    assert (config.output.window, config.render.hud, config.capture.pace) == (True, False, "live")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "COMMAND"),
        ("fly clip.mp4", "there is no command 'fly'"),
        ("run", "SOURCE"),
        ("run a.mp4 --b b.mp4", "there is no flag --b"),
        ("run a.mp4 --peple 3", "there is no flag --peple; did you mean --people?"),
        ("run a.mp4 --liv", "there is no flag --liv; did you mean --live?"),
        ("run a.mp4 --people many", "--people: a whole number, not 'many'"),
        ("run a.mp4 --people none", "--people: a whole number, not 'none'"),
        ("run a.mp4 --people 3.0", "--people: a whole number, not '3.0'"),
        ("run a.mp4 --people 0x10", "--people: a whole number, not '0x10'"),
        ("run a.mp4 --people=", "--people: a whole number, not ''"),
        ("run a.mp4 --fov-deg null", "--fov-deg: a number, not 'null'"),
        ("run a.mp4 --decode none", "--decode: one of software, nvdec, not 'none'"),
        ("run a.mp4 --live=maybe", "--live: true or false, not 'maybe'"),
        ("run a.mp4 --people", "--people: a value is missing"),
        ("run a.mp4 --people 0", "--people: 1 to 64, not 0"),
        ("run a.mp4 --start -1", "--start: 0 or more, not -1"),
        ("run a.mp4 --seconds 0", "--seconds: above 0, not 0"),
        ("run a.mp4 --seconds nan", "--seconds: a number, not nan"),
        ("run a.mp4 --seconds 1e999", "--seconds: a number, not inf"),
        ("run a.mp4 --seconds 1e300", "--seconds: at most 1e+09, not 1e+300"),
        ("run a.mp4 --people 1_0", "--people: a whole number, not '1_0'"),
        ("run a.mp4 --people １２", "--people: a whole number, not '１２'"),
        ("run a.mp4 --fps ٣", "--fps: a number, not '٣'"),
        (f"run a.mp4 --people {'9' * 400}", f"--people: 1 to 64, not {'9' * 20}"),
        (f"run a.mp4 --people {'9' * 5000}", f"--people: a whole number, not '{'9' * 20}"),
        (f"run a.mp4 --size {'9' * 5000}x3", "--size: WIDTHxHEIGHT"),
        ("run a.mp4 --body a\0b", "--body: a path without control characters"),
        ("run a.mp4 --fov-deg 180", "--fov-deg: 1 to 170, not 180"),
        ("run a.mp4 --fov-deg 60 --focal-px 900", "--focal-px: not allowed with"),
        ("run a.mp4 --live --every-frame", "--every-frame: not allowed with"),
        ("run a.mp4 --device tpu", "--device: one of auto, cpu, cuda, not 'tpu'"),
        ("run a.mp4 --vertices", "--vertices: needs --poses"),
        ("run a.mp4 --rotate-s 60", "--rotate-s: needs --video"),
        ("run a.mp4 --rotate-keep 2", "--rotate-keep: needs --video"),
        ("run a.mp4 --video b.mp4 --rotate-keep 2", "--rotate-keep: needs --rotate-s or"),
        ("run a.mp4 --video b.mp4 --rotate-mb 0", "--rotate-mb: above 0, not 0"),
        ("serve 0 --rotate-keep 2", "--rotate-keep: needs --rotate-s or"),
        ("run a.mp4 --config nope", "no profile 'nope'"),
        ("run a.mp4 --config /nope.toml", "/nope.toml: cannot be read"),
        ("run a.mp4 --video=", "--video: a path, not ''"),
        ("weights fetch", "NAME"),
        ("weights lift", "there is no command 'lift'"),
    ],
)
def test_a_wrong_command_line_is_two_lines_and_exit_2(build, capsys, arguments, says):
    assert cli.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= 2
    assert build.config is None


@pytest.mark.parametrize("words", ["", "--quiet --people 2", "--no-window", "--no-hud --live"])
def test_a_run_without_any_output_is_refused_before_anything_is_loaded(build, capsys, words):
    assert cli.main(["run", "a.mp4", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    flags = ("--window", "--video OUT.mp4", "--poses OUT.npz", "--jsonl OUT|-", "--amass DIR")
    for flag in flags:
        assert flag in err
    assert build.config is None
    # Each of them is enough, and so is a profile's.
    for flag in flags:
        name, _, metavar = flag.partition(" ")
        call = cli.parse(["run", "a.mp4", name, *([metavar.replace("|-", "")] if metavar else [])])
        assert call is not None
        check_outputs(call.config().output)


def test_an_output_of_the_profile_is_enough(build, tmp_path):
    for text in ("window = true", 'video = "v.mp4"', 'jsonl = "-"', 'amass = "d"'):
        profile = tmp_path / "mine.toml"
        profile.write_text(f"[output]\n{text}\n")
        assert cli.main(["run", "a.mp4", "--config", str(profile)]) == 0
    assert cli.main(["run", "a.mp4", "--config", str(profile), "--people", "3"]) == 0
    assert build.config.perceive.people == 3


@pytest.mark.parametrize(
    ("words", "near"),
    [
        ("run a.mp4 --peopel 2", "--people"),
        ("run a.mp4 --people=2 --rotate-sec=3", "--rotate-s"),
        ("run a.mp4 --no-windows", "--no-window"),
        ("run a.mp4 --debugg", "--debug"),
        ("serve 0 --webhok http://x", "--webhook"),
        ("evaluate --truht a", "--truth"),
        ("rum a.mp4", "run"),
        ("evalute a.mp4", "evaluate"),
        ("weights fetsh blazepose", "fetch"),
        ("run a.mp4 --device cdua", "cuda"),
        ("run a.mp4 --engine=inducter", "inductor"),
        ("run a.mp4 --config defualt", "default"),
        ("run a.mp4 --perceiver blazepos", "blazepose"),
    ],
)
def test_a_word_that_is_nearly_right_gets_a_suggestion(build, capsys, words, near):
    assert cli.main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[0].endswith(f"did you mean {near}?")
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize("number", ["9" * 5000, "99999999999", "８０", "1_0", "-1", "", "nan"])
def test_numbers_inside_of_a_word_are_plain_digits_and_have_an_end(number):
    from app.config import size_of
    from app.evaluate import frames_of
    from app.serve.running import host_and_port

    for read, text in (
        (size_of, f"{number}x480"),
        (frames_of, f"0-{number}"),
        (frames_of, f"{number}-5"),
        (host_and_port, f"localhost:{number}"),
    ):
        with pytest.raises(ConfigError) as caught:
            read(text)
        assert str(caught.value).isprintable()


def test_an_error_says_where_its_help_is(capsys):
    for words, see in (
        ("run --peple 3", "python -m bodystream run --help"),
        ("weights fetch", "python -m bodystream weights fetch --help"),
        ("weights lst", "python -m bodystream weights --help"),
        ("fly", "python -m bodystream --help"),
    ):
        assert cli.main(words.split()) == 2
        assert capsys.readouterr().err.splitlines()[1:] == [f"see: {see}"]
        assert cli.main(see.split()[3:]) == 0
        assert capsys.readouterr().out.startswith(f"usage: {see.removesuffix(' --help')} ")


def test_the_last_of_a_repeated_flag_counts(build):
    flags = "--people 2 --people 3 --video a.mp4 --video b.mp4 --window --window --no-window"
    assert cli.main(["run", "0", *flags.split()]) == 0
    output = build.config.output
    assert (build.config.perceive.people, str(output.video), output.window) == (3, "b.mp4", False)
    call = cli.parse(
        [
            "evaluate",
            "c.mp4",
            "--nobody",
            "--without",
            "mask",
            "--given",
            "depth",
            "--without",
            "world",
        ]
    )
    assert call is not None
    assert (call.options.without, call.options.given) == (("mask", "world"), ("depth",))


def test_a_module_of_the_process_changes_nothing(build):
    """cyclopts checks types by pydantic where that is loaded, as it is beside FastAPI."""
    pytest.importorskip("pydantic")
    for words in ("run 0 --window", "run 0 --jsonl - --people 2 --no-hud --live"):
        assert cli.main(words.split()) == 0
    assert cli.parse(["evaluate", "--suite", "d", "--without", "mask"]) is not None
    assert cli.parse(["evaluate", "c.mp4", "--nobody"]) is not None


def test_values_that_look_like_flags(build):
    assert cli.main(["run", "0", "--jsonl", "-", "--quiet", "--people=2"]) == 0
    assert str(build.config.output.jsonl) == "-"
    # Nor is a text that looks like JSON, or like nothing, anything else than a text.
    words = ["serve", "[::1]:80", '["a"]', "--token", '["b"]', "--webhook-secret", "none"]
    call = cli.parse(words)
    assert call is not None
    assert (call.options.address, call.options.source) == ("[::1]:80", ('["a"]',))
    assert (call.options.token, call.options.webhook_secret) == ('["b"]', "none")
    call = cli.parse(["run", "--window", "--", "-odd-.mp4"])
    assert call is not None
    assert call.options.source == ("-odd-.mp4",)


def test_readme_may_have_a_file():
    bare = next(s.setting.bare for s in declared(BenchOptions) if s.name == "readme")
    for words, file in (("", None), ("--readme", bare), ("--readme OTHER.md", "OTHER.md")):
        call = cli.parse(["bench", *words.split(), "--json"])
        assert call is not None
        assert call.options.readme == (None if file is None else Path(file))
        assert call.options.json is True


def test_debug_belongs_to_every_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path))
    for words in ("weights --debug list", "weights list --debug", "weights --debug"):
        assert cli.main(words.split()) == 0
    call = cli.parse(["bench", "--debug"])
    assert call is not None
    assert call.options.debug is True
    for words in ("run a --window --config nope --debug", "bench --debug --windows 0"):
        assert cli.main(words.split()) == 2
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["app", "bodystream"])
def test_both_modules_are_the_command_and_say_the_version(module):
    def run(*words: str) -> str:
        command = [sys.executable, "-m", module, *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run("--version") == f"{pyproject['version']}\n"
    assert run("weights").count("get it: python -m bodystream weights fetch ") > 1
    assert pyproject["scripts"]["bodystream"] == "app.__main__:start"


def test_hints_name_a_command_that_works_here(monkeypatch):
    for started_as, installed, wanted in (
        ("/checkout/app/__main__.py", True, "python -m bodystream"),
        ("/checkout/bodystream.py", True, "python -m bodystream"),
        ("/usr/bin/bodystream", False, "bodystream"),
        ("mine.py", True, "bodystream"),
        ("mine.py", False, "python -m bodystream"),
        ("", False, "python -m bodystream"),
    ):
        monkeypatch.setattr(sys, "argv", [started_as])
        monkeypatch.setattr("shutil.which", lambda name, here=installed: "/x" if here else None)
        assert cli.program() == wanted
    monkeypatch.setattr(sys, "argv", [])
    assert cli.program() == "python -m bodystream"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--video {d}/file/v.mp4", "{d}/file is a file, not a folder"),
        ("--poses {d}/file/deep/er/p.npz", "{d}/file is a file, not a folder"),
        ("--amass {d}/file", "{d}/file is a file, not a folder"),
        ("--jsonl {d}", "that is a folder; give a file's name"),
        ("--video {d}/v.avi", "writes mp4, so end its name in .mp4"),
        ("--video {d}/clip.mp4", "--video {d}/clip.mp4: that is the source already"),
        ("--poses {d}/x --jsonl {d}/./x", "that is --poses already"),
    ],
)
def test_an_output_that_cannot_be_is_one_line_before_the_run(build, capsys, tmp_path, flags, says):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "clip.mp4").write_text("the source")
    command = ["run", str(tmp_path / "clip.mp4"), *flags.format(d=tmp_path).split()]
    assert cli.main(command) == 1
    err = capsys.readouterr().err
    assert says.format(d=tmp_path) in err
    assert len(err.splitlines()) == 1
    assert build.config is None
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_without_permission_is_one_line(build, capsys, tmp_path, monkeypatch):
    # Root may write everywhere, so the system's answer is stood in for.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for flag in (["--video", str(tmp_path / "v.mp4")], ["--amass", str(tmp_path / "new")]):
        assert cli.main(["run", "0", *flag]) == 1
        err = capsys.readouterr().err
        assert "no permission" in err
        assert len(err.splitlines()) == 1


def test_folders_of_outputs_are_made(build, tmp_path):
    out = tmp_path / "a" / "b"
    flags = ["--video", str(out / "v.mp4"), "--amass", str(tmp_path / "c" / "d")]
    assert cli.main(["run", "0", *flags]) == 0
    assert out.is_dir()
    # The folder of tracks is made with the first one.
    assert list((tmp_path / "c").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (FileNotFoundError(2, "No such file", "x.mp4"), ["error: x.mp4: No such file"]),
        (RuntimeError("the camera left\nPlug it in"), ["error: the camera left", "Plug it in"]),
        (RuntimeError("a\nb\nc\nd"), ["error: a", "b"]),
        (
            ImportError("libGL.so.1: cannot open shared object file: No such file or directory"),
            [
                "error: this system lacks libGL.so.1",
                "On Debian and Ubuntu: apt install libgl1 libglib2.0-0 libsm6 libxext6",
            ],
        ),
        (KeyError("k"), ["error: KeyError: 'k'", "This is a bug; --debug shows where."]),
        (ValueError(""), ["error: ValueError: ", "This is a bug; --debug shows where."]),
    ],
)
def test_an_error_of_the_run_is_exit_1_and_three_lines_at_most(build, capsys, error, lines):
    def fail(stop, on_progress):
        raise error

    build.then = fail
    assert cli.main(["run", "0", "--window"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == ("", lines)
    assert cli.main(["run", "0", "--window", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


REPORT = RunReport(
    frames_read=120,
    frames_drawn=110,
    dropped={"capture: too slow": 10},
    fps=24.5,
    seconds=4.5,
    stages={"perceive": (20.04, 31.0), "fit": (9.0, 12.0)},
    latency_ms=(140.0, 190.0, 240.0),
    unfitted=7,
    prediction=PredictionError(90, 4.04, 12.3, 66.0, 101.0),
    tracks=14,
    people_median=1.0,
    longest_tracks=(TrackSummary(3, 0.0, 3.95, 80, 80), TrackSummary(1, 61.0, 3723.4, 199, 200)),
    most_unfollowed=5,
    frames_unfollowed=40,
    files=(
        Path("/nowhere/a_rather_long_folder_name_that_must_not_be_cut_or_wrapped" * 2) / "v.mp4",
    ),
    warnings=("3 damaged packets",),
)


def test_the_table_says_what_happened(build, capsys):
    build.then = lambda stop, on_progress: REPORT
    assert cli.main(["run", "0", "--window"]) == 0
    out, err = capsys.readouterr()
    assert err == "warning: 3 damaged packets\n"
    rows = {line.rsplit("  ", 1)[0].strip(): line.split() for line in out.splitlines()}
    assert ["read", "120"] in rows.values()
    assert ["drawn", "110"] in rows.values()
    assert ["dropped,", "capture:", "too", "slow", "10"] in rows.values()
    assert ["perceive,", "a", "frame", "20.0", "31.0"] in rows.values()
    assert ["capture", "to", "output", "140", "190", "240"] in rows.values()
    assert ["shown,", "not", "fitted", "7"] in rows.values()
    assert ["predicted", "ahead", "66", "101"] in rows.values()
    assert ["predicted", "off,", "px", "4.0", "12.3"] in rows.values()
    assert "24.5 fps over 4.5 s; 1 person in a frame at the median; ended: end of the" in out
    assert "not followed: up to 5 more people, in 40 frames; --people N follows more" in out
    # Rounded down: only a track without a gap has 100%.
    assert ["3", "0:00.0", "0:04.0", "80", "100%"] in rows.values()
    assert ["1", "1:01.0", "1:02:03.4", "200", "99%"] in rows.values()
    assert "and 12 shorter ones" in out
    assert f"wrote {REPORT.files[0]} " in out


def test_quiet_says_warnings_only(build, capsys):
    build.then = lambda stop, on_progress: REPORT
    assert cli.main(["run", "0", "--window", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "warning: 3 damaged packets\n")


def test_with_json_lines_on_standard_output_the_table_is_elsewhere(build, capsys):
    build.then = lambda stop, on_progress: REPORT
    assert cli.main(["run", "0", "--jsonl", "-"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "24.5 fps" in err


def test_progress_without_a_terminal_is_few_lines(capsys):
    from app.run_report import ProgressView

    now = [0.0]
    with ProgressView(clock_s=lambda: now[0]) as view:
        for index in range(2500):
            now[0] = index / 100
            view(Progress(index, index, 0, 2500, now[0], 99.9, 1))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "1000/2500 frames, 99.9 fps, 1 person",
        "2000/2500 frames, 99.9 fps, 1 person",
    ]


@pytest.mark.parametrize(
    ("now", "shown"),
    [
        (Progress(9, 9, 0, 30, 1.0, 25.0, 1), (9, 30, "frames  25.0 fps, 1 person")),
        (Progress(1, 1, 0, 4, 1.0, 0.0, 0, "fitting"), (1, 4, "fitting")),
        (
            Progress(50, 50, 0, None, 1.0, 25.0, 2, clips_done=1, clips=3),
            (1, 3, "clips done  25.0 fps, 2 people"),
        ),
    ],
)
def test_the_bar_counts_what_it_names(now, shown):
    from app.run_report import ProgressView

    said = []
    view = ProgressView()
    view._bar = types.SimpleNamespace(show=lambda *what: said.append(what))
    view(now)
    assert said == [shown]


def test_a_source_has_a_name_of_plain_letters(tmp_path, monkeypatch, capsys):
    from app.serve.command import name_and_source

    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "x=a.mp4"):
        (tmp_path / name).touch()
    assert name_and_source("door=a.mp4") == ("door", "a.mp4")
    assert name_and_source("x=a.mp4") == (None, "x=a.mp4"), "a file of that name"
    assert name_and_source("rtsp://h/s?a=b") == (None, "rtsp://h/s?a=b")
    for name in ("Übung", "two words"):
        assert cli.main(["serve", "0", f"{name}=a.mp4"]) == 2
        assert f"{name}=a.mp4: a name has letters from a to z" in capsys.readouterr().err


def test_a_line_of_one_of_several_sources_names_it():
    from app.cli.run import _named

    assert _named("--heights 7: no such track", "a", "a.mp4") == "a: --heights 7: no such track"
    for line in ("a.mp4: is cut short", "x/o_a.npz: cannot be written", "a: no people"):
        assert _named(line, "a", "clips/a.mp4") == line
    assert _named("x/tmp: no space", "a", "a.mp4") == "a: x/tmp: no space"


def test_a_signal_handler_is_given_back(build):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert cli.main(["run", "0", "--window"]) == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


# From here on in processes of their own, with signals and pipes that are real.

STAND_IN = """
import sys, time, types
from pathlib import Path
sys.path[:0] = {path!r}
import app
from app.run_report import Progress, RunReport
from app.setting import declared
from tests.support.bodies import bodies, frame, run_info

def run(config, *, on_progress, stop, on_build, own_process):
    from app.outputs.base import OutputClosed
    from app.outputs.jsonl import JsonlOutput
    output = JsonlOutput(config.output.jsonl)
    output.open(run_info())
    drawn, ended = 0, "stopped"
    try:
        while not stop.is_set() and drawn < 100_000:
            output.write(frame(drawn), bodies([1]), None)
            drawn += 1
            on_progress(Progress(drawn, drawn, 0, None, 0.0, 1.0, 1))
            time.sleep(0.005)
        if {stuck}:
            print("stuck", file=sys.stderr, flush=True)
            time.sleep(60)
    except OutputClosed as error:
        ended = str(error)
    finally:
        output.close()
    return RunReport(drawn, drawn, ended=ended, files=output.files)

app.build = sys.modules["app.build"] = types.SimpleNamespace(run=run)
from app.cli import main
sys.exit(main())
"""


def stand_in(*arguments: str, stuck: bool = False) -> subprocess.Popen[str]:
    script = STAND_IN.format(path=[str(ROOT), str(ROOT / "tests")], stuck=stuck)
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_run_in_order(number, code):
    with stand_in("run", "0", "--jsonl", "-") as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(5)]
        process.send_signal(number)
        assert process.stderr is not None
        out, err = process.stdout.read(), process.stderr.read()
        process.wait(timeout=20)
    assert process.returncode == code
    lines = ("".join(first) + out).splitlines(keepends=True)
    assert all(line.endswith("]}\n") for line in lines)
    assert "Traceback" not in err
    assert "ended: stopped" in err


def test_the_second_signal_ends_it_at_once():
    with stand_in("run", "0", "--jsonl", "-", stuck=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.readline() == "stuck\n"
        # One wish to end often comes as several signals.
        for _ in range(5):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)
        assert process.poll() is None
        time.sleep(1.0)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130


def grown(path: Path, lines: int) -> None:
    """Wait until a file has that many lines."""
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_text().count("\n") < lines:
        assert time.monotonic() < deadline, f"{path} has not grown"
        time.sleep(0.02)


def test_lines_of_a_killed_run_go_on_when_it_is_started_again(tmp_path):
    path = tmp_path / "out.jsonl"
    for count in (5, 10, 15):
        with stand_in("run", "0", "--jsonl", str(path)) as process:
            grown(path, count)
            process.kill()
    # Another command leaves it alone, and so does a run of the same one beside it.
    with stand_in("run", "1", "--jsonl", str(path), "--quiet") as other:
        grown(tmp_path / "out.2.jsonl", 3)
        other.kill()
    with stand_in("run", "0", "--jsonl", str(path)) as first:
        grown(path, 20)
        with stand_in("run", "0", "--jsonl", str(path)) as beside:
            grown(tmp_path / "out.3.jsonl", 2)
            beside.send_signal(signal.SIGTERM)
            out, err = beside.communicate(timeout=20)
        assert f"note: --jsonl {path}: is there already and stays; this run writes " in err
        assert f"wrote {tmp_path / 'out.3.jsonl'} (" in out
        first.send_signal(signal.SIGTERM)
        out, err = first.communicate(timeout=20)
    assert err == f"note: --jsonl {path}: continues what an unfinished run left\n"
    frames = [json.loads(line)["frame"] for line in path.read_text().splitlines()]
    assert frames == list(range(len(frames)))
    # Both ended well, so they are finished; the killed one is not.
    names = ["out.2.jsonl", "out.3.jsonl", "out.jsonl"]
    assert sorted(each.name for each in tmp_path.iterdir()) == [".out.2.jsonl.unfinished", *names]


def test_a_run_that_fails_before_the_first_frame_leaves_nothing(build, tmp_path):
    def fail(stop, on_progress) -> RunReport:
        raise RuntimeError("the camera is not there")

    build.then = fail
    flags = [f"--{name}={tmp_path / name}{suffix}" for name, suffix in
             (("video", ".mp4"), ("poses", ".npz"), ("jsonl", ""), ("amass", ""))]  # fmt: skip
    for _ in range(3):
        # As a supervisor starts it again and again.
        assert cli.main(["run", "0", *flags]) == 1
        assert list(tmp_path.iterdir()) == []
    assert cli.main(["run", "0", "1", *flags, "--rotate-s", "5"]) == 1
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []


def test_the_summary_names_the_files_that_were_written(build, tmp_path, capsys):
    def write(stop, on_progress) -> RunReport:
        output = build.config.output
        output.video.write_text("new")
        (output.amass / "track_0001.npz").write_text("new")
        return RunReport(1, 1, files=(output.video, output.amass / "track_0001.npz"))

    build.then = write
    video, tracks = tmp_path / "v.mp4", tmp_path / "t"
    video.write_text("old")
    tracks.mkdir()
    (tracks / "track_0001.npz").write_text("old")
    assert cli.main(["run", "0", "--video", str(video), "--amass", str(tracks)]) == 0
    out, err = capsys.readouterr()
    assert f"wrote {tmp_path / 'v.2.mp4'} (3 B); {video} existed and was kept" in out
    assert f"wrote {tmp_path / 't.2' / 'track_0001.npz'} (3 B); {tracks} existed and was" in out
    assert [line.partition(" ")[0] for line in err.splitlines()] == ["note:", "note:"]
    assert cli.main(["run", "0", "--video", str(video), "--overwrite", "--amass", str(tracks)]) == 0


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=8))
def test_only_a_signal_a_second_after_the_first_ends_it_at_once(times_s):
    """By a clock of its own: the first one asks, what follows within a second is the same wish."""
    now, ended = [0.0], []
    stop = StopSignal(lambda: now[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "_exit", ended.append)
        for time_s in sorted(times_s):
            now[0] = time_s
            stop(signal.SIGTERM, None)
    late = [t for t in sorted(times_s)[1:] if t - min(times_s) >= 1.0]
    assert ended == [143] * len(late)
    assert stop.event.is_set()
    assert stop.exit_code(0) == 143


def test_a_process_under_nohup_goes_on_when_its_terminal_closes(build):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_by_signal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.event.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


def handles_signals(process: subprocess.Popen[str]) -> bool:
    """Whether a process handles SIGTERM, which Python itself does not."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"SigCgt:\s+(\w+)", status)
    return found is not None and bool(int(found[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_any_moment_prints_no_traceback(number, after_s):
    """Also while the program is imported, and at the interpreter's exit."""
    with subprocess.Popen(
        [sys.executable, "-m", "app", "weights", "list"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        until(lambda: handles_signals(process), every_s=0.001)
        time.sleep(after_s)
        for _ in range(20):
            process.send_signal(number)
            time.sleep(0.005)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) in [(0, ""), (128 + number, "")]


def test_a_signal_removes_what_is_half_written(tmp_path):
    """What must be removed is; what comes within a second of the first signal changes nothing."""
    script = (
        "import sys, time; from pathlib import Path; from app.interrupts import handle_signals;"
        "handle_signals(); from app.cli import main; import app.cli as cli;"
        "from app.cli.signals import unwind_by_signal\n"
        "def call(part=Path(sys.argv[1])):\n"
        "    with unwind_by_signal():\n"
        "        try: part.touch(); time.sleep(30)\n"
        "        finally: time.sleep(0.2); part.unlink()\n"
        "cli.parse = lambda words: call\n"
        "sys.exit(main([]))"
    )
    part = tmp_path / "half"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(part)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        until(part.exists)
        for _ in range(10):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err, part.exists()) == (143, "", False)


def test_a_reader_that_leaves_ends_the_run_and_that_is_fine():
    with stand_in("run", "0", "--jsonl", "-") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert "ended: standard output was closed" in err


def test_a_reader_of_the_table_that_left_is_no_error():
    with stand_in("weights", "list") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(timeout=20)
    assert (process.returncode, err) == (0, "")


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "app", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: python -m bodystream")
    for command in ("run", "weights", "doctor"):
        assert command in done.stdout


def test_weights_are_listed_with_all_there_is_to_know(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path))
    assert cli.main(["weights"]) == 0
    out = capsys.readouterr().out
    for text in ("blazepose", "Apache-2.0", "pose_detection.tflite", "weights fetch blazepose"):
        assert text in out
    for text in ("person-detector", "weights fetch person-detector", "@mediapipe/objectron@"):
        assert text in out
    assert "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c" in out
    (tmp_path / "pose_detection.tflite").write_bytes(b"something else")
    assert cli.main(["weights", "list"]) == 0
    assert f"WRONG FILE: {tmp_path / 'pose_detection.tflite'}" in capsys.readouterr().out


class Fetched:
    """What ``weights.fetch`` was asked for; it fails for the models in ``failing``."""

    def __init__(self, path, failing=()):
        self.path, self.failing, self.names = path, failing, []

    def __call__(self, name, on_progress=None):
        self.names.append(name)
        if name in self.failing:
            raise weights.WeightsError("no network")
        return {self.path.name: self.path}


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path))
    path = tmp_path / "net.tflite"
    path.write_bytes(b"net")
    made = Fetched(path)
    monkeypatch.setattr(weights, "fetch", made)
    return made


def test_default_fetches_all_that_the_default_profile_uses(fetched):
    assert cli.main(["weights", "fetch", "default"]) == 0
    assert fetched.names == list(weights.REGISTRY)


def test_a_model_that_a_run_can_do_without_fails_in_a_warning_of_default_only(fetched, capsys):
    fetched.failing = ("person-detector",)
    assert cli.main(["weights", "fetch", "default"]) == 0
    err = capsys.readouterr().err
    assert "warning: no network" in err
    assert err.splitlines()[-1] == weights.known("person-detector").missing
    assert cli.main(["weights", "fetch", "person-detector"]) == 1
    assert "error: no network" in capsys.readouterr().err


def test_a_model_that_every_run_needs_fails_default_too(fetched, capsys):
    fetched.failing = ("blazepose",)
    assert cli.main(["weights", "fetch", "default"]) == 1
    assert "error: no network" in capsys.readouterr().err


def test_unknown_weights_are_one_line(capsys):
    assert cli.main(["weights", "fetch", "nope"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    names = "default, blazepose, person-detector, sam-h, "
    assert err.startswith(f"error: there are no weights 'nope'; there are: {names}")
    assert err.count("\n") == 1


def test_what_is_built_before_a_run_is_told_once(capsys):
    from app.run_report import ProgressView

    with ProgressView() as view:
        for done in range(4):
            view.building("LandmarkNet inductor", done, 3)
    assert capsys.readouterr().err == "building LandmarkNet inductor\n"
    with ProgressView(quiet=True) as view:
        view.building("LandmarkNet inductor", 0, 3)
    assert capsys.readouterr().err == ""


def test_the_report_says_what_ran_the_networks(capsys):
    from app.run_report import print_report

    print_report(RunReport(3, 3, engines=("LandmarkNet: eager, half precision",)), sys.stdout)
    assert "LandmarkNet: eager, half precision" in capsys.readouterr().out


# What starts the command decides what its streams are.


def in_a_shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PY": sys.executable, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_outputs(tmp_path, closed):
    """A file that got a closed stream's number would hold the messages."""
    done = in_a_shell(f"exec $PY -m app recover {tmp_path}/none.npz {closed}")
    assert done.returncode == 1
    done = in_a_shell(f"exec $PY -m app --version {closed}")
    assert done.returncode == 0


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_name_that_the_console_lacks_is_escaped(tmp_path, encoding):
    line = f"exec $PY -m app recover '{tmp_path}/日本.npz'"
    done = in_a_shell(line, PYTHONIOENCODING=encoding)
    assert done.returncode == 1
    assert "\\u65e5\\u672c.npz: there are no rows" in done.stderr


@pytest.mark.parametrize(
    "flags",
    ["run 0 --window --body {p}", "run 0 --window --config {p}", "events 0 --motion {p}",
     "evaluate c.mp4 --truth {p}"],
)  # fmt: skip
def test_a_pipe_is_no_file_to_read_and_is_not_waited_for(tmp_path, capsys, flags):
    pipe = tmp_path / "p.toml"
    os.mkfifo(pipe)
    assert cli.main(flags.format(p=pipe).split()) == 2
    assert f"{pipe}: is a pipe; give a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "source", "jsonl"),
    [
        ("run -", "/dev/stdin", None),
        ("run --quiet - --jsonl o", "/dev/stdin", "o"),
        ("run - --jsonl -", "/dev/stdin", "-"),
        ("run --jsonl - a.mp4", "a.mp4", "-"),
        ("run --no-window -", "/dev/stdin", None),
        ("run --live -", "/dev/stdin", None),
    ],
)
def test_a_dash_is_standard_input_or_output_by_its_place(words, source, jsonl):
    call = cli.parse(words.split())
    assert call.options.source == (source,)
    assert (call.flags or {}).get("output.jsonl") == jsonl


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("run - a.mp4 --jsonl o", "standard input is read by itself"),
        ("serve 0 -", "`serve` reads no standard input"),
        ("serve 0 cam=-", "`serve` reads no standard input"),
        ("events - -", "standard input is read once"),
    ],
)
def test_standard_input_is_refused_where_it_cannot_be(capsys, monkeypatch, tmp_path, words, says):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words.split()) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1
