"""The rules of placement: laws that hold for any workers, and a poison source among others."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from app.cluster.placement import (
    FULL,
    MOST_DEATHS,
    OVERLOADED,
    STEADY_S,
    WorkerLoad,
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


@given(loads, costs, st.booleans())
def test_a_source_is_placed_where_it_fits_and_nowhere_else(workers, cost, suspect):
    found = choose(workers, cost, suspect)
    fits = [
        w
        for w in workers
        if w.open
        and (w.most is None or w.streams < w.most)
        and (w.streams == 0 or w.load + cost <= FULL)
        and not (suspect and w.suspects)
    ]
    assert (found is None) == (not fits)
    if found is not None:
        chosen = next(w for w in fits if w.id == found)
        assert chosen.load == min(w.load for w in fits)


@given(loads, st.booleans())
def test_a_source_that_lost_its_worker_gets_any_open_one(workers, suspect):
    found = anyway(workers, suspect)
    fit = [w for w in workers if w.open and not (suspect and w.suspects)]
    assert (found is None) == (not fit)
    assert found is None or found in {w.id for w in fit}


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


@given(st.integers(2, 5), st.integers(0, 8), st.integers(0, 25), st.integers(0, 10_000))
def test_a_poison_source_is_found_and_the_others_live(workers, innocent, delay_s, seed):
    """Simulated: a worker dies soon after it has got the poison source. That one alone is
    quarantined, after `MOST_DEATHS` deaths, and all others run."""
    names = [f"s{k}" for k in range(innocent)] + ["poison"]
    random.Random(seed).shuffle(names)
    deaths = dict.fromkeys(names, 0)
    where: dict[str, str | None] = dict.fromkeys(names)
    placed_s = dict.fromkeys(names, 0.0)
    quarantined: set[str] = set()
    died = 0
    for now_s in range(400):
        for name in names:
            if where[name] is not None and now_s - placed_s[name] > STEADY_S:
                deaths[name] = 0
            if where[name] is not None or name in quarantined:
                continue
            own = {str(w): [n for n, at in where.items() if at == str(w)] for w in range(workers)}
            states = [
                WorkerLoad(w, 0.01 * len(all_), len(all_), sum(is_suspect(deaths[n]) for n in all_))
                for w, all_ in own.items()
            ]
            where[name] = choose(states, 0.01, is_suspect(deaths[name]))
            placed_s[name] = now_s
        dead = where["poison"]
        if dead is not None and now_s - placed_s["poison"] >= delay_s:
            died += 1
            for name in [name for name, at in where.items() if at == dead]:
                where[name] = None
                deaths[name] += 1
                if deaths[name] >= MOST_DEATHS:
                    quarantined.add(name)
    assert quarantined == {"poison"}
    assert died == MOST_DEATHS
    assert all(where[name] is not None for name in names if name != "poison")
