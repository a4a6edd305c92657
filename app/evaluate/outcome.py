"""The compared frames of a clip, and the `Row` that holds one figure."""

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
    """One figure.

    Attributes:
        key: Its key in JSON, such as "mpjpe_mm".
        label: Its name in tables; indented for a part of the figure above it.
        unit: The unit of its values.
        mesh: The value of the fitted mesh; NaN if there is none.
        perceived: The value of what was perceived, before the fit; NaN if there is none.
        reference: The value of the truth itself; NaN if there is none.
        ratio_to: Which value the mesh's is divided by in ``ratio``; "" for no ratio.
    """

    key: str
    label: str
    unit: str
    mesh: float = NAN
    perceived: float = NAN
    reference: float = NAN
    ratio_to: Literal["", "perceived", "reference"] = ""

    @property
    def ratio(self) -> float:
        """The mesh's value divided by the one that ``ratio_to`` names; NaN if there is none."""
        base = {"": NAN, "perceived": self.perceived, "reference": self.reference}[self.ratio_to]
        # No ratio to zero, which some figures of the truth are.
        return self.mesh / base if base and np.isfinite(base) else NAN


def row_of(
    key: str,
    label: str,
    unit: str,
    values: Iterable[float],
    ratio_to: Literal["", "perceived", "reference"] = "",
) -> Row:
    """Return a row with the values of the mesh, the perceived and the reference; the last ones may
    be left out."""
    return Row(key, label, unit, **dict(zip(_VALUES, values)), ratio_to=ratio_to)


@dataclass(frozen=True, eq=False)
class Outcome:
    """All that was compared in a clip.

    Attributes:
        truth: The truth of the clip.
        rows: The rows of the truth whose frames were run and whose people must be found.
        pairs: The matched pairs on these rows.
        tallies: The counts of every frame.
        without_meshes: Whether the bodies have no surfaces, as those of a recording may not.
    """

    truth: Truth
    rows: np.ndarray
    pairs: Sequence[Pair]
    tallies: Sequence[Tally]
    without_meshes: bool = False

    @classmethod
    def of(
        cls,
        truth: Truth,
        pairs: Sequence[Pair],
        tallies: Sequence[Tally],
        without_meshes: bool = False,
    ) -> Outcome:
        played = np.isin(truth.frame, [tally.frame for tally in tallies])
        rows = np.flatnonzero(played & truth.counted)
        # People who are hardly visible may be matched, but their errors do not count.
        counted = set(rows.tolist())
        own = [pair for pair in pairs if pair.row in counted]
        return cls(truth, rows, own, tallies, without_meshes)

    def stack(self, name: str) -> np.ndarray:
        """Return a field of all pairs as one array (K, ...)."""
        return np.array([getattr(pair, name) for pair in self.pairs])

    @property
    def paired(self) -> np.ndarray:
        """The matched rows of the truth (K,), in the order of the pairs."""
        return np.array([pair.row for pair in self.pairs], np.int64)
