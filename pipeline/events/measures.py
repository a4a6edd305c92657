"""What a motion measures: the ``measures.py`` of its folder, checked, with learned corrections.

A folder's ``measures.py`` defines

- ``MEASURES``: a mapping of names to `Measure`;
- ``measure_event(joints_m, times_s, hand, key)``: the values by name, of fitted joints (T, 24, 3)
  in metres at times (T,) in seconds, for the event's ``hand`` in frame ``key``. T is 4 for an event
  and 1 or 2 for a point of a curve over time; NaN says that a value is unknown.

and, where corrections were learned (``estimator.npz``),

- ``describe(joints_m, times_s, hand)``: the description (F,) that corrections are computed from;

and, if some values mean nothing beside others,

- ``unmeasurable(values)``: the names of measures to leave out, given the values of all.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np

from pipeline.events.estimate import LEARNED_STEP_S, Estimate, Estimator
from pipeline.events.features import Hand


@dataclass(frozen=True)
class Measure:
    """What a number is: its ``unit``, its ``definition`` in a line, with the source, and the
    ``least`` value that is possible."""

    unit: str
    definition: str
    least: float = -math.inf

    @property
    def digits(self) -> int:
        """How many decimals are reported."""
        return 1 if self.unit == "deg" else 2


@dataclass(frozen=True, eq=False)
class MeasureSet:
    """All that a motion measures: ``definitions`` by name, the functions of its ``measures.py``,
    and the ``estimator`` of learned corrections, None without them."""

    definitions: Mapping[str, Measure]
    measure_event: Callable[[np.ndarray, Sequence[float], Hand, int], dict[str, float]]
    describe: Callable[[np.ndarray, Sequence[float], Hand], np.ndarray] | None = None
    unmeasurable: Callable[[Mapping[str, float]], Collection[str]] | None = None
    estimator: Estimator | None = None

    def fitted(
        self, joints_m: np.ndarray, times_s: Sequence[float], hand: Hand, key: int
    ) -> dict[str, float]:
        """Return what the fitted body itself shows, by name; arguments as for ``measure_event``.

        Raises:
            ValueError: The function returns other names than ``MEASURES`` has.
        """
        values = self.measure_event(joints_m, times_s, hand, key)
        # measures.py may be the user's own code, so what it returns is checked.
        if values.keys() != self.definitions.keys():
            differ = ", ".join(sorted(values.keys() ^ self.definitions.keys()))
            raise ValueError(f"measure_event() and MEASURES differ in: {differ}")
        return values

    def estimates(
        self, joints_m: np.ndarray, times_s: Sequence[float], hand: Hand, key: int
    ) -> dict[str, Estimate]:
        """Return an event's measures by name; NaN stands for what is unknown.

        Without learned corrections only ``fitted`` is known, and likewise where frames are further
        apart than those that the corrections were learned from.

        Args:
            joints_m: (4, 24, 3) of the frames [t-2, t-1, t, t+1], metres in a level camera's axes.
            times_s: (4,) seconds.
            hand: The event's hand.
            key: The event's index among the frames.
        """
        fitted = self.fitted(joints_m, times_s, hand, key)
        if self.estimator is not None and max(np.diff(times_s)) <= LEARNED_STEP_S:
            assert self.describe is not None, "checked when loaded"
            least = {name: each.least for name, each in self.definitions.items()}
            found = self.estimator.correct(self.describe(joints_m, times_s, hand), fitted, least)
            values = {name: each.value for name, each in found.items()}
        else:
            nan = math.nan
            found = {name: Estimate(nan, nan, nan, value) for name, value in fitted.items()}
            values = fitted
        if self.unmeasurable is not None:
            # Judged by corrected values where there are any: fitted ones err by tens of degrees.
            for name in self.unmeasurable(values):
                found[name] = Estimate(math.nan, math.nan, math.nan, math.nan)
        return found


def load_measures(folder: Path, package: str = "", corrected: bool = True) -> MeasureSet:
    """Return what the ``measures.py`` of a motion's folder defines. Its code is run.

    Args:
        folder: The motion's folder.
        package: The folder's dotted name if it is an importable package, so that ``measures.py``
            may use relative imports; empty: the file is loaded by its path.
        corrected: Whether to use the folder's ``estimator.npz`` if there is one.

    Raises:
        ValueError: In one line: the file cannot be run or lacks something.
    """
    path = folder / "measures.py"
    try:
        module = import_module(f"{package}.measures") if package else _run(path)
    # The file is a program of its own and may raise anything.
    except Exception as error:
        words = " ".join(str(error).split())
        raise ValueError(f"{path}: {type(error).__name__}: {words}") from error
    measures = getattr(module, "MEASURES", None)
    if not isinstance(measures, Mapping) or not measures:
        raise ValueError(f"{path}: MEASURES: a mapping of names to Measure")
    for name, each in measures.items():
        if not (isinstance(name, str) and isinstance(each, Measure)):
            raise ValueError(f"{path}: MEASURES: {name!r}: a Measure by its name, not {each!r}")
    functions = {
        name: function
        for name in ("measure_event", "describe", "unmeasurable")
        if callable(function := getattr(module, name, None))
    }
    if "measure_event" not in functions:
        raise ValueError(f"{path}: there is no function measure_event")
    estimator = None
    if corrected and (folder / "estimator.npz").is_file():
        estimator = _corrections(folder / "estimator.npz", measures)
        if "describe" not in functions:
            raise ValueError(f"{path}: there is no function describe, which estimator.npz needs")
    return MeasureSet(measures, **functions, estimator=estimator)


def _corrections(path: Path, measures: Mapping[str, Measure]) -> Estimator:
    estimator = Estimator.load(path)
    if unknown := ", ".join(sorted(set(estimator.names) - set(measures))):
        raise ValueError(f"{path}: not in MEASURES: {unknown}")
    return estimator


def _run(path: Path) -> ModuleType:
    """Run a file as a module of a name of its own, and return it."""
    # A name of its own, so that the measures of two motions do not replace each other.
    name = "bodystream_motion_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    spec = spec_from_file_location(name, path)
    assert spec is not None, "a .py file has a loader"
    assert spec.loader is not None, "a .py file has a loader"
    module = module_from_spec(spec)
    # Dataclasses look their module up there while it runs.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
