"""All frames' pairs in one place, and what a figure is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.evaluate.compare import Pair, Tally
from app.evaluate.truth import Truth

NAN = float("nan")
_VALUES = ("mesh", "perceived", "reference")


@dataclass(frozen=True)
class Row:
    """One figure: of the fitted ``mesh``, of what was ``perceived``, of the ``reference`` itself;
    NaN where there is none. ``ratio_to`` says what the mesh's is divided by in ``ratio``."""

    key: str
    label: str
    unit: str
    mesh: float = NAN
    perceived: float = NAN
    reference: float = NAN
    ratio_to: Literal["", "perceived", "reference"] = ""

    @property
    def ratio(self) -> float:
        base = {"": NAN, "perceived": self.perceived, "reference": self.reference}[self.ratio_to]
        return self.mesh / base if base and np.isfinite(base) else NAN


def row_of(
    key: str,
    label: str,
    unit: str,
    values: Iterable[float],
    ratio_to: Literal["", "perceived", "reference"] = "",
) -> Row:
    """A row of the mesh's, the perceived's and the reference's values, as many as there are."""
    return Row(key, label, unit, **dict(zip(_VALUES, values)), ratio_to=ratio_to)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What was compared: ``truth``'s ``rows`` whose frames were played and whose people count, the
    pairs on any rows, and the frames' tallies."""

    truth: Truth
    rows: np.ndarray
    pairs: Sequence[Pair]
    tallies: Sequence[Tally]

    @classmethod
    def of(cls, truth: Truth, pairs: Sequence[Pair], tallies: Sequence[Tally]) -> Outcome:
        played = np.isin(truth.frame, [tally.frame for tally in tallies])
        rows = np.flatnonzero(played & truth.counted)
        counted = set(rows.tolist())
        return cls(truth, rows, [pair for pair in pairs if pair.row in counted], tallies)

    def stack(self, name: str) -> np.ndarray:
        """A field of all pairs as one array."""
        return np.array([getattr(pair, name) for pair in self.pairs])

    @property
    def paired(self) -> np.ndarray:
        """The truth's rows with a body on them, as the pairs' order is."""
        return np.array([pair.row for pair in self.pairs], np.int64)
