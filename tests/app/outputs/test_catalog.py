"""The catalog of outputs: what one entry gives, from inside and from outside the tree."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from app.build import make_outputs
from app.config import Config, OutputConfig, load_config, settings
from app.outputs import catalog
from app.outputs.base import OutputError
from app.outputs.catalog import OutputEntry, entries, suffix_problem
from app.outputs.paths import prepare_outputs
from tests.support.paths import ROOT

FILES = [entry for entry in entries() if entry.kind != "folder"]

# An output of another package, whole: 40 lines are enough for one that `run` can use.
OUTSIDE = """
from pathlib import Path
from app.outputs.catalog import OutputEntry

ENTRY = OutputEntry(
    name="roots",
    metavar="OUT.roots",
    help="Write where each person's pelvis is.",
    format="roots",
    target="outside_roots:RootsOutput",
    suffixes=(".roots",),
    options=("crf",),
)


class RootsOutput:
    needs_picture = False
    warnings = ()

    def __init__(self, path, crf):
        self.path, self.crf = path, crf
        self.files = ()
        self._file = None

    def open(self, info):
        self._file = self.path.open("w")
        print(info.source, self.crf, file=self._file)

    def write(self, frame, bodies, picture):
        for track, joints_m in zip(bodies.track, bodies.joints_m):
            print(frame.id, track, *joints_m[0], file=self._file)

    def close(self):
        if self._file is not None:
            self._file.close()
            self._file, self.files = None, (self.path,)
"""

# What stands around `run`: the outputs of the configuration, given one made-up frame.
RUN = """
import sys, types
import app
from app.run_report import RunReport
from tests.support.bodies import bodies, frame, run_info

import app.build as build

def run(config, *, on_progress, stop, on_build, own_process):
    outputs = build.make_outputs(config)
    for output in outputs:
        output.open(run_info())
        output.write(frame(3), bodies([7]), None)
        output.close()
    return RunReport(1, 1, files=tuple(path for output in outputs for path in output.files))

build.run = run
from app.cli import main
sys.exit(main())
"""


def install(folder: Path, code: str, point: str) -> None:
    """Put a package with one entry point into a folder, as pip would."""
    (folder / "outside_roots.py").write_text(code)
    info = folder / "outside_roots-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-roots\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{catalog.GROUP}]\nroots = {point}\n")


def app(folder: Path, *words: object, program: str = RUN) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_an_output_from_outside_the_tree_works_by_flag_and_by_profile(tmp_path):
    install(tmp_path, OUTSIDE, "outside_roots:ENTRY")
    done = app(tmp_path, "run", "0", "--roots", "a.roots", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    first, row = (tmp_path / "a.roots").read_text().splitlines()
    assert first.endswith(" 20")
    assert row.split()[:2] == ["3", "7"]

    (tmp_path / "mine.toml").write_text('[output]\nroots = "deep/b.roots"\ncrf = 30\n')
    done = app(tmp_path, "run", "0", "--config", "mine.toml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "deep" / "b.roots").read_text().startswith(f"{first[: -len(' 20')]} 30")

    # Its help, its checks and its place among the suggestions come with it.
    page = app(tmp_path, "run", "--help").stdout
    assert "--roots OUT.roots" in page
    assert "Write where each person's pelvis is." in page
    done = app(tmp_path, "run", "0", "--poses", "c.roots")
    assert "for roots use --roots c.roots" in done.stderr
    done = app(tmp_path, "run", "0", "--rots", "c.roots")
    assert "did you mean --roots?" in done.stderr
    done = app(tmp_path, "run", "0")
    assert "--roots OUT.roots" in done.stderr
    done = app(tmp_path, "run", "0", "--roots", "d", "--jsonl", "./d")
    assert "that is --jsonl already" in done.stderr


def named(name: str) -> str:
    return OUTSIDE.replace('name="roots"', f'name="{name}"')


@pytest.mark.parametrize(
    ("code", "module", "why"),
    [
        ("ENTRY = 3", "outside_roots", "not an app.outputs.catalog.OutputEntry"),
        ("1 / 0", "outside_roots", "ZeroDivisionError"),
        ("", "outside_roots", "AttributeError"),
        ("", "outside_nowhere", "ModuleNotFoundError"),
        (named("a-b"), "outside_roots", "identifier"),
        # Taken by an output, a key of [output], a flag of another name, one without a value, a
        # setting of no table, an option of the command.
        (named("video"), "outside_roots", "'video' is taken"),
        (named("crf"), "outside_roots", "'crf' is taken"),
        (named("engine"), "outside_roots", "'engine' is taken"),
        (named("live"), "outside_roots", "'live' is taken"),
        (named("device"), "outside_roots", "'device' is taken"),
        (named("quiet"), "outside_roots", "'quiet' is taken"),
    ],
)
def test_a_broken_package_costs_a_warning_and_no_more(tmp_path, code, module, why):
    install(tmp_path, code, f"{module}:ENTRY")
    done = app(tmp_path, "run", "0", program="from app.cli import main; raise SystemExit(main())")
    assert (done.returncode, done.stdout) == (2, "")
    *warning, error = done.stderr.splitlines()
    assert "output roots" in warning[0]
    assert why in warning[0]
    assert error.startswith("error: there is no output: add --window, --video OUT.mp4, ")


def test_every_entry_is_a_setting_and_makes_its_output(tmp_path):
    for entry in entries():
        setting = settings()[f"output.{entry.name}"]
        commands = ("run", "export") if entry.exports else ("run",)
        assert (setting.flag, setting.default, setting.commands) == (entry.flag, None, commands)
        path = tmp_path / (entry.name + (entry.suffixes or ("",))[0])
        config = load_config(flags={f"output.{entry.name}": str(path)})
        (output,) = make_outputs(config)
        assert isinstance(output, entry.load())
        assert output.files == ()
        output.close()
    assert make_outputs(Config()) == []


def test_options_reach_their_outputs(tmp_path):
    output = OutputConfig(
        video=tmp_path / "v.mp4", poses=tmp_path / "p.npz", crf=31, preset="fast", vertices=True,
        rotate_s=3.0, rotate_keep=2,
    )  # fmt: skip
    video, poses = make_outputs(Config(output=output))
    assert (video.path, video.crf, video.preset) == (output.video, 31, "fast")
    assert (video.rotation.seconds, video.rotation.keep) == (3.0, 2)
    assert poses.vertices is True


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
@pytest.mark.parametrize("other", FILES, ids=lambda entry: entry.name)
def test_a_suffix_of_another_format_names_the_flag_that_writes_it(entry, other, tmp_path):
    for suffix in other.suffixes:
        for name in (f"x{suffix}", f"x{suffix.upper()}"):
            path = tmp_path / name
            problem = suffix_problem(entry, path)
            if suffix in entry.suffixes:
                assert problem == ""
                continue
            # Of several outputs that write it the first is advised.
            advised = next(each for each in FILES if suffix in each.suffixes)
            assert f"for {other.format} use {advised.flag} {path}" in problem
            assert f"writes {entry.format}" in problem
            # The advice is right: that flag takes this path.
            assert suffix_problem(other, path) == ""
            with pytest.raises(OutputError, match=f"^{entry.flag} "):
                prepare_outputs(OutputConfig(**{entry.name: path}), [])
            assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_a_suffix_that_promises_nothing_is_free_unless_the_format_is_strict(entry, tmp_path):
    for name in ("x", "x.2026", "x.bin"):
        # No suffix promises nothing, except to a player of videos.
        refused = entry.strict and ("." in name or entry.name == "video")
        strict = refused and "end its name in " + entry.suffixes[0]
        problem = suffix_problem(entry, tmp_path / name)
        assert (strict in problem) if strict else problem == ""


OTHERS = {
    "video": "gif webm avi mkv jpg png webp ts flv h264",
    "poses": "npy pkl pickle pt h5 mat",
    "jsonl": "tsv xml yaml parquet",
    "bvh": "bvh",
    "glb": "gltf fbx usd usdz obj ply stl",
    "c3d": "c3d",
    "": "gz zip xz zst html pdf svg md",
}


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
@pytest.mark.parametrize("sort", OTHERS)
def test_a_suffix_of_a_format_that_no_output_has_is_refused(entry, sort, tmp_path):
    names = [f"x.{suffix}" for suffix in OTHERS[sort].split()]
    for path in [tmp_path / name for name in (*names, names[0].upper())]:
        problem = suffix_problem(entry, path)
        assert f"writes {entry.format}" in problem
        if sort and sort != entry.name:
            assert f"use --{sort} {path.parent}/" in problem
        else:
            assert "use --" not in problem
        with pytest.raises(OutputError, match=f"^{entry.flag} "):
            prepare_outputs(OutputConfig(**{entry.name: path}), [])
    assert not list(tmp_path.iterdir())


def test_the_suffix_of_an_output_from_outside_is_its_own(monkeypatch):
    roots = OutputEntry("roots", "OUT.roots", "Write.", "roots", "nowhere:X", suffixes=(".roots",))
    monkeypatch.setattr(catalog, "entries", lambda: (*entries(), roots))
    poses, jsonl = (e for e in entries() if e.name in ("poses", "jsonl"))
    for entry in (poses, jsonl):
        assert suffix_problem(entry, Path("x.roots")).endswith("for roots use --roots x.roots")
    assert suffix_problem(roots, Path("x.roots")) == ""


def test_files_of_the_same_sort_are_advised_by_the_right_name():
    poses = next(entry for entry in entries() if entry.name == "poses")
    assert suffix_problem(poses, Path("a/x.mkv")).endswith("for mp4 use --video a/x.mp4")
    video = next(entry for entry in entries() if entry.name == "video")
    assert suffix_problem(video, Path("x.avi")) == "writes mp4, so end its name in .mp4"


def test_an_entry_has_what_it_says(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = [entry.name for entry in entries()]
    assert len(names) == len(set(names))
    for entry in entries():
        assert entry.help.endswith(".")
        assert set(entry.options) <= set(dir(OutputConfig()))
        assert entry.path_of(tmp_path / "x.y", "cam").name in ("x_cam.y", "cam")


def test_an_entry_is_data_only():
    entry = OutputEntry("bvh", "OUT.bvh", "Write BVH.", "BVH", "nowhere:Nothing")
    with pytest.raises(ModuleNotFoundError):
        entry.load()
    assert entry.flag == "--bvh"


def test_what_needs_a_file_takes_no_pipe_or_device(tmp_path):
    for entry, suffix in ((e, e.suffixes[0]) for e in entries() if e.strict):
        pipe = tmp_path / f"{entry.name}{suffix}"
        os.mkfifo(pipe)
        for path in (pipe, Path("/dev/null")):
            with pytest.raises(OutputError, match="needs a file, no pipe or device$"):
                prepare_outputs(OutputConfig(**{entry.name: path}), [])
        assert pipe.is_fifo()


def test_an_output_is_made_with_its_options():
    entry = next(entry for entry in entries() if entry.name == "poses")
    for vertices in (True, False):
        made = entry.make(Path("a.npz"), OutputConfig(vertices=vertices))
        assert (made.path, made.vertices) == (Path("a.npz"), vertices)
