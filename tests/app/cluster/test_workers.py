"""How many workers each machine gets: no machine gives more than it has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cluster.ray_api import NodeFacts
from app.cluster.workers import MOST_ON_GPU, missing, places, shared_out, workers_on_gpu

nodes = st.lists(
    st.builds(
        NodeFacts,
        id=st.uuids().map(str),
        host=st.sampled_from(["a", "b"]),
        cpus=st.integers(0, 128).map(float),
        gpus=st.integers(0, 8).map(float),
    ),
    max_size=5,
    unique_by=lambda node: node.id,
)


@given(nodes, st.none() | st.integers(1, 4), st.none() | st.integers(1, 40))
def test_no_machine_gives_more_than_it_has(machines, on_gpu, workers):
    found = places(machines, on_gpu, workers, ())
    for place in found:
        node = next(node for node in machines if node.id == place.node)
        assert place.count * place.cpus <= node.cpus + 1e-9
        assert place.count * place.gpus <= node.gpus + 1e-9
        assert (place.gpus > 0) == (on_gpu is not None)
        # A share of a GPU is of one: as many workers fit on each as on all together.
        if place.gpus:
            assert int(1 / place.gpus + 1e-3) * int(node.gpus) >= place.count
    able = [n for n in machines if (n.gpus >= 1 if on_gpu is not None else n.cpus > 0)]
    if workers is not None and able:
        assert sum(place.count for place in found) == workers


@given(nodes, st.none() | st.integers(1, 4), st.integers(1, 40), st.data())
def test_a_number_of_workers_is_kept_while_machines_come_and_go(machines, on_gpu, number, data):
    """As the controller does it: it starts what is missing and moves no worker."""
    held: dict[str, list[tuple[float, float]]] = {}
    for _ in range(4):
        there = [m for m in machines if data.draw(st.booleans())]
        ids = {machine.id for machine in there}
        held = {id: own for id, own in held.items() if id in ids}
        for place in places(there, on_gpu, number, ()):
            node = next(machine for machine in there if machine.id == place.node)
            own = held.setdefault(node.id, [])
            count = missing(place, node, own, number - sum(map(len, held.values())))
            own += [(place.cpus, place.gpus)] * count
            # None that Ray has no room for.
            assert sum(cpus for cpus, _ in own) <= node.cpus + 1e-6
            assert sum(gpus for _, gpus in own) <= node.gpus + 1e-6
        assert sum(map(len, held.values())) <= number
    # Where nothing was there before, all of them start.
    fresh = places(machines, on_gpu, number, ())
    by_id = {machine.id: machine for machine in machines}
    assert all(missing(one, by_id[one.node], [], None) == one.count for one in fresh)


@given(nodes, st.integers(1, 4))
def test_a_drained_machine_gets_none(machines, on_gpu):
    drained = {node.id for node in machines[::2]}
    assert not {place.node for place in places(machines, on_gpu, None, drained)} & drained


@given(st.integers(0, 100), st.lists(st.integers(0, 20), max_size=8))
def test_parts_are_whole_and_in_proportion(number, weights):
    parts = shared_out(number, weights)
    if not sum(weights):
        assert sum(parts) == 0
        return
    assert sum(parts) == number
    for part, weight in zip(parts, weights):
        assert abs(part - number * weight / sum(weights)) < 1


@pytest.mark.parametrize(
    ("share", "workers"),
    [(0.01, MOST_ON_GPU), (0.2, 4), (0.25, 3), (0.4, 2), (0.6, 1), (0.99, 1)],
)
def test_the_memory_bounds_the_workers_of_a_gpu(share, workers):
    assert workers_on_gpu(share) == workers
