"""Read files that the user names: whatever is wrong with one becomes one line that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.problem import one_line, printable

MOST_TEXT = 4 << 20
"""The most bytes of a text that people write, such as a profile."""


@contextmanager
def reading(
    path: str | Path, wrong: str = "", error: type[Exception] = ValueError
) -> Iterator[None]:
    """Raise what goes wrong in the block as one line that names the file.

    A file may be anything, and each library complains about it in its own way: by errors of
    decoding, of recursion, of memory, of missing keys. To the user they are all the same.

    Args:
        path: The file that is read.
        wrong: What stands between the name and the reason, such as " is no SMPL body model".
        error: The kind of the error that is raised. Where it is a kind of its own, an error of this
            kind in the block is a reason already, and is shown without ``wrong``.

    Raises:
        OSError: The file is not there or cannot be opened.
        Exception: It holds something wrong; of the kind ``error``.
    """
    named = f"{path}{wrong}"
    try:
        yield
    except Exception as problem:
        # It names the file itself.
        if isinstance(problem, OSError) and problem.filename is not None:
            raise
        if isinstance(problem, error) and error is not ValueError:
            named = str(path)
            if str(problem).startswith(named):
                raise
        raise error(f"{printable(named)}: {one_line(problem)}") from problem


def read_text(path: Path) -> str:
    """Return the text of a file that people write.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no text in UTF-8, or too long for one that people write.
    """
    with path.open("rb") as file:
        data = file.read(MOST_TEXT + 1)
    if len(data) > MOST_TEXT:
        raise ValueError(f"larger than {MOST_TEXT >> 20} MiB")
    try:
        # Editors on Windows put a mark before the text.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("not a UTF-8 text") from None
