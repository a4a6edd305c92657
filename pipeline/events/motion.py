"""What a motion is, as a configuration describes it: conditions, evidence, and when its event is.

A motion's event is a hand that falls below a level it was above: the crossing is found in time, the
event lies ``lead_s`` before it. Everything else is limits on features (`pipeline.events.features`)
and what each says for or against the motion, added up as log-odds.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.events.features import FEATURES

_LIMITS = ("least", "most", "low", "high")
_ABOVE_0 = ("scale", "fall_s", "back_s")


@dataclass(frozen=True)
class Condition:
    """One feature's part: outside ``least`` to ``most`` the motion is another one; inside, the
    value, held within ``low`` to ``high``, adds for each ``scale`` above ``centre`` ``weight`` to
    the log-odds and ``lead_s`` to how long before the crossing the event is."""

    feature: str
    least: float = -math.inf
    most: float = math.inf
    low: float = -math.inf
    high: float = math.inf
    centre: float = 0.0
    scale: float = 1.0
    weight: float = 0.0
    lead_s: float = 0.0

    def allows(self, value: float) -> bool:
        """Whether the motion can be this one; a value that is not known (NaN) forbids nothing."""
        return math.isnan(value) or self.least <= value <= self.most

    def score(self, value: float) -> float:
        """How many scales above the centre; 0 where the value is not known."""
        if math.isnan(value):
            return 0.0
        return (min(max(value, self.low), self.high) - self.centre) / self.scale


@dataclass(frozen=True)
class Motion:
    """A motion and its event.

    The hand's height over the shoulders, in torso lengths, falls through ``level`` after it was
    ``above`` within the last ``fall_s``; the event is ``lead_s`` before, and what the conditions
    add to that. Features look back ``back_s``, and who was not seen for ``history_s`` is refused.
    ``bias`` and the ``conditions`` give the confidence; an event has ``least_confidence``, and a
    person rests ``rest_s`` after one.
    """

    name: str
    level: float
    above: float
    fall_s: float
    back_s: float
    lead_s: float
    history_s: float
    rest_s: float
    bias: float
    least_confidence: float
    conditions: tuple[Condition, ...]

    def confidence(self, features: Mapping[str, float]) -> float:
        """0 to 1; 0 where a condition forbids it."""
        if not all(each.allows(features[each.feature]) for each in self.conditions):
            return 0.0
        scores = [each.score(features[each.feature]) for each in self.conditions]
        odds = self.bias + sum(each.weight * score for each, score in zip(self.conditions, scores))
        return 1.0 / (1.0 + math.exp(-min(max(odds, -30.0), 30.0)))

    def lead(self, features: Mapping[str, float]) -> float:
        """How long before the crossing the event is, seconds, never after it."""
        added_s = (each.lead_s * each.score(features[each.feature]) for each in self.conditions)
        return max(self.lead_s + sum(added_s), 0.0)


MOTIONS = Path(__file__).with_name("motions")
"""The motions shipped: a folder each."""


def load_motion(name: str | Path = "throw") -> Motion:
    """A motion of pipeline/events/motions/ by name, or a TOML file's. Raises ValueError, in one
    line, for an unknown key or feature, a wrong type or a missing value; OSError where
    it cannot be read."""
    path = Path(name)
    if path.suffix != ".toml":
        path = MOTIONS / name / "motion.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from None
    conditions = table.pop("condition", [])
    if not isinstance(conditions, list):
        raise ValueError(f"{path}: condition: give [[condition]] tables")
    parts = tuple(_made(Condition, each, f"{path}: condition") for each in conditions)
    for part in parts:
        if part.feature not in FEATURES:
            known = ", ".join(FEATURES)
            raise ValueError(f"{path}: there is no feature {part.feature!r}; there are: {known}")
    return _made(Motion, {**table, "conditions": parts}, str(path))


def _made(kind: type, table: Any, label: str) -> Any:
    if not isinstance(table, dict):
        raise ValueError(f"{label}: a table, not {table!r}")
    hints = {field.name: str(field.type) for field in fields(kind)}
    values = {}
    for key, value in table.items():
        if key not in hints:
            raise ValueError(f"{label}: {key}: there is no such setting")
        if hints[key] == "float":
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{label}: {key}: a number, not {value!r}")
            value = float(value)
            if math.isnan(value) or (math.isinf(value) and key not in _LIMITS):
                raise ValueError(f"{label}: {key}: a number, not {value}")
            if value <= 0 and key in _ABOVE_0:
                raise ValueError(f"{label}: {key}: above 0, not {value:g}")
        elif hints[key] == "str" and not isinstance(value, str):
            raise ValueError(f"{label}: {key}: a text, not {value!r}")
        values[key] = value
    try:
        return kind(**values)
    except TypeError as error:
        missing = str(error).rpartition("argument")[2].strip("s: ")
        raise ValueError(f"{label}: missing: {missing}") from None
