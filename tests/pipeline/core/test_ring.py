"""Rings: nothing is lost unless the policy says so, nothing comes twice, order holds, all wake."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.core.ring import Closed, Policy, Ring

NOW = 0.0
JOIN_S = 5.0


class RingModel(RuleBasedStateMachine):
    """The ring beside a plain deque, one step at a time."""

    @initialize(capacity=st.integers(1, 5), policy=st.sampled_from(Policy))
    def begin(self, capacity: int, policy: Policy) -> None:
        self.reported: list[tuple[int, str]] = []
        self.ring: Ring[int] = Ring(
            capacity, policy, lambda item, cause: self.reported.append((item, cause))
        )
        self.inside: deque[int] = deque()
        self.taken: list[int] = []
        self.dropped: list[tuple[int, str]] = []
        self.closed = False
        self.count = 0

    @rule()
    def put(self) -> None:
        full = len(self.inside) == self.ring.capacity
        if self.closed:
            with pytest.raises(Closed):
                self.ring.put(self.count, NOW)
        elif full and self.ring.policy is Policy.WAIT:
            with pytest.raises(TimeoutError):
                self.ring.put(self.count, NOW)
        else:
            self.ring.put(self.count, NOW)
            if full:
                self.dropped.append((self.inside.popleft(), "ring full"))
            self.inside.append(self.count)
            self.count += 1

    @rule()
    def get(self) -> None:
        if self.inside:
            assert self.ring.get(NOW) == self.inside[0]
            self.taken.append(self.inside.popleft())
        else:
            with pytest.raises(Closed if self.closed else TimeoutError):
                self.ring.get(NOW)

    @rule(most=st.integers(1, 7))
    def get_batch(self, most: int) -> None:
        if self.inside:
            batch = [self.inside.popleft() for _ in range(min(most, len(self.inside)))]
            assert self.ring.get_batch(most, NOW) == batch
            self.taken += batch
        else:
            with pytest.raises(Closed if self.closed else TimeoutError):
                self.ring.get_batch(most, NOW)

    @precondition(lambda self: self.count > 6)
    @rule()
    def close(self) -> None:
        self.ring.close()
        self.closed = True

    @precondition(lambda self: self.count > 6)
    @rule()
    def abort(self) -> None:
        self.ring.abort()
        self.closed = True
        self.dropped += [(item, "stopped") for item in self.inside]
        self.inside.clear()

    @invariant()
    def they_agree(self) -> None:
        ring = self.ring
        assert len(ring) == len(self.inside) <= ring.capacity
        assert ring.closed == self.closed
        assert self.reported == self.dropped
        assert ring.put_count == self.count
        assert ring.got_count == len(self.taken)
        assert ring.dropped_count == len(self.dropped)
        assert ring.put_count == ring.got_count + ring.dropped_count + len(ring)
        assert self.taken == sorted(set(self.taken))


TestRingModel = RingModel.TestCase
TestRingModel.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def run(*steps: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=step, daemon=True) for step in steps]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(JOIN_S)
    assert not any(thread.is_alive() for thread in threads), "a thread sleeps for ever"


@settings(max_examples=25, deadline=None)
@given(
    policy=st.sampled_from(Policy),
    capacity=st.integers(1, 4),
    producers=st.integers(1, 3),
    consumers=st.integers(1, 3),
    each=st.integers(0, 120),
    batch=st.integers(1, 5),
    pauses=st.lists(st.integers(0, 200), min_size=6, max_size=6),
)
def test_threads(
    policy: Policy,
    capacity: int,
    producers: int,
    consumers: int,
    each: int,
    batch: int,
    pauses: list[int],
) -> None:
    """Any number of threads at any pace: every item is taken or dropped once, in order."""
    dropped: list[tuple[int, int]] = []
    ring: Ring[tuple[int, int]] = Ring(capacity, policy, lambda item, _: dropped.append(item))
    taken: list[list[tuple[int, int]]] = [[] for _ in range(consumers)]

    def produce(who: int) -> None:
        for number in range(each):
            ring.put((who, number))
            if number % 7 == 0:
                time.sleep(pauses[who] / 1e6)

    def consume(who: int) -> None:
        while True:
            try:
                taken[who] += ring.get_batch(batch) if who else [ring.get()]
            except Closed:
                return
            if len(taken[who]) % 5 == 0:
                time.sleep(pauses[3 + who] / 1e6)

    working = run(*[lambda who=who: produce(who) for who in range(producers)])
    eating = run(*[lambda who=who: consume(who) for who in range(consumers)])
    join(working)
    ring.close()
    join(eating)
    everything = [item for items in taken for item in items] + dropped
    assert sorted(everything) == [(who, n) for who in range(producers) for n in range(each)]
    assert policy is Policy.DROP_OLDEST or not dropped
    assert ring.put_count == producers * each
    assert ring.got_count + ring.dropped_count == ring.put_count
    for items in taken:
        for producer in range(producers):
            numbers = [number for who, number in items if who == producer]
            assert numbers == sorted(numbers)


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("waiting", ["put", "get", "get_batch"])
def test_ending_wakes_everyone(end: str, waiting: str) -> None:
    ring: Ring[int] = Ring(1)
    if waiting == "put":
        ring.put(0)
    woken = threading.Semaphore(0)
    wait: dict[str, Callable[[], object]] = {
        "put": lambda: ring.put(1),
        "get": ring.get,
        "get_batch": lambda: ring.get_batch(3),
    }

    def sleeper() -> None:
        try:
            wait[waiting]()
        except Closed:
            woken.release()

    threads = run(*[sleeper] * 5)
    time.sleep(0.05)
    assert all(thread.is_alive() for thread in threads)
    getattr(ring, end)()
    join(threads)
    assert sum(woken.acquire(blocking=False) for _ in range(6)) == 5


def test_room_wakes_a_waiting_producer_and_an_item_a_waiting_consumer() -> None:
    ring: Ring[int] = Ring(1)
    got: list[int] = []
    threads = run(lambda: got.append(ring.get()))
    time.sleep(0.02)
    ring.put(1)
    join(threads)
    ring.put(2)
    threads = run(lambda: ring.put(3))
    time.sleep(0.02)
    assert threads[0].is_alive()
    assert ring.get() == 2
    join(threads)
    assert (got, ring.get()) == ([1], 3)


def test_waiting_ends_in_time() -> None:
    ring: Ring[int] = Ring(1)
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        ring.get(0.1)
    ring.put(1)
    with pytest.raises(TimeoutError):
        ring.put(2, 0.1)
    assert 0.2 <= time.monotonic() - begun < 2.0
    assert ring.get_batch(2) == [1]


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4))
def test_what_a_dropped_item_leaves_is_never_lost(marks: list[bool], capacity: int) -> None:
    """Each item is (number, marks it stands for); a dropped one hands its marks on."""
    ring: Ring[tuple[int, int]] = Ring(
        capacity, Policy.DROP_OLDEST, inherit=lambda gone, then: (then[0], gone[1] + then[1])
    )
    for number, mark in enumerate(marks):
        ring.put((number, int(mark)))
    left = ring.get_batch(capacity) if marks else []
    assert [number for number, _ in left] == list(range(len(marks)))[-capacity:]
    assert sum(mark for _, mark in left) == sum(marks)
    assert [mark for _, mark in left[1:]] == [
        int(mark) for mark in marks[len(marks) - len(left) :][1:]
    ]


def test_a_listener_may_use_the_ring() -> None:
    lengths: list[int] = []
    ring: Ring[int] = Ring(2, Policy.DROP_OLDEST, lambda *_: lengths.append(len(ring)))
    for item in range(4):
        ring.put(item)
    ring.abort()
    assert lengths == [2, 2, 0, 0]


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one item, not 0"):
        Ring(0)
    with pytest.raises(ValueError, match="a batch has at least one item, not 0"):
        Ring(1).get_batch(0)


def test_what_is_put_first_is_taken_first_whether_there_is_room_or_not():
    ring: Ring[int] = Ring(1)
    ring.put(1)
    ring.put_first(2)
    assert (len(ring), ring.get(), ring.get()) == (2, 2, 1)
    assert (ring.put_count, ring.got_count) == (2, 2)
    ring.close()
    with pytest.raises(Closed):
        ring.put_first(3)
