"""Whatever is wrong with a user's file becomes one line that names it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.problem import one_line, printable
from pipeline.core.user_file import MOST_TEXT, read_text, reading
from tests.support.faults import KINDS


class Wrong(ValueError):
    """A reader's own error."""


@pytest.mark.parametrize("kind", [ValueError, Wrong])
@pytest.mark.parametrize(
    "error", [e for e in KINDS.values() if isinstance(e, Exception)], ids=lambda e: type(e).__name__
)
def test_every_error_is_one_line_of_one_kind(error, kind):
    with pytest.raises(kind) as caught, reading("a/b.npz", " is no truth", kind):
        raise error
    assert str(caught.value).startswith("a/b.npz is no truth: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert caught.value.__cause__ is error


def test_a_reason_of_the_readers_own_is_shown_as_it_is():
    for text in ("of another clip", "a.npz: of another clip"):
        with pytest.raises(Wrong, match=r"^a\.npz: of another clip$"), reading("a.npz", "x", Wrong):
            raise Wrong(text)


def test_errors_of_the_system_stay_as_they_are(tmp_path):
    with pytest.raises(IsADirectoryError), reading(tmp_path, error=Wrong):
        tmp_path.read_bytes()


def test_what_ends_the_program_is_no_error_of_the_file():
    with pytest.raises(KeyboardInterrupt), reading("a"):
        raise KeyboardInterrupt


@given(st.text(), st.sampled_from([ValueError, KeyError, OSError, Exception]))
def test_any_message_is_a_line_that_can_be_shown(text, kind):
    line = one_line(kind(text))
    assert line
    assert len(line) <= 300
    assert line.isprintable()
    assert printable(line) == line


def test_texts_are_utf_8_with_a_mark_or_without_and_not_endless(tmp_path):
    path = tmp_path / "a.toml"
    for data, text in ((b"a = 1", "a = 1"), (b"\xef\xbb\xbfa = 1", "a = 1"), (b"", "")):
        path.write_bytes(data)
        assert read_text(path) == text
    for data in (b"\xff\xfe", b"a" * (MOST_TEXT + 1)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="not a UTF-8 text|larger than 4 MiB"):
            read_text(path)
