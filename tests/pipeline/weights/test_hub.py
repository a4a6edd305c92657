"""Gated files of the Hugging Face Hub: a hub on this machine, and what goes wrong with one."""

from __future__ import annotations

import hashlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from pipeline.weights import store as weights
from pipeline.weights.store import OPTIONAL, Weights, WeightsError, WeightsFile

HUB = "toys/net"
COMMIT = "c" * 40
DATA = {
    "net.ckpt": bytes(range(256)) * 4000,
    "settings.yaml": b"a: 1\n",
    "assets/rig.pt": b"r" * 99,
}
HALF = len(DATA["net.ckpt"]) // 2


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, and a catalog with a model on the hub."""
    files = tuple(WeightsFile(name, 0, "") for name in DATA)
    monkeypatch.setitem(
        OPTIONAL, "net", Weights("net", files, "MIT", "a net", hub=HUB, folder="net")
    )
    monkeypatch.setenv("BODYSTREAM_WEIGHTS", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does, to the holder of one token. It states the files of ``DATA`` and
    sends those in ``hub.data``; with ``hub.cut`` a file ends after a half."""

    def do_HEAD(self):
        self.answer(None)

    def do_GET(self):
        self.answer(self.headers.get("Range"))

    def answer(self, wanted):
        hub = self.server.hub
        repository, _, rest = self.path[1:].partition("/resolve/")
        name = rest.partition("/")[2]
        # The client may ask for other things too, such as news about itself.
        if repository != HUB:
            return self.send(404, {}, 0)
        hub.asked.append((self.command, self.path, wanted))
        code, headers = hub.refused.get(self.headers.get("Authorization"), (200, {}))
        if wanted and hub.cut == "for good":
            code = 404
        if code != 200:
            return self.send(code, headers, 0)
        data = DATA[name]
        large = len(data) > 50
        tag = hashlib.sha256(data).hexdigest() if large else hashlib.sha1(data).hexdigest()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"'}
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.send(206 if start else 200, headers, len(data) - start)
        if self.command == "GET":
            end = HALF if hub.cut and not start else None
            self.wfile.write(hub.data[name][start:end])
        return None

    def send(self, code, headers, length):
        self.send_response(code)
        for name, value in {**headers, "Content-Length": length, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


def serve_at(monkeypatch, port):
    from huggingface_hub import constants

    address = f"http://127.0.0.1:{port}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(monkeypatch, cache, tmp_path):
    """A hub, and a user with a token that it accepts."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants, file_download

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = SimpleNamespace(data=dict(DATA), asked=[], refused={}, cut="")
    server.hub = made
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    serve_at(monkeypatch, server.server_port)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
    # Between two attempts at a download.
    monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
    monkeypatch.setenv("HF_TOKEN", "mine")
    made.refused = {None: (401, {"X-Error-Code": "GatedRepo"})}
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def problem():
    with pytest.raises(WeightsError) as caught:
        weights.fetch("net")
    assert "\n" not in str(caught.value)
    assert "mine" not in str(caught.value)
    return str(caught.value)


def kept(cache):
    """The files in the model's folder."""
    paths = (path for path in (cache / "net").rglob("*") if path.is_file())
    return {path.relative_to(cache / "net").as_posix() for path in paths}


def gets(hub, name):
    return [wanted for method, path, wanted in hub.asked if method == "GET" and name in path]


def test_without_the_package_the_line_says_what_to_install(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert problem() == "huggingface_hub is not installed; pip install 'bodystream[sam3d]'"
    assert not cache.exists()


def test_files_come_once_into_the_models_folder(hub, cache):
    found = weights.fetch("net")
    assert {name: path.read_bytes() for name, path in found.items()} == DATA
    assert {path.name for path in (cache / "net").iterdir()} == {
        "net.ckpt",
        "settings.yaml",
        "assets",
    }
    assert all(COMMIT in path for method, path, _ in hub.asked if method == "GET")
    asked = len(hub.asked)
    assert weights.fetch("net") == found
    (cache / "net/settings.yaml").unlink()
    assert weights.fetch("net") == found
    assert [path.rpartition("/")[2] for _, path, _ in hub.asked[asked:]].count("net.ckpt") == 0


def test_without_a_token_nothing_is_asked(hub, cache, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    line = problem()
    assert "https://huggingface.co/toys/net" in line
    assert "set HF_TOKEN" in line
    assert not hub.asked


def test_a_login_of_the_hubs_own_client_serves_too(hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text("mine")
    weights.fetch("net")


def test_access_that_is_not_granted_leads_to_the_page(hub, cache):
    hub.refused["Bearer mine"] = (403, {"X-Error-Code": "GatedRepo"})
    line = problem()
    assert "not granted" in line
    assert "ask for it on https://huggingface.co/toys/net" in line
    assert not kept(cache)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Error-Message": "Invalid credentials in Authorization header"},
        {"X-Error-Code": "GatedRepo"},
        {"X-Error-Code": "RepoNotFound"},
    ],
)
def test_a_token_that_the_hub_does_not_know(hub, headers):
    hub.refused["Bearer mine"] = (401, headers)
    assert "does not accept your token" in problem()


@pytest.mark.parametrize(
    ("code", "headers", "words"),
    [
        (403, {"X-Error-Message": "enable access to public gated repositories"}, "enable access"),
        (404, {"X-Error-Code": "EntryNotFound"}, "404"),
        (500, {}, "500"),
    ],
)
def test_other_refusals_keep_the_hubs_words(hub, code, headers, words):
    hub.refused["Bearer mine"] = (code, headers)
    line = problem()
    assert line.startswith("net could not be fetched from https://huggingface.co/toys/net: ")
    assert words in line


def test_no_hub_at_all_is_one_line(hub, monkeypatch):
    serve_at(monkeypatch, 9)
    assert "could not be fetched" in problem()


def test_a_download_that_is_cut_off_is_continued(hub):
    hub.cut = "once"
    found = weights.fetch("net")
    assert gets(hub, "net.ckpt") == [None, f"bytes={HALF}-"]
    assert {name: path.read_bytes() for name, path in found.items()} == DATA


def test_a_partial_file_is_never_taken_for_the_whole(hub, cache):
    hub.cut = "for good"
    assert "could not be fetched" in problem()
    assert not kept(cache)
    with pytest.raises(WeightsError, match=r"net\.ckpt is missing"):
        weights.find("net")
    hub.cut = ""
    assert weights.fetch("net")["net.ckpt"].read_bytes() == DATA["net.ckpt"]


def test_a_damaged_file_is_refused_and_files_before_it_stay(hub, cache):
    hub.data["assets/rig.pt"] = b"r" * 98 + b"x"
    assert "assets/rig.pt came damaged" in problem()
    assert kept(cache) == {"net.ckpt", "settings.yaml"}
    hub.data["assets/rig.pt"] = DATA["assets/rig.pt"]
    before = len(hub.asked)
    weights.fetch("net")
    assert kept(cache) == set(DATA)
    assert not [path for _, path, _ in hub.asked[before:] if "net.ckpt" in path]
