"""TensorRT: which edition is installed, what an engine depends on, its cache, and its builds."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.gpu import tensorrt, tensorrt_build, tensorrt_install
from pipeline.gpu.engine import EngineError, make_engine, make_engines, missing
from pipeline.gpu.tensorrt_build import Build, build_all
from pipeline.gpu.tensorrt_install import DATA_CENTRE, RTX, TensorrtError
from pipeline.perception.blazepose.perceiver_gpu import BlazePoseTorch
from pipeline.weights import store as weights

RELEASE = ".".join(torch.__version__.split(".")[:2])
CUDA = torch.device("cuda")

TORCH_TENSORRT = '''
"""A torch_tensorrt whose engines are the exported programs, as noisy as the real one."""
import logging, os, pathlib, signal, sys, time, types, warnings
import torch

logging.getLogger("torch_tensorrt._utils").error("CUDA 13 is not currently supported")
warnings.warn("deprecated", DeprecationWarning)
print("a line on standard output")
print("a line on standard error", file=sys.stderr)
logging.captureWarnings(True)
built = []

def compile(exported, arg_inputs, use_explicit_typing, timing_cache_path, **settings):
    print("building")
    built.append(tuple(arg_inputs[0].shape))
    folder = os.environ.get("FAKE_MEETING")
    if folder:
        pathlib.Path(folder, str(os.getpid())).touch()
        begun = time.monotonic()
        while len(list(pathlib.Path(folder).iterdir())) < 2:
            assert time.monotonic() < begun + 100, "no other build runs beside this one"
            time.sleep(0.01)
    if os.environ.get("FAKE_FAULT") == "error":
        raise RuntimeError("no kernel for this layer")
    if os.environ.get("FAKE_FAULT") == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    return exported.module()

def save(engine, path, arg_inputs):
    torch.export.save(torch.export.export(engine, tuple(arg_inputs)), path)

dynamo = types.SimpleNamespace(compile=compile)
logging = types.SimpleNamespace(set_level=logging.getLogger("torch_tensorrt").setLevel)
load = torch.export.load
'''


class Small(nn.Module):
    """Two outputs of different shapes."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.out = nn.Linear(5, 4)

    def forward(self, x):
        y = torch.relu(self.conv(x))
        return self.out(y.mean((2, 3))), y


def images(count, seed=1):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Installs packages, each a name and a version, into a folder on the path of modules."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    # What the machine itself has is none of the test's business.
    for name in ("torch_tensorrt", "tensorrt", "tensorrt_rtx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = tensorrt_install.metadata.version

    def version(package):
        about = folder / f"{package.replace('-', '_')}.dist-info"
        if "tensorrt" in package and not about.exists():
            raise tensorrt_install.metadata.PackageNotFoundError(package)
        return about.joinpath("VERSION").read_text() if about.exists() else found(package)

    monkeypatch.setattr(tensorrt_install.metadata, "version", version)

    def install(package, number, module=None, text=""):
        about = folder / f"{package.replace('-', '_')}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {number}"
        )
        (about / "VERSION").write_text(number)
        if module is not None:
            (folder / module).mkdir()
            (folder / module / "__init__.py").write_text(text)

    yield install
    for name in ("torch_tensorrt", "tensorrt", "tensorrt_rtx"):
        sys.modules.pop(name, None)
    logging.captureWarnings(False)


@pytest.fixture
def rtx(site):
    """The edition for RTX, for this torch, played by a double."""
    site("torch-tensorrt-rtx", f"{RELEASE}.0", "torch_tensorrt", TORCH_TENSORRT)
    site("tensorrt-rtx", "1.5.0", "tensorrt_rtx")


@pytest.fixture
def here(rtx, monkeypatch):
    """Builds run in this process; returns the shapes that were built."""

    def in_this_process(builds, edition, on_done):
        for number, build in enumerate(builds):
            build.log.write_text("all that it said")
            reason = None
            try:
                tensorrt_build.main(str(build.program), str(build.engine))
            except Exception as error:
                reason = str(error)
            on_done(number, reason)

    monkeypatch.setattr(tensorrt, "build_all", in_this_process)
    return tensorrt_install.import_torch_tensorrt().built


def load_or_build(module, batch, cache):
    (result,) = tensorrt.load_or_build([(module, [batch])], cache)
    return result


# Which edition is installed.


def test_nothing_installed_names_the_package_for_this_torch(site):
    with pytest.raises(TensorrtError) as caught:
        tensorrt_install.installed()
    command = f"pip install 'torch-tensorrt-rtx=={RELEASE}.*'"
    assert str(caught.value).startswith(f"TensorRT is not installed; {command}")
    assert missing("tensorrt", CUDA) == str(caught.value)


@pytest.mark.parametrize(("edition", "library"), [(RTX, "tensorrt_rtx"), (DATA_CENTRE, "tensorrt")])
def test_each_edition_is_known_by_its_package(site, edition, library):
    site(edition.package, f"{RELEASE}.1", "torch_tensorrt")
    with pytest.raises(TensorrtError, match="installed without tensorrt"):
        tensorrt_install.installed()
    site(library.replace("_", "-"), "1.5.0", library)
    assert tensorrt_install.installed() is edition
    assert tensorrt_install.describe(edition) == (
        f"{edition.package} {RELEASE}.1 with {library.replace('_', '-')} 1.5.0, "
        f"for torch {torch.__version__}"
    )
    assert missing("tensorrt", CUDA) is None
    assert missing("tensorrt", torch.device("cpu")) == "TensorRT needs an NVIDIA GPU"


def test_both_editions_at_once_are_an_error(rtx, site):
    site("torch-tensorrt", f"{RELEASE}.0")
    with pytest.raises(TensorrtError) as caught:
        tensorrt_install.installed()
    assert "pip uninstall torch-tensorrt-rtx torch-tensorrt, then pip install" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(EngineError, match="both editions"):
        make_engine(Small(), images(1), engine="tensorrt", device="cpu")


def test_an_edition_for_another_torch_names_the_pair(site, monkeypatch):
    site("torch-tensorrt-rtx", "2.12.1", "torch_tensorrt")
    for version, wants in (
        ("2.14.0+cu130", "'torch-tensorrt-rtx==2.14.*'"),
        ("2.11.0", "'torch-tensorrt-rtx==2.11.*' 'tensorrt-rtx==1.4.*'"),
    ):
        monkeypatch.setattr(torch, "__version__", version)
        with pytest.raises(TensorrtError) as caught:
            tensorrt_install.installed()
        assert str(caught.value) == (
            f"torch-tensorrt-rtx 2.12.1 is for torch 2.12, and this is {version}; "
            f"pip install {wants}"
        )
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    with pytest.raises(TensorrtError, match="needs torch 2.11 or later, and this is 2.10.0"):
        tensorrt_install.installed()


# The import.


def test_the_import_is_quiet_and_leaves_warnings_alone(rtx, capfd):
    assert tensorrt_install.import_torch_tensorrt().built == []
    assert capfd.readouterr() == ("", "")
    with pytest.warns(UserWarning, match="of the program"):
        warnings.warn("of the program", stacklevel=1)
    assert "tensorrt.plugin" not in sys.modules


def test_an_import_that_fails_says_why_and_keeps_what_was_said(site):
    text = 'print("is the library there?")\nraise OSError("libcuda.so.1 is missing\\nmore")'
    site("torch-tensorrt-rtx", f"{RELEASE}.0", "torch_tensorrt", text)
    site("tensorrt-rtx", "1.5.0", "tensorrt_rtx")
    with pytest.raises(TensorrtError) as caught:
        tensorrt_install.import_torch_tensorrt()
    assert str(caught.value) == "torch-tensorrt-rtx cannot be imported: libcuda.so.1 is missing"
    assert "is the library there?" in caught.value.__notes__[0]


def test_a_plugin_package_that_cannot_be_imported_is_not_looked_for(site):
    """As torch-tensorrt-rtx 2.11 looks for it through its module of another name."""
    text = "\n".join(
        (
            "import importlib.util, sys, types, logging",
            "import tensorrt_rtx",
            "sys.modules['tensorrt'] = tensorrt_rtx",
            "found = importlib.util.find_spec('tensorrt.plugin')",
            "found = found and importlib.util.find_spec('tensorrt.plugin._lib')",
            "logging = types.SimpleNamespace(set_level=lambda level: None)",
        )
    )
    site("torch-tensorrt-rtx", f"{RELEASE}.0", "torch_tensorrt", text)
    site("tensorrt-rtx", "1.4.0", "tensorrt_rtx")
    import tensorrt_rtx

    plugin = Path(tensorrt_rtx.__file__).parent / "plugin"
    plugin.mkdir()
    (plugin / "__init__.py").write_text("from tensorrt_rtx_bindings.plugin import *")
    assert tensorrt_install.import_torch_tensorrt().found is None


# What an engine depends on, and the cache.


def test_a_fingerprint_changes_with_all_that_an_engine_depends_on(rtx, monkeypatch):
    def name(module=None, batch=None, edition=RTX):
        exported = tensorrt._exported((module or Small(), [images(2) if batch is None else batch]))
        return tensorrt.digest(tensorrt.fingerprint(exported, edition))

    same, others = name(), set()
    assert name(batch=images(2, seed=9)) == same
    others |= {name(Small(1)), name(batch=images(3)), name(nn.Sequential(Small()))}
    others |= {name(Small().bfloat16(), images(2).bfloat16()), name(edition=DATA_CENTRE)}
    with monkeypatch.context() as changed:
        changed.setitem(tensorrt.SETTINGS, "optimization_level", 5)
        others.add(name())
    with monkeypatch.context() as changed:
        changed.setattr(tensorrt_install, "version_of", lambda package: "99")
        others.add(name())
    with monkeypatch.context() as changed:
        changed.setattr(torch.version, "cuda", "99.9")
        others.add(name())
    assert len(others) == 8
    assert same not in others
    assert name() == same


def test_engines_are_kept_and_found_again(here, tmp_path):
    module, batch, cache = Small().eval(), images(2), tmp_path / "cache"
    built = load_or_build(module, batch, cache)
    assert (built.from_cache, built.note, here) == (False, None, [(2, 3, 8, 8)])
    again = load_or_build(module, batch, cache)
    assert (again.from_cache, again.note, len(here)) == (True, None, 1)
    with torch.no_grad():
        assert torch.equal(again.step(batch)[0], built.step(batch)[0])
        assert torch.equal(again.step(batch)[1], module(batch)[1])
    (facts,) = cache.glob("*.json")
    assert json.loads(facts.read_text())["edition"] == "torch-tensorrt-rtx"
    assert not list(cache.glob(".building-*"))


def test_only_what_is_missing_is_built(here, tmp_path):
    programs = [(Small(), [images(count)]) for count in (1, 2, 3)]
    progress = []
    tensorrt.load_or_build(programs[:2], tmp_path)
    results = tensorrt.load_or_build(
        programs, tmp_path, lambda done, total: progress.append((done, total))
    )
    assert [result.from_cache for result in results] == [True, True, False]
    assert [len(result.step(*batch)[0]) for result, (_, batch) in zip(results, programs)] == [
        1,
        2,
        3,
    ]
    assert here == [(1, 3, 8, 8), (2, 3, 8, 8), (3, 3, 8, 8)]
    assert progress == [(0, 1), (1, 1)]


def test_of_two_that_need_an_engine_one_builds_it(here, tmp_path):
    # Made before: both take the same random numbers.
    modules = [Small(), Small()]
    with ThreadPoolExecutor(2) as both:
        results = list(both.map(lambda made: load_or_build(made, images(2), tmp_path), modules))
    assert sorted(result.from_cache for result in results) == [False, True]
    assert len(here) == 1


def test_a_broken_file_is_built_again(here, tmp_path, monkeypatch):
    def made():
        return load_or_build(Small(), images(2), tmp_path)

    made()
    (kept,), (record,) = tmp_path.glob("*.pt2"), tmp_path.glob("*.json")
    whole, written = kept.read_bytes(), record.read_text()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (b"", b"no engine", whole[: len(whole) // 2], bytes(flipped)):
        kept.write_bytes(content)
        assert "damaged or of something else and was built again" in made().note
        assert made().from_cache
    for content in ("", "{}", written.replace("float32", "float16"), None):
        record.unlink() if content is None else record.write_text(content)
        assert "was built again" in made().note
        assert made().from_cache
    fresh = sys.modules["torch_tensorrt"].load
    calls = []

    def fails_once(path):
        calls.append(path)
        if len(calls) == 1:
            raise TypeError
        return fresh(path)

    monkeypatch.setattr(sys.modules["torch_tensorrt"], "load", fails_once)
    assert "could not be loaded (TypeError) and was built again" in made().note


def test_an_engine_that_cannot_be_kept_is_used(here, tmp_path):
    (tmp_path / "file").touch()
    built = load_or_build(Small(), images(2), tmp_path / "file")
    assert built.note == "the TensorRT engine could not be kept: File exists"
    assert built.step(images(2))[0].shape == (2, 4)
    assert not load_or_build(Small(), images(2), None).from_cache


def test_a_build_that_fails_is_reported_and_its_log_stays(here, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_FAULT", "error")
    error = load_or_build(Small(), images(2), tmp_path)
    assert isinstance(error, TensorrtError)
    reason, _, log = str(error).partition("; all that the build said is in ")
    assert reason == "no kernel for this layer"
    assert Path(log).read_text() == "all that it said"
    assert not list(tmp_path.glob("*.pt2"))


class Branching(nn.Module):
    """No exported program: what it does depends on values."""

    def forward(self, x):
        return x if bool(x.sum() > 0) else -x


def test_one_program_that_cannot_be_exported_leaves_the_others(here, tmp_path):
    error, built = tensorrt.load_or_build(
        [(Branching(), [images(1)]), (Small(), [images(1)])], tmp_path
    )
    assert isinstance(error, Exception)
    assert built.step(images(1))[0].shape == (1, 4)


def test_an_engine_is_made_of_what_was_built(here, tmp_path, monkeypatch):
    """On a CPU, which TensorRT has none for: the double does not mind."""
    monkeypatch.setattr("pipeline.gpu.engine.missing", lambda *a, **k: None)
    progress = []
    for from_cache in (False, True):
        engines = make_engines(
            [(Small(k), images(3)) for k in range(2)], engine="tensorrt", device="cpu",
            buckets=(1, 2), cache=tmp_path, on_progress=lambda *now: progress.append(now),
        )  # fmt: skip
        assert [engine.report.from_cache for engine in engines] == [from_cache] * 2
    assert progress[:5] == [("TensorRT engines", done, 4) for done in range(5)]
    with torch.inference_mode():
        for k, engine in enumerate(engines):
            assert torch.allclose(engine(images(3))[0], Small(k)(images(3))[0], atol=1e-6)
    monkeypatch.setenv("FAKE_FAULT", "error")
    with pytest.raises(EngineError, match="^tensorrt: no kernel for this layer; all that"):
        make_engine(Small(5), images(3), engine="tensorrt", device="cpu", cache=tmp_path)


class WithKernels(Small):
    """Has kernels of its own."""

    def with_kernels(self):
        return Small()


def test_auto_builds_no_engine_for_a_module_with_kernels(here, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.gpu.engine.missing", lambda *a, **k: None)
    modules = [(WithKernels(), images(3)), (Small(7), images(3))]
    made = make_engines(modules, device="cpu", buckets=(2,), cache=tmp_path)
    assert [engine.report.engine for engine in made] == ["triton", "tensorrt"]
    assert here == [(2, 3, 8, 8)]
    own = (WithKernels(), images(3))
    assert make_engines([own], device="cpu", buckets=(2,))[0].report.engine == "triton"
    assert len(here) == 1


def test_auto_builds_one_where_the_kernels_do_not_work(here, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.gpu.engine.missing", lambda *a, **k: None)
    wrong = WithKernels()
    wrong.with_kernels = lambda: Small(9)
    (made,) = make_engines([(wrong, images(3))], device="cpu", buckets=(2,), cache=tmp_path)
    assert made.report.engine == "tensorrt"
    assert made.report.passed_over[0].startswith("not triton: WithKernels in triton: results are ")
    assert here == [(2, 3, 8, 8)]


def test_a_program_that_is_stopped_keeps_the_engines_that_are_done(here, tmp_path):
    def stopped(done, total):
        if done == 1:
            raise KeyboardInterrupt

    programs = [(Small(), [images(count)]) for count in (1, 2)]
    with pytest.raises(KeyboardInterrupt):
        tensorrt.load_or_build(programs, tmp_path, stopped)
    assert [each.from_cache for each in tensorrt.load_or_build(programs, tmp_path)] == [True, False]


def test_the_folder_of_a_build_that_was_killed_is_removed(here, tmp_path):
    left = tmp_path / ".building-killed"
    left.mkdir()
    (left / "0.program.pt2").touch()
    load_or_build(Small(), images(1), tmp_path)
    assert not left.exists()
    assert len(list(tmp_path.glob("*.pt2"))) == 1


# Builds in processes of their own.


def _build(folder, count=2):
    build = Build(folder / "program.pt2", folder / "engine.pt2", folder / "log")
    torch.export.save(tensorrt._exported((Small(), [images(count)])), build.program)
    return build


@pytest.mark.slow
def test_builds_run_beside_each_other_and_say_nothing(rtx, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    monkeypatch.setenv("FAKE_MEETING", str(meeting))
    progress = []
    results = tensorrt.load_or_build(
        [(Small(), [images(count)]) for count in (1, 2)],
        tmp_path / "cache",
        lambda done, total: progress.append((done, total)),
    )
    assert [len(result.step(images(k + 1))[0]) for k, result in enumerate(results)] == [1, 2]
    assert progress[0] == (0, 2)
    assert progress[-1] == (2, 2)
    assert len(list(meeting.iterdir())) == 2
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("error", "RuntimeError: no kernel for this layer"),
        ("crash", f"the build ended by signal {int(signal.SIGSEGV)}"),
    ],
)
def test_a_process_that_fails_leaves_its_words(rtx, tmp_path, monkeypatch, fault, reason):
    monkeypatch.setenv("FAKE_FAULT", fault)
    build = _build(tmp_path)
    ended = []
    build_all([build], RTX, lambda *end: ended.append(end))
    assert ended == [(0, reason)]
    assert "building" in build.log.read_text() or fault == "crash"


@pytest.mark.slow
def test_a_program_that_is_stopped_stops_its_builds(rtx, tmp_path, monkeypatch):
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    # It waits there for a second build, which does not come.
    monkeypatch.setenv("FAKE_MEETING", str(meeting))
    pids = []

    def stopped(seconds):
        pids.extend(int(path.name) for path in meeting.iterdir())
        if pids:
            raise KeyboardInterrupt

    monkeypatch.setattr(tensorrt_build.time, "sleep", stopped)
    with pytest.raises(KeyboardInterrupt):
        build_all([_build(tmp_path)], DATA_CENTRE, lambda *end: None)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


# On a GPU, with the real packages.

TENSORRT = pytest.mark.tensorrt


@TENSORRT
def test_what_is_installed_fits():
    assert tensorrt_install.installed() in (RTX, DATA_CENTRE)


@TENSORRT
@pytest.mark.parametrize("half", [False, True])
def test_real_engines_are_the_module_and_quiet(tmp_path, half, capfd):
    progress = []
    engine = make_engine(
        Small().eval(), images(3), engine="tensorrt", half=half, buckets=(1, 4), cache=tmp_path,
        on_progress=lambda *now: progress.append(now),
    )  # fmt: skip
    report = engine.report
    assert (report.engine, report.half, report.graphs, report.from_cache) == (
        "tensorrt", half, True, False,
    )  # fmt: skip
    assert report.notes == ()
    assert progress[:3] == [("TensorRT engines", done, 2) for done in range(3)]
    for count in (1, 2, 4, 7):
        batch = images(count, seed=count)
        with torch.inference_mode():
            wanted = Small().eval()(batch)
        for got, expected in zip(engine(batch.cuda()), wanted):
            assert torch.allclose(got.cpu(), expected, atol=2e-2 if half else 2e-3)
    assert capfd.readouterr() == ("", "")


@TENSORRT
def test_real_engines_are_kept_and_built_again_where_anything_differs(tmp_path):
    def made(seed=0, size=2):
        return make_engine(
            Small(seed).eval(), images(1), engine="tensorrt", buckets=(size,), cache=tmp_path
        )

    first = made()
    second = made()
    assert [first.report.from_cache, second.report.from_cache] == [False, True]
    batch = images(2).cuda()
    for one, other in zip(first(batch), second(batch)):
        assert torch.allclose(one, other, atol=1e-3)
    assert not made(seed=1).report.from_cache
    assert not made(size=3).report.from_cache
    for kept in tmp_path.glob("*.pt2"):
        kept.write_bytes(kept.read_bytes()[:-100])
    again = made()
    assert "was damaged or of something else and was built again" in again.report.notes[0]
    assert made().report.from_cache


@TENSORRT
@pytest.mark.weights
def test_the_default_networks_run_in_tensorrt(tmp_path):
    try:
        files = weights.find("blazepose")
    except weights.WeightsError as error:
        pytest.skip(str(error))
    for from_cache in (False, True):
        reports = BlazePoseTorch(files, engine="tensorrt", buckets=(1, 4), cache=tmp_path).reports
        assert [report.engine for report in reports] == ["tensorrt"] * 2
        assert all(report.graphs and report.from_cache == from_cache for report in reports)
        assert all(report.mean_difference < 1e-2 for report in reports)
