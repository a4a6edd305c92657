"""Detect a motion's events online, from landmarks: the person, the hand and the frame.

Nothing here is about one motion; `Motion` describes it. Only the frame after the event's is needed
from the future: the event is reported with it.
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
from pipeline.core.yuv import Pixels, every
from pipeline.events.features import HANDS, Hand, Sample, sample
from pipeline.events.motion import Motion

_HISTORY = 256
"""Samples of a person, times and refusals that are remembered."""
_STEPS = 12
"""Number of last frames whose median interval counts as the source's."""
_OF_THE_PAST = ("lowest", "seconds_above", "torso_left", "turn_deg")
"""Features that say nothing about a person who has just appeared."""
_AFTER_S = 0.029
"""An event is reported with the first frame at least this much later; its window needs that one."""
_STRIDE_S = 0.65 / 30
"""A frame nearer to the last sampled one is passed over: faster cameras show the same motion in
steps that say less, and the evidence was weighed at thirty a second."""
_DOUBTED, _LEAST_SCORE = 4, 0.83
"""An event needs this mean score of the person in its last frames. In eight pitches it was 0.88
or more, in a person of a crowd whose limbs jumped to a neighbour's 0.78."""
_STEP, _SAME = 8, 12.0
"""Every n-th pixel is compared, and two pictures are the same where all but one pixel in a thousand
differ by less than this (grey levels)."""
_GAP_S = 0.15
"""A hand that was unseen for longer, and for longer than the source's frames are apart, may have
fallen at any time in between."""
_SAME_S = 0.25
"""The first showing of a picture is looked for within this; a longer still is a freeze."""
_AWAY_S = 0.5
"""A person who was out of sight for this long starts without a history."""


@dataclass(frozen=True)
class DetectedEvent:
    """One event of a motion, before its window is fitted.

    Attributes:
        motion: The motion it is an event of.
        track: The person's track.
        hand: The hand that did it.
        frame_id: The event's frame.
        pts_s: The time of that frame, seconds in the source.
        shown_id: The frame that showed it.
        shown_ns: When that frame was captured, monotonic nanoseconds.
        confidence: From 0 to 1.
        features: The features that the confidence follows from.
        crossed_s: The trigger's time, seconds in the source.
    """

    motion: Motion
    track: int
    hand: Hand
    frame_id: int
    pts_s: float
    shown_id: int
    shown_ns: int
    confidence: float
    features: Mapping[str, float]
    crossed_s: float


@dataclass(frozen=True)
class Refusal:
    """A possible event that is not reported, and the reason in one line."""

    track: int
    hand: Hand
    frame_id: int
    reason: str


class _Time(NamedTuple):
    """The time of a frame; ``repeats``: it shows the same picture as the frame before."""

    frame_id: int
    pts_s: float
    repeats: bool


class _RepeatedPictures:
    """Recognises a picture that was shown before: duplicated frames slow a clip down."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None

    def repeats(self, pixels: Pixels) -> bool:
        """Return whether a picture is the last one again, apart from coding noise."""
        # Signed, so that differences do not wrap around.
        few, last = every(pixels, _STEP).astype(np.int16), self._last
        self._last = few
        if last is None or last.shape != few.shape:
            return False
        return float(np.percentile(np.abs(few - last), 99.9)) < _SAME


class Detector:
    """Looks for one motion's events in one source (a `runtime.event_buffer.Watch`).

    ``refused`` holds the events that could not be judged.
    """

    def __init__(self, motion: Motion) -> None:
        self.motion = motion
        self.refused: deque[Refusal] = deque(maxlen=_HISTORY)
        self._pictures = _RepeatedPictures()
        self._people: dict[int, deque[Sample]] = {}
        self._rests_until: dict[int, float] = {}
        self._times: deque[_Time] = deque(maxlen=_HISTORY)
        self._scores: dict[int, deque[float]] = {}
        self._waiting: list[DetectedEvent] = []
        self._sampled_s = -math.inf

    def see(
        self, frame: Frame, people: Mapping[int, Person], reset: bool
    ) -> list[DetectedEvent]:  # fmt: skip
        """Return the events that a frame shows to have happened.

        Args:
            frame: The next frame of the source.
            people: The people in it, by track.
            reset: The picture is cut before this frame: tracks are new people.
        """
        repeats = self._pictures.repeats(frame.pixels)
        if reset:
            self._give_up("the picture is cut after it")
            self._people.clear()
            self._rests_until.clear()
            self._times.clear()
        self._scores = {
            track: deque([*self._scores.get(track, ()), person.score], maxlen=_DOUBTED)
            for track, person in people.items()
        }
        # Every frame, sampled or not: the event may be nearest to any of them.
        self._times.append(_Time(frame.id, frame.pts_s, repeats))
        if reset or frame.pts_s - self._sampled_s >= _STRIDE_S:
            self._sampled_s = frame.pts_s
            self._waiting += self._events_in(frame, people)
        due = [event for event in self._waiting if frame.pts_s - event.pts_s >= _AFTER_S]
        self._waiting = [event for event in self._waiting if event not in due]
        # An event is shown by the frame after it, not by the one that triggered it.
        return [replace(event, shown_id=frame.id, shown_ns=frame.captured_ns) for event in due]

    def _events_in(self, frame: Frame, people: Mapping[int, Person]) -> list[DetectedEvent]:
        """Return the events that this frame triggers."""
        self._people = {
            track: past
            for track, past in self._people.items()
            if track in people or frame.pts_s - past[-1].pts_s < _AWAY_S
        }
        events = []
        for track, person in people.items():
            past = self._people.setdefault(track, deque(maxlen=_HISTORY))
            past.append(sample(frame.id, frame.pts_s, person, list(past)))
            # A person does it with one hand.
            both = [self._event_of(track, list(past), hand, frame) for hand in HANDS]
            best = max((event for event in both if event), key=lambda e: e.confidence, default=None)
            if best is not None:
                self._rests_until[track] = frame.pts_s + self.motion.rest_s
                events.append(best)
        return events

    def _give_up(self, reason: str) -> None:
        """Refuse the events that wait for the frame after them."""
        for event in self._waiting:
            self.refused.append(Refusal(event.track, event.hand, event.frame_id, reason))
        self._waiting = []

    def finish(self) -> None:
        """End the source: refuse events that wait for a frame, and those that may be under way."""
        self._give_up("the source ends with it")
        for track, past in self._people.items():
            now = past[-1]
            if now.pts_s < self._rests_until.get(track, now.pts_s):
                continue
            for hand in HANDS:
                reason = self.motion.pending(list(past), hand)
                if reason is not None:
                    self.refused.append(Refusal(track, hand, now.frame_id, reason))

    def _event_of(
        self, track: int, past: list[Sample], hand: Hand, frame: Frame
    ) -> DetectedEvent | None:
        """Return the event that a person's last sample triggers, None if none or refused."""
        motion = self.motion
        now = past[-1]
        if len(past) < 2 or now.pts_s < self._rests_until.get(track, now.pts_s):
            return None
        before = past[-2]
        trigger = motion.triggered(past, hand)
        if trigger is None:
            return None
        # A peak is shown by the sample after it, so the features may end a sample earlier.
        found = motion.features(past[: trigger.samples], hand)
        short = now.pts_s - past[0].pts_s < motion.history_s
        if short:
            found |= dict.fromkeys(_OF_THE_PAST, math.nan)
        confidence = motion.confidence(found)
        # Before the refusals below: only what would have been an event is reported as refused.
        if confidence < motion.least_confidence:
            return None
        # In a crowd the landmarks of a doubtful person may be the limbs of two.
        if np.mean(self._scores[track]) < _LEAST_SCORE:
            self.refused.append(Refusal(track, hand, before.frame_id, "the person is in doubt"))
            return None
        gap_s = now.pts_s - before.pts_s
        if short or gap_s > max(_GAP_S, 2.5 * self._period_s()):
            reason = f"seen for less than {motion.history_s:g} s before"
            if not short:
                reason = f"not seen for {gap_s:.2f} s {motion.unseen}"
            self.refused.append(Refusal(track, hand, before.frame_id, reason))
            return None
        # Of a picture shown twice the first showing counts: the hand has moved since then.
        shown_s = self._first_shown(before.pts_s).pts_s
        crossed_s = shown_s + trigger.share * (now.pts_s - shown_s)
        at = self._nearest(past, crossed_s - motion.lead(found))
        return DetectedEvent(
            motion, track, hand, at.frame_id, at.pts_s, frame.id, frame.captured_ns,
            confidence, found, crossed_s,
        )  # fmt: skip

    def _nearest(self, past: list[Sample], event_s: float) -> _Time:
        """Return the picture nearest to the event, from the last sample but one on: an earlier one
        would be reported late."""
        first = self._first_shown(past[-2].pts_s)
        later = [time for time in self._times if time.pts_s > first.pts_s and not time.repeats]
        return min([first, *later], key=lambda time: abs(time.pts_s - event_s))

    def _first_shown(self, pts_s: float) -> _Time:
        """Return the first showing of the picture that is shown at a time."""
        # The history is bounded, so all of it may be later than the time.
        until = [time for time in self._times if time.pts_s <= pts_s] or [self._times[0]]
        first = until[-1]
        for time in until[::-1]:
            if first.repeats and first.pts_s > time.pts_s >= self._times[-1].pts_s - _SAME_S:
                first = time
        return first

    def _period_s(self) -> float:
        """Return how far apart the last frames are."""
        times = [time.pts_s for time in self._times][-_STEPS:]
        # The median, which a dropped frame does not change.
        return float(np.median(np.diff(times))) if len(times) > 1 else 0.0
