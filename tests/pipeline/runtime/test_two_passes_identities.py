"""What a first pass keeps for the second one."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.body.load import load_body
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Bodies
from pipeline.runtime.estimator import DetectedWindow
from pipeline.runtime.two_passes import FirstPass
from tests.support.fits import K, windows_of_people


class Kept:
    """A store that remembers what it is given."""

    def __init__(self):
        self.cuts, self.looks = [], {}

    def add(self, frame, people, bodies, intrinsics, size, zoom, looks):
        self.looks[frame] = looks


class Fitting:
    """An estimator whose fit gives no bodies."""

    body = device = None

    def intrinsics(self, frame):
        return K

    def fit(self, detected, states):
        return [[(frame, Bodies.none(4)) for frame in one.window.frames] for one in detected]


@pytest.fixture
def first_pass():
    """A first pass over 24 frames of a person; frame 12 begins another scene."""
    random = np.random.default_rng(0)
    picture = random.integers(0, 255, (720, 1280, 3), np.uint8)
    store, state = Kept(), SimpleNamespace(depth=SimpleNamespace(place=lambda people: people))
    first = FirstPass(Fitting(), store)
    for number, people in enumerate(windows_of_people(load_body(), 6)):
        frames = tuple(Frame(k, "", 0, k / 32, picture) for k in range(4 * number, 4 * number + 4))
        window = Window(frames, 0, reset=number in (0, 3))
        first.fit([DetectedWindow(window, tuple(people))], [state])
    return first, store


def test_people_are_described_five_times_a_second(first_pass):
    _, store = first_pass
    assert [frame for frame, looks in store.looks.items() if looks] == [0, 7, 14, 21]
    assert set(store.looks[7]) == {1}


def test_cuts_and_the_interval_are_kept(first_pass):
    first, store = first_pass
    assert store.cuts == [0, 12]
    assert first.interval_s == pytest.approx(1 / 32)
