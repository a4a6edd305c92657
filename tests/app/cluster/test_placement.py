"""The rules of placement: laws that hold for any workers, and a poison source among others."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from app.cluster.placement import (
    FULL,
    MOST_DEATHS,
    OVERLOADED,
    STEADY_S,
    WorkerLoad,
    after_death,
    anyway,
    choose,
    is_suspect,
    refusal,
    relief,
    slower,
)

loads = st.lists(
    st.builds(
        WorkerLoad,
        id=st.uuids().map(str),
        load=st.floats(0, 1.2),
        streams=st.integers(0, 20),
        suspects=st.integers(0, 1),
        open=st.booleans(),
        most=st.none() | st.integers(1, 20),
    ),
    max_size=6,
    unique_by=lambda w: w.id,
)
costs = st.floats(0.001, 0.5)


@given(loads, costs)
def test_a_source_is_placed_where_it_fits_and_nowhere_else(workers, cost):
    found = choose(workers, cost)
    fits = [
        w
        for w in workers
        if w.open
        and (w.most is None or w.streams < w.most)
        and (w.streams == 0 or w.load + cost <= FULL)
    ]
    assert (found is None) == (not fits)
    if found is not None:
        chosen = next(w for w in fits if w.id == found)
        assert chosen.load == min(w.load for w in fits)


@given(loads)
def test_a_source_that_lost_its_worker_gets_any_open_one(workers):
    found = anyway(workers)
    assert (found is None) == (not any(w.open for w in workers))
    assert found is None or found in {w.id for w in workers if w.open}


@given(st.integers(1, 6), st.integers(1, 30))
def test_suspects_are_spread_evenly_and_half_wait_for_one_worker(count, suspects):
    held = dict.fromkeys(map(str, range(count)), 0)
    for _ in range(suspects):
        workers = [WorkerLoad(w, 0.0, n, n) for w, n in held.items()]
        found = choose(workers, 0.01, True, suspects)
        if found is not None:
            held[found] += 1
    if count == 1:
        assert sum(held.values()) == max(-(-suspects // 2), 1)
    else:
        assert sum(held.values()) == suspects
        assert max(held.values()) - min(held.values()) <= 1


@given(loads, costs, st.floats(1, 240))
def test_a_lower_rate_is_the_highest_that_fits_and_not_too_low(workers, cost, fps):
    found = slower(workers, cost, fps)
    if found is None:
        steps = range(2, max(int(fps / 5), 1) + 1)
        assert all(choose(workers, cost / step) is None for step in steps)
        return
    worker, step = found
    assert step >= 2
    assert fps / step >= 5
    assert worker == choose(workers, cost / step)
    assert all(choose(workers, cost / fewer) is None for fewer in range(2, step))


@given(loads, st.data())
def test_relief_helps_and_never_overloads_another(workers, data):
    sources = {w.id: {f"{w.id}/{k}": data.draw(costs) for k in range(w.streams)} for w in workers}
    found = relief(workers, sources)
    if found is None:
        return
    name, target = found
    from_id = name.rpartition("/")[0]
    source = next(w for w in workers if w.id == from_id)
    other = next(w for w in workers if w.id == target)
    assert source.load > OVERLOADED
    assert source.streams > 1
    assert target != from_id
    assert other.open
    assert other.load + sources[from_id][name] < source.load


@given(loads, costs)
def test_a_refusal_is_a_line_with_figures(workers, cost):
    line = refusal(workers, cost)
    assert "\n" not in line
    assert line == "no worker is ready" or any(letter.isdigit() for letter in line)


@given(
    st.integers(1, 5), st.integers(0, 20), st.integers(0, 25), st.integers(0, 12),
    st.integers(0, 10_000),
)  # fmt: skip
def test_a_poison_source_is_found_and_the_others_live(workers, innocent, delay_s, back_s, seed):
    """Simulated: a worker dies soon after it has got the poison source, and another takes its
    place some seconds later. The poison alone is quarantined. No source waits while two workers or
    more are there, and none waits long while there is one."""
    names = [f"s{k}" for k in range(innocent)] + ["poison"]
    random.Random(seed).shuffle(names)
    deaths = dict.fromkeys(names, 0)
    where: dict[str, str | None] = dict.fromkeys(names)
    placed_s = dict.fromkeys(names, 0.0)
    open_s = {str(w): 0.0 for w in range(workers)}
    waited_s = dict.fromkeys(names, 0)  # while one worker is open
    died, now_s = 0, 0
    while deaths["poison"] < MOST_DEATHS:
        assert now_s < 2000
        for name in names:
            if where[name] is not None and now_s - placed_s[name] > STEADY_S:
                deaths[name] = 0
        suspects = sum(is_suspect(count) for count in deaths.values())
        for name in names:
            if where[name] is None:
                states = []
                for w, from_s in open_s.items():
                    own = [n for n, at in where.items() if at == w]
                    held = sum(is_suspect(deaths[n]) for n in own)
                    states.append(WorkerLoad(w, 0.01 * len(own), len(own), held, from_s <= now_s))
                where[name] = choose(states, 0.001, is_suspect(deaths[name]), suspects)
                placed_s[name] = now_s
                if where[name] is None:
                    there = sum(w.open for w in states)
                    assert there < 2
                    waited_s[name] += there
        dead = where["poison"]
        if dead is not None and now_s - placed_s["poison"] >= delay_s:
            died += 1
            lost = {name for name, at in where.items() if at == dead}
            deaths = after_death(deaths, lost)
            where |= dict.fromkeys(lost)
            open_s[dead] = now_s + back_s
        now_s += 1
    assert [name for name, count in deaths.items() if count >= MOST_DEATHS] == ["poison"]
    # Two deaths make suspects; each one then leaves out all but the dead worker's part of them.
    assert died <= 3 + math.ceil(math.log2(innocent + 1))
    # Where one worker is left, the half of the suspects waits until there are two, or until the
    # other half is known to be none.
    rounds = died + math.ceil(math.log2(innocent + 1)) + 2
    assert max(waited_s.values()) <= rounds * (STEADY_S + 1)
