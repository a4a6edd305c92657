"""Who throws, with which hand, and in which frame the ball leaves it: online, from landmarks.

Nothing here is about one motion: `Motion` describes it. Causal but for the frame after the event's,
with which it is told.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pipeline.core.frame import Frame
from pipeline.core.people import Person
from pipeline.events.features import HANDS, Hand, Sample, features, sample
from pipeline.events.motion import Motion

_KEPT = 256
_STEPS = 12
_OF_THE_PAST = ("lowest", "seconds_above", "torso_left", "turn_deg")
"""Features that say nothing of who was just seen first."""
_AFTER_S = 0.029
"""An event is told once a frame is there that is so much later: the window needs it."""
_STRIDE_S = 0.65 / 30
"""Frames nearer to the last one looked at are passed over: faster cameras show the same motion in
steps that say less, and the evidence was weighed at thirty a second."""
_STEP, _SAME = 8, 12.0
"""Every so many pixels are looked at, and a picture is the same where all but one in a thousand
differ by less (grey levels)."""
_GAP_S = 0.15
"""A hand that was not seen for longer, and for longer than the source's frames are apart, may have
fallen at any time in between."""
_SAME_S = 0.25
"""A picture that is shown for longer is not looked for the first of."""
_AWAY_S = 0.5
"""Who was out of sight for so long is looked at anew."""


@dataclass(frozen=True)
class Release:
    """An event: the person's ``track`` and ``hand``, the frame's id and time, ``told_id`` the frame
    that showed it, captured at ``told_ns`` (monotonic), the ``confidence`` from 0 to 1 and the
    features it follows from, and when the hand passed the level (``crossed_s``)."""

    motion: str
    track: int
    hand: Hand
    frame_id: int
    pts_s: float
    told_id: int
    told_ns: int
    confidence: float
    features: Mapping[str, float]
    crossed_s: float


@dataclass(frozen=True)
class Refusal:
    """What may have been an event and was not told, and why, in a line."""

    track: int
    hand: Hand
    frame_id: int
    reason: str


class _Time(NamedTuple):
    """When a frame is; ``again``: its picture is the last one over again."""

    frame_id: int
    pts_s: float
    again: bool


class _Shown:
    """Tells a picture that was shown before: duplicated frames slow a clip down."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def again(self, image: np.ndarray) -> bool:
        """Whether an RGB picture is the last one over again, but for what encoding does to it."""
        few, last = image[::_STEP, ::_STEP].astype(np.int16), self._last
        self._last = few
        if last is None or last.shape != few.shape:
            return False
        return float(np.percentile(np.abs(few - last), 99.9)) < _SAME


class Detector:
    """Looks for one motion's events in one source (a `runtime.video_stream.Watch`). ``refused``
    are those that could not be judged."""

    def __init__(self, motion: Motion) -> None:
        self.motion = motion
        self.refused: deque[Refusal] = deque(maxlen=_KEPT)
        self._shown = _Shown()
        self._people: dict[int, deque[Sample]] = {}
        self._rests_until: dict[int, float] = {}
        self._times: deque[_Time] = deque(maxlen=_KEPT)
        self._waiting: list[Release] = []
        self._looked_s = -math.inf

    def see(self, frame: Frame, people: Mapping[int, Person], reset: bool) -> list[Release]:
        """The events that ``people``, by track, in this frame show to have happened. After a
        ``reset`` nobody is who they were before."""
        again = self._shown.again(frame.image)
        if reset:
            self._give_up("the picture is cut after it")
            self._people.clear()
            self._rests_until.clear()
            self._times.clear()
        self._times.append(_Time(frame.id, frame.pts_s, again))
        if reset or frame.pts_s - self._looked_s >= _STRIDE_S:
            self._looked_s = frame.pts_s
            self._waiting += self._found(frame, people)
        due = [each for each in self._waiting if frame.pts_s - each.pts_s >= _AFTER_S]
        self._waiting = [each for each in self._waiting if each not in due]
        return [replace(each, told_id=frame.id, told_ns=frame.captured_ns) for each in due]

    def _found(self, frame: Frame, people: Mapping[int, Person]) -> list[Release]:
        """The events whose end this frame shows."""
        self._people = {
            track: past
            for track, past in self._people.items()
            if track in people or frame.pts_s - past[-1].pts_s < _AWAY_S
        }
        found = []
        for track, person in people.items():
            past = self._people.setdefault(track, deque(maxlen=_KEPT))
            past.append(sample(frame.id, frame.pts_s, person, list(past)))
            # One person throws with one hand.
            both = [self._look(track, list(past), hand, frame) for hand in HANDS]
            best = max((each for each in both if each), key=lambda e: e.confidence, default=None)
            if best is not None:
                self._rests_until[track] = frame.pts_s + self.motion.rest_s
                found.append(best)
        return found

    def _give_up(self, reason: str) -> None:
        """Refuse what waits for the frame after it."""
        for each in self._waiting:
            self.refused.append(Refusal(each.track, each.hand, each.frame_id, reason))
        self._waiting = []

    def finish(self) -> None:
        """The source has ended: what waits for a frame, and who holds a hand up as before a fall,
        is refused."""
        self._give_up("the source ends with it")
        for track, past in self._people.items():
            now = past[-1]
            rests = now.pts_s < self._rests_until.get(track, now.pts_s)
            for hand in HANDS:
                if not rests and self._may_fall(list(past), hand):
                    reason = "the source ends before the hand falls"
                    self.refused.append(Refusal(track, hand, now.frame_id, reason))

    def _look(self, track: int, past: list[Sample], hand: Hand, frame: Frame) -> Release | None:
        motion = self.motion
        now = past[-1]
        if len(past) < 2 or now.pts_s < self._rests_until.get(track, now.pts_s):
            return None
        before = past[-2]
        if not before.hand[hand] > motion.level >= now.hand[hand]:
            return None
        found = self._features(past, hand)
        short = now.pts_s - past[0].pts_s < motion.history_s
        if short:
            found |= dict.fromkeys(_OF_THE_PAST, math.nan)
        confidence = motion.confidence(found)
        if confidence < motion.least_confidence:
            return None
        gap_s = now.pts_s - before.pts_s
        if short or gap_s > max(_GAP_S, 2.5 * self._period_s()):
            reason = f"seen for less than {motion.history_s:g} s before"
            if not short:
                reason = f"not seen for {gap_s:.2f} s while the hand fell"
            self.refused.append(Refusal(track, hand, before.frame_id, reason))
            return None
        crossed_s = self._crossing(past, hand)
        at = self._nearest(past, crossed_s - motion.lead(found))
        return Release(
            motion.name, track, hand, at.frame_id, at.pts_s, frame.id, frame.captured_ns,
            confidence, found, crossed_s,
        )  # fmt: skip

    def _crossing(self, past: list[Sample], hand: Hand) -> float:
        """When between the last two samples' pictures the hand passed the level."""
        before, now = past[-2:]
        drop = before.hand[hand] - now.hand[hand]
        share = (before.hand[hand] - self.motion.level) / max(drop, 1e-6)
        shown_s = self._first_shown(before.pts_s).pts_s
        return shown_s + share * (now.pts_s - shown_s)

    def _nearest(self, past: list[Sample], event_s: float) -> _Time:
        """The picture nearest to the event, from the last one before the fall on: an earlier one
        would be told late."""
        first = self._first_shown(past[-2].pts_s)
        later = [each for each in self._times if each.pts_s > first.pts_s and not each.again]
        return min([first, *later], key=lambda each: abs(each.pts_s - event_s))

    def _first_shown(self, pts_s: float) -> _Time:
        """Of a picture that is shown several times, the first."""
        until = [each for each in self._times if each.pts_s <= pts_s] or [self._times[0]]
        first = until[-1]
        for each in until[::-1]:
            if first.again and first.pts_s > each.pts_s >= self._times[-1].pts_s - _SAME_S:
                first = each
        return first

    def _period_s(self) -> float:
        """How far apart the last frames are."""
        times = [each.pts_s for each in self._times][-_STEPS:]
        return float(np.median(np.diff(times))) if len(times) > 1 else 0.0

    def _features(self, past: list[Sample], hand: Hand) -> dict[str, float]:
        motion = self.motion
        return features(
            past, hand, above=motion.above, fall_s=motion.fall_s, back_s=motion.back_s
        )  # fmt: skip

    def _may_fall(self, past: list[Sample], hand: Hand) -> bool:
        """Whether the hand came up and is up, as before an event."""
        now = past[-1]
        if now.hand[hand] < self.motion.above:
            return False
        low = [each for each in past if now.pts_s - each.pts_s <= self.motion.back_s]
        found = self._features(past, hand)
        limits = [
            each for each in self.motion.conditions
            if each.feature in ("lowest", "other_hand", "hands_apart")
        ]  # fmt: skip
        return len(low) > 1 and all(each.allows(found[each.feature]) for each in limits)
