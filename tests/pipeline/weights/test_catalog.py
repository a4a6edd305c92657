"""Model files with an address of their own are fetched completely or not at all."""

from __future__ import annotations

import hashlib
import io
import urllib.error
import urllib.request
import zipfile
from types import SimpleNamespace

import pytest

from pipeline.core.program import program
from pipeline.perception.ultralytics_models.load import MODELS
from pipeline.weights import download
from pipeline.weights import store as weights
from pipeline.weights.store import OPTIONAL, REGISTRY, Weights, WeightsError, WeightsFile

DATA = b"weights" * 400_000
URL = "https://example.org/made/net.pt"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server that sends ``server.data`` from ``server.url``, and a model that it has."""
    made = SimpleNamespace(data=DATA, url=URL, headers={"Content-Length": str(len(DATA))}, asked=0)
    file = WeightsFile("net.pt", len(DATA), hashlib.sha256(DATA).hexdigest(), url=URL)
    monkeypatch.setitem(OPTIONAL, "net", Weights("net", (file,), "MIT", "a net"))
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path / "cache"))

    def urlopen(url, timeout):
        assert url == URL
        assert timeout > 0
        made.asked += 1
        if isinstance(made.data, Exception):
            raise made.data
        answer = io.BytesIO(made.data)
        answer.url, answer.headers = made.url, made.headers
        return answer

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return made


def kept(tmp_path):
    folder = tmp_path / "cache"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_is_fetched_once_with_progress(server, tmp_path):
    steps = []
    paths = weights.fetch("net", lambda *step: steps.append(step))
    assert paths["net.pt"].read_bytes() == DATA
    assert kept(tmp_path) == ["net.pt"]
    assert steps[-1] == ("net.pt", len(DATA), len(DATA))
    assert len(steps) > 1
    assert weights.fetch("net") == paths
    assert server.asked == 1
    assert weights.find("net") == paths


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"data": DATA[:-1]}, "only 2799999 of 2800000"),
        ({"data": DATA + b"x"}, "more of 2800000"),
        ({"data": b"x" * len(DATA)}, "not the file it should be"),
        ({"url": "http://example.org/net.pt"}, "not safe"),
        ({"data": urllib.error.URLError("no route")}, "could not be fetched: .*no route"),
        ({"data": TimeoutError("timed out")}, "timed out"),
    ],
)
def test_anything_else_leaves_nothing(server, tmp_path, change, match):
    vars(server).update(change)
    with pytest.raises(WeightsError, match=match) as caught:
        weights.fetch("net")
    assert "\n" not in str(caught.value)
    assert kept(tmp_path) == []


def test_a_file_of_unknown_sum_is_taken_whole_or_not_at_all(server, tmp_path, monkeypatch):
    file = WeightsFile("net.pt", 0, "", url=URL)
    monkeypatch.setitem(OPTIONAL, "net", Weights("net", (file,), "MIT", "a net"))
    server.data = DATA[:-5]
    with pytest.raises(WeightsError, match="only"):
        weights.fetch("net")
    server.data = DATA
    assert weights.fetch("net")["net.pt"].read_bytes() == DATA
    monkeypatch.setattr(download, "MOST_BYTES", 100)
    server.headers = {}
    (tmp_path / "cache" / "net.pt").unlink()
    with pytest.raises(WeightsError, match="not the file it should be"):
        weights.fetch("net")
    assert kept(tmp_path) == []


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.fixture
def archive(server, monkeypatch):
    """The server's file is an archive, of which a model is one member."""
    file = WeightsFile("assets/net.pt", 0, "", member="assets/net.pt", url=URL)
    monkeypatch.setitem(OPTIONAL, "net", Weights("net", (file,), "MIT", "a net", folder="nets"))

    def serve(data):
        server.data, server.headers = data, {"Content-Length": str(len(data))}

    serve(zipped({"assets/net.pt": DATA, "../evil": b"x", "assets/other": b"y"}))
    server.serve = serve
    return server


def test_a_member_of_an_archive_comes_alone_into_the_models_folder(archive, tmp_path):
    found = weights.fetch("net")
    assert found == {"assets/net.pt": tmp_path / "cache/nets/assets/net.pt"}
    assert found["assets/net.pt"].read_bytes() == DATA
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()] == ["net.pt"]
    assert weights.fetch("net") == found
    assert archive.asked == 1


def test_an_archive_that_is_cut_off_damaged_or_another_leaves_nothing(archive, tmp_path):
    whole = archive.data
    spoiled = bytearray(whole)
    spoiled[200] ^= 255
    for data, stated, match in (
        (whole[:-9], len(whole), "only"),
        (whole[:-9], len(whole) - 9, "could not be unpacked"),
        (bytes(spoiled), len(whole), "could not be unpacked"),
        (zipped({"other": DATA}), None, "could not be unpacked: .*assets/net.pt"),
        (b"an error page", None, "could not be unpacked"),
    ):
        archive.serve(data)
        archive.headers["Content-Length"] = str(stated or len(data))
        with pytest.raises(WeightsError, match=match) as caught:
            weights.fetch("net")
        assert "\n" not in str(caught.value)
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_member_larger_than_any_model_is_refused(archive, monkeypatch):
    monkeypatch.setattr(download, "MOST_BYTES", len(DATA) - 1)
    with pytest.raises(WeightsError, match="not the file it should be"):
        weights.fetch("net")


def test_every_model_has_its_file_and_a_licence():
    single = {name for name, model in OPTIONAL.items() if not (model.page or model.folder)}
    assert single == set(MODELS)
    assert not set(OPTIONAL) & set(REGISTRY)
    for name, model in OPTIONAL.items():
        assert model.name == name
        if name not in single:
            continue
        assert "AGPL-3.0" in model.licence
        for file in model.files:
            assert file.url.startswith("https://")
            assert file.url.endswith(f"/{file.name}")
            assert len(file.sha256) in (0, 64)
    assert weights.known("sam-h").source == "from dl.fbaipublicfiles.com"
    assert weights.known("mhr-rig").source == "from github.com"
    assert "mediapipe" in weights.known("blazepose").source
    with pytest.raises(WeightsError, match="there are no weights 'sam-z'"):
        weights.known("sam-z")


def test_gated_models_say_what_their_terms_are_and_where_access_is_asked_for():
    gated = [model for model in OPTIONAL.values() if model.hub]
    assert [model.name for model in gated] == ["sam3d-dinov3", "sam3d-vith"]
    for model in gated:
        assert model.licence.startswith("SAM License")
        assert model.hub_page in model.how
        assert model.hub_page in model.source
        assert model.how.startswith(f"{program()} weights fetch {model.name}, ")
        assert model not in weights.chosen("default")


def test_a_model_with_terms_of_its_own_is_taken_by_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path))
    taken = [model for model in OPTIONAL.values() if model.page]
    assert {model.name for model in taken} == {"instanthmr", "instanthmr-apache"}
    for model in taken:
        assert model.page.startswith("https://")
        assert model.page in model.how
        assert "--model FILE" in model.how
        with pytest.raises(WeightsError, match="is not fetched") as caught:
            weights.fetch(model.name)
        assert "\n" not in str(caught.value)
        # A file that lies where models are kept is found, whatever it is: its size is not known.
        assert weights.find_optional(model.name) is None
        (tmp_path / model.files[0].name).write_bytes(b"a network")
        assert list(weights.find_optional(model.name)) == [model.files[0].name]
        weights.fetch(model.name)
