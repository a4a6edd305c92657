"""MP4 files whose index comes last, behind servers that do and do not send parts of files."""

import http.server
import re
import threading

import numpy as np
import pytest

from pipeline.capture.base import SourceOptions
from pipeline.capture.errors import SourceNotVideo
from pipeline.capture.mp4 import index_is_out_of_order, lacks_index
from pipeline.capture.open import open_source
from tests.support.clips import number_of, numbered, write_clip

COUNT = 25


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Clips too large for FFmpeg's buffer, with the index at either end."""
    folder = tmp_path_factory.mktemp("mp4")
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, 240, 320, 3), np.uint8)
    flags = {
        "last": {},
        "first": {"movflags": "+faststart"},
        "parts": {"movflags": "+frag_keyframe+empty_moov"},
    }
    paths = {
        name: write_clip(folder / f"{name}.mp4", list(noise), container_options=flag)
        for name, flag in flags.items()
    }
    assert paths["last"].stat().st_size > 500_000
    paths["small"] = write_clip(folder / "small.mp4", [numbered(i) for i in range(COUNT)])
    return {name: path.read_bytes() for name, path in paths.items()}


@pytest.fixture
def serve(files):
    """Starts a server of these files that answers in one way; returns its address."""
    servers = []

    def start(way: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1" if way == "chunked" else "HTTP/1.0"

            def log_message(self, *_):
                pass

            def do_GET(self):
                data = files[self.path.split("/")[-1].partition(".")[0]]
                asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                if way == "range" and asked:
                    end = min(int(asked[2] or len(data)) + 1, len(data))
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {asked[1]}-{end - 1}/{len(data)}")
                    data = data[int(asked[1]) : end]
                else:
                    self.send_response(200)
                if way == "chunked":
                    self.send_header("Transfer-Encoding", "chunked")
                    data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
                elif way != "until closed":
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                try:
                    self.wfile.write(data)
                except OSError:  # The client has seen enough.
                    self.close_connection = True

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("way", ["plain", "chunked", "until closed"])
def test_an_index_that_cannot_be_left_again_says_what_to_do(serve, way):
    source = open_source(f"{serve(way)}/last.mp4", SourceOptions(retry_s=0))
    with pytest.raises(SourceNotVideo, match=r"moov.*download it first.*faststart"):
        source.open()


@pytest.mark.parametrize(
    ("way", "name"),
    [
        ("range", "last"), ("plain", "first"), ("plain", "parts"), ("range", "first"),
        ("plain", "small"), ("chunked", "small"),
    ],
)  # fmt: skip
def test_other_files_and_other_servers_are_read(serve, way, name):
    source = open_source(f"{serve(way)}/{name}.mp4")
    source.open()
    images = [frame.image for frame in source.frames()]
    assert len(images) == COUNT
    if name == "small":
        assert [number_of(image) for image in images] == list(range(COUNT))


def test_a_server_that_does_not_answer_proves_nothing():
    assert not index_is_out_of_order("http://127.0.0.1:9/last.mp4")
    assert not index_is_out_of_order("http://[bad/last.mp4")


@pytest.mark.parametrize("name", ["last", "first", "parts"])
def test_a_file_cut_before_its_index_lacks_it(tmp_path, files, name):
    path = tmp_path / "cut.mp4"
    path.write_bytes(files[name])
    assert not lacks_index(path)
    path.write_bytes(files[name][: len(files[name]) // 2])
    assert lacks_index(path) is (name == "last")
