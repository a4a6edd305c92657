"""Playlists on the disk and behind a server: recordings and live streams are distinguished."""

import functools
import http.server
import re
import threading

import av
import pytest

from pipeline.capture import playlist
from pipeline.capture.errors import SourceNotFound, SourceNotVideo
from pipeline.capture.open import open_source
from pipeline.capture.playlist import dash_hint, is_recording
from tests.support.clips import number_of, numbered, write_clip

COUNT = 50
END = "#EXT-X-ENDLIST"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings as HLS, in both kinds of segments, and each without its end mark."""
    folder = tmp_path_factory.mktemp("hls")
    images = [numbered(number) for number in range(COUNT)]
    for name, kind in (("ts", "mpegts"), ("mp4", "fmp4")):
        path = write_clip(
            folder / f"{name}.m3u8", images, gop=10, audio=True,
            container_options={
                "hls_time": "0.4", "hls_list_size": "0", "hls_segment_type": kind,
                "hls_fmp4_init_filename": f"{name}_init.mp4",
            },
        )  # fmt: skip
        text = path.read_text()
        live = re.sub("#EXT-X-PLAYLIST-TYPE:.*\n", "", text.replace(END, ""))
        event = re.sub("#EXT-X-PLAYLIST-TYPE:.*\n", "", text)
        (folder / f"{name}_live.m3u8").write_text(live)
        (folder / f"{name}_event.m3u8").write_text(
            event.replace("#EXTM3U", "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:EVENT")
        )
        for target in (name, f"{name}_live"):
            (folder / f"{target}_main.m3u8").write_text(
                f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100000\n{target}.m3u8\n"
            )
    return folder


@pytest.fixture(scope="module")
def address(folder):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["ts", "mp4"])
@pytest.mark.parametrize(
    ("name", "recording"),
    [("", True), ("_event", True), ("_main", True), ("_live", False), ("_live_main", False)],
)
def test_a_playlist_with_an_end_is_a_recording(address, kind, name, recording):
    with av.open(f"{address}/{kind}{name}.m3u8?token=1") as container:
        assert is_recording(container) is recording


@pytest.mark.parametrize("name", ["clip.mp4", "clip.ts", "clip.mkv"])
def test_a_clip_is_no_playlist(tmp_path, name):
    path = write_clip(tmp_path / name, [numbered(0)] * 5)
    with av.open(str(path)) as container:
        assert not is_recording(container)


@pytest.mark.parametrize("kind", ["ts", "mp4"])
@pytest.mark.parametrize("name", ["", "_event", "_live", "_main"])
def test_a_playlist_on_the_disk_is_read_once_whole_with_or_without_its_end_mark(folder, kind, name):
    source = open_source(str(folder / f"{kind}{name}.m3u8"))
    source.open()
    assert [number_of(frame.image) for frame in source.frames()] == list(range(COUNT))
    source.close()


@pytest.mark.parametrize("segment", ["http://127.0.0.1:9/a.ts", "missing.ts"])
def test_a_playlist_on_the_disk_whose_segments_are_elsewhere_says_what_to_do(tmp_path, segment):
    path = tmp_path / "list.m3u8"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{segment}\n{END}\n")
    with pytest.raises(SourceNotVideo, match="segments are not files beside it.*address"):
        open_source(str(path)).open()


@pytest.mark.parametrize("spec", ["http://host/a/manifest.mpd", "clip.MPD", "https://h/x.mpd?a=b"])
def test_a_dash_manifest_that_cannot_be_read_says_what_to_give(monkeypatch, spec):
    def none_of_it(name, mode):
        raise ValueError(name)

    monkeypatch.setattr(playlist, "ContainerFormat", none_of_it)
    with pytest.raises(SourceNotFound, match=r"DASH.*HLS"):
        open_source(spec)
    monkeypatch.setattr(playlist, "ContainerFormat", lambda name, mode: None)
    assert dash_hint(spec) == ""


def test_other_names_are_no_dash_manifests():
    assert dash_hint("http://host/mpd/clip.mp4") == dash_hint("a.mpd.mp4") == ""


@pytest.mark.parametrize("kind", ["ts", "mp4"])
@pytest.mark.parametrize("name", ["", "_event", "_main"])
def test_a_recording_behind_a_server_is_read_once_and_no_frame_is_dropped(address, kind, name):
    source = open_source(f"{address}/{kind}{name}.m3u8")
    source.open()
    assert not source.live
    assert [number_of(frame.image) for frame in source.frames()] == list(range(COUNT))
    assert source.counts["reconnected"] == 0
    source.close()
