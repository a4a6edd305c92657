"""Short names of sources, fit for files."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from itertools import groupby
from pathlib import Path

from pipeline.capture.addresses import STANDARD_INPUT, is_address
from pipeline.core.redact import without_credentials

_LONGEST_NAME, _LONGEST_BYTES = 60, 120
"""Of a source's name, in characters and as UTF-8: a file's name has 255 bytes at most."""
_SCRIPTS = ("L", "M", "N", "So", "Sk")
"""Unicode's categories of letters, marks, numbers and pictures."""


def names_of(sources: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Return a short name for each source, fit for file names, in the source's own script.

    A clip's is its name without the suffix, an address's its host and path, without a login. No
    name comes twice, also where a file system ignores case, and none is in ``taken``.
    """
    names: list[str] = []
    used = {_folded(name) for name in taken}
    for source in sources:
        name = _name(source)
        number = 2
        while _folded(name) in used:
            # Clips in two folders may have the same name.
            name = f"{_name(source)}-{number}"
            number += 1
        used.add(_folded(name))
        names.append(name)
    return names


def _folded(name: str) -> str:
    """What two names share that some file system takes for one."""
    return unicodedata.normalize("NFC", name.casefold())


def _name(source: str) -> str:
    shown = without_credentials(source)
    if is_address(source):
        # What is hidden leaves no trace: names become file names.
        text = re.sub(r"[^/]*@|\*\*\*", "", shown.partition(":")[2])
    elif source in STANDARD_INPUT:
        text = "stdin"
    elif source.isdigit():
        text = f"camera{source}"
    elif Path(source).suffix and ":" not in source:
        text = Path(source).stem
    else:
        text = shown
    # Composed, as most systems write it: another form would be another name.
    composed = unicodedata.normalize("NFC", text)
    runs = groupby(composed, _is_plain)
    text = "".join("".join(run) if plain else "-" for plain, run in runs)
    # No leading dot or dash: a file must not be hidden, nor look like a flag.
    text = text.strip("-._")[:_LONGEST_NAME]
    text = text.encode()[:_LONGEST_BYTES].decode(errors="ignore")
    # Some systems drop a dot at the end.
    return text.rstrip("-._") or "source"


def _is_plain(character: str) -> bool:
    """Return whether every file system takes a character as it is."""
    if character.isascii():
        return character.isalnum() or character in "._-"
    return unicodedata.category(character).startswith(_SCRIPTS)
