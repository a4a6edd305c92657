"""The library in a real notebook's kernel: its event loop, its interrupt, what it shows."""

from __future__ import annotations

import av
import pytest

from app.exports.recording import read_recording
from tests.support.kernels import kernel
from tests.support.paths import SAMPLES

pytestmark = [pytest.mark.slow, pytest.mark.weights]
# The sample over and over, as a camera would: it cannot end before the interrupt comes.
ENDLESS = f"lavfi:movie={SAMPLES / 'pitch.mp4'}:loop=0,setpts=N/30/TB"
THREADS = "import threading; print(sorted(each.name for each in threading.enumerate()))"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    with kernel(folder) as started:
        started.folder = folder
        # Imported first: packages may start threads of their own.
        started.run("import asyncio, bodystream, torch; bodystream.stream, bodystream.draw")
        yield started


def test_an_interrupt_ends_a_run_with_its_files_complete(notebook):
    before = notebook.run(THREADS)[1]
    reply, _ = notebook.run(
        f"asyncio.get_running_loop(); "
        f"bodystream.run({ENDLESS!r}, poses='a.npz', video='a.mp4', people=1)",
        interrupt_at=r"\d\d+ frames",
    )
    assert reply["ename"] == "KeyboardInterrupt"
    assert notebook.run(THREADS)[1] == before
    assert len(read_recording(notebook.folder / "a.npz").frames) > 3
    with av.open(str(notebook.folder / "a.mp4")) as video:
        assert [frame.time for frame in video.decode(video=0)]
    assert not list(notebook.folder.glob("a.*.*"))


def test_an_interrupt_of_a_loop_over_frames_leaves_no_thread(notebook):
    before = notebook.run(THREADS)[1]
    reply, _ = notebook.run(
        f"with bodystream.stream({ENDLESS!r}, people=1) as run:\n"
        "    for frame, bodies in run:\n"
        "        print(frame.id)\n",
        interrupt_at="\\d",
    )
    assert reply["ename"] == "KeyboardInterrupt"
    assert notebook.run(THREADS)[1] == before


def test_the_bar_ends_with_the_last_frame_and_errors_are_plain(notebook):
    clip = str(SAMPLES / "pitch.mp4")
    reply, shown = notebook.run(
        f"bodystream.run({clip!r}, poses='b.npz', people=1, seconds=0.4).frames_drawn"
    )
    assert reply["status"] == "ok", reply
    assert "12 of " in shown
    assert shown.endswith("12")
    reply, shown = notebook.run(
        f"bodystream.run({clip!r}, progress=False, poses='c.npz', people=0)"
    )
    assert (reply["ename"], reply["evalue"]) == ("ConfigError", "--people: 1 to 64, not 0")
    assert shown == ""
    reply, _ = notebook.run("bodystream.run('nothing.mp4', poses='c.npz')")
    assert (reply["ename"], reply["evalue"]) == ("SourceNotFound", "nothing.mp4: no such file")


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ("weights='empty'", "WeightsError", "weights fetch blazepose"),
        ("device='cuda'", "RuntimeError", "no CUDA device"),
    ],
)
def test_what_is_missing_is_said_in_the_error_itself(notebook, keywords, error, message):
    """A notebook shows the error's own words last."""
    (notebook.folder / "empty").mkdir(exist_ok=True)
    # Neither the cache nor a GPU of this machine is seen.
    hidden = {"BODYSTREAM_WEIGHTS": str(notebook.folder / "empty"), "CUDA_VISIBLE_DEVICES": ""}
    with kernel(notebook.folder, **hidden) as bare:
        reply, _ = bare.run(
            "import bodystream\n"
            f"bodystream.run({str(SAMPLES / 'pitch.mp4')!r}, poses='d.npz', {keywords})"
        )
    assert reply["ename"] == error
    assert message in reply["evalue"]
    assert len(reply["evalue"].splitlines()) <= 2
    assert not (notebook.folder / "d.npz").exists()
