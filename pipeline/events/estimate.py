"""From fitted measures to estimates with intervals: corrected by what fits get wrong.

A fit of a blurred arm errs by tens of degrees, and in the same way every time. The errors are
learned from rendered events (`tools.train_events`): a ridge regression from a description of the
four fitted frames to the truth at the event, whose leave-one-out errors give the intervals. They
hold for motions and views as the renders have them. ``docs/results/events.md`` says how good they
are on renders that trained nothing, and how much of a value is observed and how much is the mean of
the renders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.npz import read_npz
from pipeline.core.user_file import reading

FRAMES = 4
"""Frames of an event that is measured."""
LEARNED_STEP_S = 0.06
"""Longest step between frames for which corrections are used. They were learned at 30 frames a
second; 20 a second still pass."""


@dataclass(frozen=True)
class Estimate:
    """A measure at the event; NaN where unknown.

    Attributes:
        value: The corrected value.
        low: The lower end of its 95 % interval.
        high: The upper end.
        fitted: What the fitted body itself shows.
    """

    value: float
    low: float
    high: float
    fitted: float


@dataclass(frozen=True, eq=False)
class Estimator:
    """Learned corrections of M measures from descriptions of F numbers.

    Attributes:
        names: The M measures' names.
        mean: (F,) the mean description; with ``spread`` it makes descriptions unitless.
        spread: (F,) the standard deviation of each number.
        weights: (F, M) of the regression.
        offset: (M,) of the regression.
        half: (M,) half the width of each 95 % interval.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    half: np.ndarray

    @classmethod
    def load(cls, path: Path) -> Estimator:
        """Return the corrections that `save` wrote to ``path``.

        Raises:
            OSError: It cannot be read.
            ValueError: It holds something else.
        """
        with reading(path, ": not learned corrections"):
            arrays = read_npz(path)
            names = tuple(str(name) for name in arrays["names"].ravel())
            parts = {part: arrays[part] for part in _PARTS}
            features = parts["mean"].size
            shapes: dict[str, tuple[int, ...]] = {
                "mean": (features,), "spread": (features,), "weights": (features, len(names)),
            }  # fmt: skip
            for part, array in parts.items():
                shape = shapes.get(part, (len(names),))
                if array.shape != shape or array.dtype.kind not in "iuf":
                    raise ValueError(f"{part} has shape {array.shape}, not {shape}")
                if not np.isfinite(array).all():
                    raise ValueError(f"{part} holds values that are not finite numbers")
            return cls(names, **parts)

    def correct(
        self, description: np.ndarray, fitted: Mapping[str, float], least: Mapping[str, float]
    ) -> dict[str, Estimate]:
        """Return an event's estimates by name.

        Args:
            description: (F,) as the motion's ``describe`` makes it of four fitted frames.
            fitted: What the fitted body shows, by name.
            least: The least possible value of each measure.
        """
        unit = (description - self.mean) / self.spread
        values = unit @ self.weights + self.offset
        nan = float("nan")
        # A measure without a learned correction has its fitted value only.
        out = {name: Estimate(nan, nan, nan, value) for name, value in fitted.items()}
        for name, value, half in zip(self.names, values, self.half):
            # Neither a value nor an end of an interval lies below what is possible.
            at, low, high = (
                max(float(each), least[name]) for each in (value, value - half, value + half)
            )
            out[name] = Estimate(at, low, high, fitted[name])
        return out


_PARTS = ("mean", "spread", "weights", "offset", "half")


def learn(
    descriptions: np.ndarray, truth: Mapping[str, np.ndarray], ridges: Sequence[float]
) -> tuple[Estimator, dict[str, np.ndarray]]:
    """Learn corrections; each measure has the ridge with the least leave-one-out error.

    Args:
        descriptions: (N, F), an event a row.
        truth: (N,) of each measure by name; NaN: unknown.
        ridges: The ridges that are tried.

    Returns:
        The estimator, and its leave-one-out predictions (N,) by name.
    """
    # A number that never changes has no spread to divide by.
    mean, spread = descriptions.mean(0), np.maximum(descriptions.std(0), 1e-6)
    unit = (descriptions - mean) / spread
    weights, offsets, halves = [], [], []
    left_out: dict[str, np.ndarray] = {}
    for name, values in truth.items():
        known = ~np.isnan(values)
        x, y = unit[known], values[known]
        tries = [(_left_out(x, y, ridge), ridge) for ridge in ridges]
        predicted, ridge = min(tries, key=lambda each: float(np.abs(each[0] - y).mean()))
        w, b = _ridge(x, y, ridge)
        errors = np.sort(np.abs(predicted - y))
        # The conformal quantile (Vovk et al., Algorithmic Learning in a Random World, 2005).
        halves.append(errors[min(int(np.ceil(0.95 * (len(errors) + 1))), len(errors)) - 1])
        weights.append(w)
        offsets.append(b)
        # Events without a known truth stay NaN, so that rows keep their places.
        filled = np.full(len(values), np.nan)
        filled[known] = predicted
        left_out[name] = filled
    names = tuple(truth)
    made = Estimator(
        names, mean, spread, np.stack(weights, 1), np.array(offsets), np.array(halves)
    )  # fmt: skip
    return made, left_out


def save(estimator: Estimator, path: Path) -> None:
    """Write what `Estimator.load` reads."""
    parts = {part: getattr(estimator, part).astype(np.float32) for part in _PARTS}
    np.savez_compressed(path, names=np.array(estimator.names), **parts)


def _ridge(x: np.ndarray, y: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    gram = x @ x.T + ridge * np.eye(len(x))
    return x.T @ np.linalg.solve(gram, y - y.mean()), float(y.mean())


def _left_out(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Each row's prediction by a regression of the others, in closed form."""
    n = len(x)
    # The regression has an offset; centring takes it out of the kernel.
    centred = np.eye(n) - 1.0 / n
    kernel = centred @ (x @ x.T) @ centred
    hat = kernel @ np.linalg.inv(kernel + ridge * np.eye(n)) + 1.0 / n
    fitted = hat @ y
    return y - (y - fitted) / np.maximum(1 - np.diag(hat), 1e-6)
