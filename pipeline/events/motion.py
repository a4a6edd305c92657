"""What a motion is, as its ``motion.toml`` describes it: when its event is, and its evidence.

An event is triggered by a hand: one that falls below a level it was above (`FallMotion`), or one
of whose features peaks (`PeakMotion`). Everything else is limits on features
(`pipeline.events.features`) and what each says for or against the motion, added up as log-odds.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pipeline.core.user_file import read_text, reading
from pipeline.events.features import FEATURES, Hand, Sample, features
from pipeline.events.find import MotionFiles, find_motion
from pipeline.events.measures import MeasureSet, load_measures

DEFAULT = "throw"
"""The motion that is looked for where none is named."""
_LIMITS = ("least", "most", "low", "high")
_ABOVE_0 = ("scale", "fall_s", "back_s")
_NOT_BELOW_0 = ("history_s", "rest_s", "least_confidence")
_LARGEST = 1e6


@dataclass(frozen=True)
class Condition:
    """One feature's part in the evidence.

    A value outside ``least`` to ``most`` rules the motion out. A value inside is clamped to ``low``
    to ``high``. For each ``scale`` that it then lies above ``centre``, it adds ``weight`` to the
    log-odds, and ``lead_s`` to the time between the event and the trigger.
    """

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
        """Return whether the motion can be this one; an unknown value (NaN) forbids nothing."""
        return math.isnan(value) or self.least <= value <= self.most

    def score(self, value: float) -> float:
        """Return how many scales a value is above the centre; 0 where it is unknown."""
        if math.isnan(value):
            return 0.0
        return (min(max(value, self.low), self.high) - self.centre) / self.scale


@dataclass(frozen=True)
class Wording:
    """The words of a report on a motion's events.

    ``noun`` is one event, ``plural`` several, ``moment`` its instant; ``hand`` and ``person`` are
    the hand and the person of the event, and ``title`` heads the page. An empty ``plural`` or
    ``title`` follows from the noun.
    """

    noun: str = "event"
    plural: str = ""
    moment: str = "moment"
    hand: str = "hand"
    person: str = "person"
    title: str = ""

    def __post_init__(self) -> None:
        plural = self.plural or f"{self.noun}s"
        # The class is frozen, so its defaults are filled in past it.
        object.__setattr__(self, "plural", plural)
        object.__setattr__(self, "title", self.title or capitalised(plural))


def capitalised(words: str) -> str:
    """Return words with a capital at their beginning, the rest as it is."""
    return words[:1].upper() + words[1:]


class Trigger(NamedTuple):
    """The instant of an event that samples show.

    It is ``share`` of the way from the last sample but one to the last. Conditions are judged on
    the first ``samples`` samples.
    """

    share: float
    samples: int


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A motion and its event.

    The event is ``lead_s`` before the trigger, and what the conditions add to that. Features look
    back ``back_s``, and a person who has been tracked for less than ``history_s`` is refused;
    ``above`` and ``fall_s`` are what the features about a hand's fall refer to. ``bias`` and the
    ``conditions`` give the confidence; an event has ``least_confidence``, and a person has no
    other event for ``rest_s``.

    ``schema`` names the layout of the event's JSON object, ``frame_key`` its key of the event's
    frame. ``report`` has the words of the report, ``measures`` what is measured.
    """

    name: str
    bias: float
    least_confidence: float
    history_s: float
    rest_s: float
    back_s: float
    lead_s: float
    above: float
    fall_s: float
    conditions: tuple[Condition, ...] = ()
    schema: str = "bodystream.event/1"
    frame_key: str = "event_frame"
    report: Wording = field(default_factory=Wording)
    measures: MeasureSet = field(compare=False, repr=False)

    unseen: ClassVar[str]
    """When the person was out of sight, for the reason of a refusal."""

    def triggered(self, past: Sequence[Sample], hand: Hand) -> Trigger | None:
        """Return the trigger that the last of at least two samples shows, or None."""
        raise NotImplementedError

    def pending(self, past: Sequence[Sample], hand: Hand) -> str | None:
        """Return in one line why an event that may be under way has no trigger yet, or None."""
        raise NotImplementedError

    def features(self, past: Sequence[Sample], hand: Hand) -> dict[str, float]:
        """Return `FEATURES` of a hand at the last sample."""
        return features(past, hand, above=self.above, fall_s=self.fall_s, back_s=self.back_s)

    def confidence(self, features: Mapping[str, float]) -> float:
        """Return 0 to 1; 0 where a condition forbids it."""
        if not all(part.allows(features[part.feature]) for part in self.conditions):
            return 0.0
        scores = [part.score(features[part.feature]) for part in self.conditions]
        odds = self.bias + sum(part.weight * score for part, score in zip(self.conditions, scores))
        # Clipped, so that the exponential does not overflow.
        return 1.0 / (1.0 + math.exp(-min(max(odds, -30.0), 30.0)))

    def lead(self, features: Mapping[str, float]) -> float:
        """Return how long before the trigger the event is, seconds, never after it."""
        added_s = (part.lead_s * part.score(features[part.feature]) for part in self.conditions)
        return max(self.lead_s + sum(added_s), 0.0)


@dataclass(frozen=True, kw_only=True)
class FallMotion(Motion):
    """``trigger = "fall"``: the hand's height over the shoulders, in torso lengths, falls through
    ``level`` after it was ``above`` within the last ``fall_s``."""

    level: float

    unseen = "while the hand fell"

    def triggered(self, past: Sequence[Sample], hand: Hand) -> Trigger | None:
        before, now = past[-2].hand[hand], past[-1].hand[hand]
        # Only the crossing triggers; a hand that stays low does not trigger again.
        if not before > self.level >= now:
            return None
        return Trigger((before - self.level) / max(before - now, 1e-6), len(past))

    def pending(self, past: Sequence[Sample], hand: Hand) -> str | None:
        now = past[-1]
        if now.hand[hand] < self.above:
            return None
        recent = [each for each in past if now.pts_s - each.pts_s <= self.back_s]
        found = self.features(past, hand)
        # Only these say something before the hand falls.
        limits = [
            each for each in self.conditions
            if each.feature in ("lowest", "other_hand", "hands_apart")
        ]  # fmt: skip
        raised = len(recent) > 1 and all(each.allows(found[each.feature]) for each in limits)
        return "the source ends before the hand falls" if raised else None


@dataclass(frozen=True, kw_only=True)
class PeakMotion(Motion):
    """``trigger = "peak"``: the hand's feature ``peak_of`` has its peak, of ``peak_least`` or more.
    The event is at the peak, which the sample after it shows; conditions are judged there."""

    peak_of: str
    peak_least: float
    back_s: float = 0.7
    lead_s: float = 0.0
    above: float = 0.0
    fall_s: float = 0.25

    unseen = "about the peak"

    def triggered(self, past: Sequence[Sample], hand: Hand) -> Trigger | None:
        peak = self._at(past[:-1], hand)
        # NaN fails every comparison: nothing is triggered by what is unknown.
        if len(past) < 3 or not peak >= self.peak_least:
            return None
        if not (self._at(past[:-2], hand) < peak >= self._at(past, hand)):
            return None
        return Trigger(0.0, len(past) - 1)

    def pending(self, past: Sequence[Sample], hand: Hand) -> str | None:
        if len(past) < 2 or not self._at(past, hand) >= self.peak_least:
            return None
        found = self.features(past, hand)
        if self.confidence(found) < self.least_confidence:
            return None
        return f"the source ends before the hand's {self.peak_of} has peaked"

    def _at(self, past: Sequence[Sample], hand: Hand) -> float:
        return self.features(past, hand)[self.peak_of] if past else math.nan


# Stands in while the file is checked.
_NOTHING = MeasureSet({}, lambda *_: {})
_KINDS: Mapping[str, type[Motion]] = {"fall": FallMotion, "peak": PeakMotion}


def load_motion(name: str | Path = DEFAULT) -> Motion:
    """Return a motion.

    Args:
        name: A name of `pipeline.events.find.motion_names`, a TOML file or a motion's folder. The
            code of the ``measures.py`` beside the TOML file is run; a file without one measures
            what a throw does.

    Raises:
        ValueError: In one line: there is no such motion, an unknown key or feature, a wrong type,
            a missing value, or what its ``measures.py`` lacks.
        OSError: A file cannot be read.
    """
    files = find_motion(name)
    path = files.toml
    with reading(path, ": not valid TOML"):
        table = tomllib.loads(read_text(path))
    conditions = table.pop("condition", [])
    if not isinstance(conditions, list):
        raise ValueError(f"{path}: condition: give [[condition]] tables")
    parts = tuple(_made(Condition, each, f"{path}: condition") for each in conditions)
    wording = _made(Wording, table.pop("report", {}), f"{path}: report")
    trigger = table.pop("trigger", "fall")
    if not isinstance(trigger, str) or trigger not in _KINDS:
        raise ValueError(f"{path}: trigger: one of {', '.join(_KINDS)}, not {trigger!r}")
    # Fields of a motion that are made here and that no file sets.
    for key in ("conditions", "measures"):
        if key in table:
            raise ValueError(f"{path}: {key}: there is no such setting")
    motion = _made(
        _KINDS[trigger],
        {**table, "conditions": parts, "report": wording, "measures": _NOTHING},
        str(path),
    )
    for feature in (*(part.feature for part in parts), getattr(motion, "peak_of", None)):
        if feature is not None and feature not in FEATURES:
            known = ", ".join(FEATURES)
            raise ValueError(f"{path}: there is no feature {feature!r}; there are: {known}")
    # Last: a mistake in the file is named before its measures.py is run.
    return replace(motion, measures=_measures_of(motion.name, files))


def _measures_of(name: str, files: MotionFiles) -> MeasureSet:
    if (files.folder / "measures.py").is_file():
        return load_measures(files.folder, files.package)
    # A file alone, such as a changed copy of the throw's: corrections hold for throws only.
    throw = find_motion(DEFAULT)
    return load_measures(throw.folder, throw.package, corrected=name == DEFAULT)


def _made(kind: type, table: Any, label: str) -> Any:
    """Return ``kind``, a dataclass, of a TOML table, checked."""
    if not isinstance(table, dict):
        raise ValueError(f"{label}: a table, not {table!r}")
    known = {each.name: each for each in fields(kind)}
    values = {}
    for key, value in table.items():
        if key not in known:
            raise ValueError(f"{label}: {key}: there is no such setting")
        # Annotations are text in this module, so types are compared by their names.
        values[key] = _checked(value, str(known[key].type), f"{label}: {key}", key)
    required = [each.name for each in known.values()
                if each.default is MISSING and each.default_factory is MISSING]  # fmt: skip
    if missing := [repr(name) for name in required if name not in values]:
        raise ValueError(f"{label}: missing: {', '.join(missing)}")
    return kind(**values)


def _checked(value: Any, kind: str, label: str, key: str) -> Any:
    if kind == "float":
        # To Python a bool is an int.
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{label}: a number, not {value!r}")
        endless = isinstance(value, float) and not math.isfinite(value)
        if endless and (math.isnan(value) or key not in _LIMITS):
            raise ValueError(f"{label}: a number, not {value}")
        # Before it becomes a float, for which a whole number may be too long.
        if not endless and abs(value) > _LARGEST:
            raise ValueError(f"{label}: {-_LARGEST:g} to {_LARGEST:g}, not {str(value)[:20]}")
        value = float(value)
        if value <= 0 and key in _ABOVE_0:
            raise ValueError(f"{label}: above 0, not {value:g}")
        if value < 0 and key in _NOT_BELOW_0:
            raise ValueError(f"{label}: 0 or more, not {value:g}")
    elif kind == "str" and not (isinstance(value, str) and len(value) <= 200):
        raise ValueError(f"{label}: a text, not {repr(value)[:40]}")
    elif kind == "str" and not value.isprintable():
        raise ValueError(f"{label}: a text in one line, not {value!r}")
    return value
