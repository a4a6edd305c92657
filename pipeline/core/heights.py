"""What a user may say of people's heights. Light to import: the settings are made of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LOWEST_M, HIGHEST_M = 0.3, 2.6
"""The heights that may be given."""
_FORM = "ID=METRES, such as 3=1.83, or several with commas"
_PAIR = re.compile(r"\s*(\d{1,9})\s*=\s*(\d{1,3}(?:\.\d{0,9})?|\.\d{1,9})\s*", re.ASCII)


@dataclass(frozen=True)
class Heights:
    """Heights of people, from the crown to the soles, standing upright.

    Attributes:
        everyone_m: Of all who have none of their own, metres; None is not given.
        by_track_m: By track id, metres.
    """

    everyone_m: float | None = None
    by_track_m: Mapping[int, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether any is given."""
        return self.everyone_m is not None or bool(self.by_track_m)

    def of(self, track: int) -> float | None:
        """Return the height of a track in metres, None where none is given."""
        return self.by_track_m.get(track, self.everyone_m)

    def unknown(self, tracks: Iterable[int]) -> tuple[str, ...]:
        """Return a line that names the ids without a track, and the ids that there are.

        Args:
            tracks: The ids of a run.

        Returns:
            One line, or none where every id has a track.
        """
        there = sorted(set(tracks))
        missing = sorted(set(self.by_track_m) - set(there))
        if not missing:
            return ()
        found = f"the tracks are {_listed(there)}" if there else "there are no tracks"
        return (f"--heights {_listed(missing)}: no such track; {found}",)


_MOST_LISTED = 20


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_MOST_LISTED]))
    return f"{shown}, ..." if len(numbers) > _MOST_LISTED else shown


def parse_heights(text: str) -> dict[int, float]:
    """Return heights in metres by track id, of ``ID=METRES`` or several of them with commas.

    Raises:
        ValueError: With what it should be, for other text, a height outside of `LOWEST_M` to
            `HIGHEST_M`, or a track that comes twice.
    """
    out: dict[int, float] = {}
    for word in text.split(","):
        pair = _PAIR.fullmatch(word)
        if pair is None:
            raise ValueError(f"{_FORM}, not {text!r}")
        track, height_m = int(pair[1]), float(pair[2])
        if not LOWEST_M <= height_m <= HIGHEST_M:
            raise ValueError(f"{LOWEST_M:g} to {HIGHEST_M:g} metres, not {word.strip()}")
        if track in out:
            raise ValueError(f"track {track} comes twice")
        out[track] = height_m
    return out


def join_heights(texts: Iterable[str]) -> dict[int, float]:
    """Return the heights of several texts, each as for `parse_heights`, which raises the same."""
    return parse_heights(",".join(texts)) if (texts := tuple(texts)) else {}
