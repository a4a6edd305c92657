"""`bodystream.run`: each flag is a keyword; wrong ones are an error of a line; an interrupt waits
for the files."""

from __future__ import annotations

import os
import signal
import threading

import pytest

import bodystream
from app.config import ConfigError, settings
from app.run import keys_of, stop_at_interrupt


def test_every_flag_of_run_is_a_keyword_of_its_own():
    for setting in settings().values():
        if setting.flag and setting.key != "source":
            keyword = setting.flag.removeprefix("--").replace("-", "_")
            assert keys_of({keyword: 1}) == {setting.key: 1}


def test_a_setting_without_a_flag_has_its_name_in_a_profile():
    wanted = {"output.existing": "overwrite", "capture.pace": "live", "fit.iterations": 2}
    assert keys_of({"existing": "overwrite", "pace": "live", "iterations": 2}) == wanted


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"peple": 2}, "there is no setting 'peple'; did you mean people?"),
        ({}, "there is no output: add --window"),
        ({"poses": "a.npz", "people": 0}, "--people: 1 to 64, not 0"),
        ({"poses": "a.npz", "existing": "replace"}, "one of keep, overwrite, refuse"),
        ({"poses": "a.npz", "config": "nothing"}, "there is no profile 'nothing'"),
    ],
)
def test_a_wrong_keyword_is_one_line(keywords, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        bodystream.run("a.mp4", **keywords)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_the_source_is_refused(tmp_path):
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"a clip")
    with pytest.raises(bodystream.OutputError, match="the source"):
        bodystream.run(clip, video=clip, existing="overwrite")
    assert clip.read_bytes() == b"a clip"


def interrupt(stop: threading.Event) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.wait(5)


def run_steps(*steps):
    """What of the steps was done, of a block that an interrupt ends; the error that ended it."""
    done = []
    try:
        with stop_at_interrupt(threading.Event()) as stop:
            for step in steps:
                step(stop)
                done.append(step)
    except BaseException as error:
        return done, type(error)
    return done, None


def test_an_interrupt_is_raised_when_the_block_is_done():
    before = signal.getsignal(signal.SIGINT)

    def finish(stop: threading.Event) -> None:
        """Files would be completed here."""

    assert run_steps(interrupt, finish) == ([interrupt, finish], KeyboardInterrupt)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_interrupt_is_raised_at_once():
    def hang(stop: threading.Event) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)

    assert run_steps(interrupt, hang) == ([interrupt], KeyboardInterrupt)


def test_an_error_of_the_run_wins_over_the_interrupt():
    def fail(stop: threading.Event) -> None:
        raise ValueError

    assert run_steps(interrupt, fail) == ([interrupt], ValueError)


def test_a_stop_from_another_thread_is_no_error():
    asked = threading.Event()
    with stop_at_interrupt(asked) as stop:
        asked.set()
        assert stop.is_set()


def test_outside_the_main_thread_signals_are_left_alone():
    seen = []

    def work() -> None:
        with stop_at_interrupt(threading.Event()):
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_pipe_in_place_of_a_file_is_refused(tmp_path):
    pipe = tmp_path / "body.npz"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="--body .*is a pipe; give a file"):
        bodystream.run("a.mp4", body=pipe, poses=tmp_path / "p.npz")
