"""Meshes on a device are read when they are asked for, and no earlier."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.body.load import load_body
from pipeline.core.people import Bodies
from pipeline.fitting.device_bodies import (
    DeviceBodies,
    DeviceMesh,
    DeviceMeshes,
    MeshKeeper,
    on_device,
)
from pipeline.fitting.fitter import BodyFitter, FitJob, FitMemory
from tests.support.bodies import bodies as some_bodies
from tests.support.fits import K, seen_as_people, some_pose

CUDA = torch.cuda.is_available()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def meshes(people=3, frames=2, kinds=2, device="cpu", seed=0):
    shape = (people, frames, kinds, 5, 3)
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype("f4")).to(device)


def lazy(kept, people, frame=0):
    """Bodies of these rows of the kept meshes, and the same with arrays."""
    plain = some_bodies(list(range(1, len(people) + 1)))
    values = {f.name: getattr(plain, f.name) for f in fields(plain)}
    handles = {"vertices_m": kept[people, frame, 0], "shown_m": kept[people, frame, -1]}
    return DeviceBodies(**{**values, **handles})


def is_read(kept):
    return kept._host is not None


@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 2), st.data(),
)  # fmt: skip
def test_a_place_in_the_meshes_is_the_same_place_in_an_array(people, frames, kinds, data):
    tensor = meshes(people, frames, kinds)
    kept = DeviceMeshes(tensor)
    here = data.draw(st.lists(st.integers(0, people - 1), unique=True))
    frame = data.draw(st.integers(0, frames - 1))
    for kind in (0, -1):
        mesh, expected = kept[here, frame, kind], tensor.numpy()[here, frame, kind]
        assert np.array_equal(kept.on_device()[torch.from_numpy(mesh.rows)].numpy(), expected)
        assert np.array_equal(mesh.array(), expected)
        assert mesh.array() is mesh.array()


@pytest.mark.parametrize("device", DEVICES)
def test_arrays_for_all_who_read_them(device):
    tensor = meshes(device=device)
    (kept,) = MeshKeeper().keep(tensor, [3])
    bodies = lazy(kept, [0, 2], 1)
    assert isinstance(bodies, Bodies)
    assert len(bodies) == 2
    assert bodies.finite
    tensor_there, rows = on_device([bodies], shown=True)[0]
    assert torch.equal(tensor_there[torch.from_numpy(rows).to(device)], tensor[[0, 2], 1, 1])
    assert not is_read(kept)
    assert np.array_equal(bodies.vertices_m, tensor[[0, 2], 1, 0].cpu().numpy())
    assert np.array_equal(bodies.shown_m, tensor[[0, 2], 1, 1].cpu().numpy())
    assert bodies.vertices_m is bodies.vertices_m
    assert on_device([bodies], shown=False)[0] is not None, "a read does not move them"
    with pytest.raises(FrozenInstanceError):
        bodies.vertices_m = bodies.shown_m


def test_a_copy_with_other_values_reads_nothing():
    kept = DeviceMeshes(meshes())
    bodies = lazy(kept, [0, 1])
    other = bodies.with_values(track=bodies.track + 7)
    assert other.track.tolist() == [8, 9]
    assert on_device([other], shown=True)[0][0].data_ptr() == kept.on_device().data_ptr()
    assert other.with_values(shown_m=None).shown_m is None
    assert not is_read(kept)
    plain = some_bodies([1])
    assert type(plain.with_values(score=plain.score / 2)) is Bodies


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda bodies: pickle.loads(pickle.dumps(bodies))]
)
def test_copies_are_plain_arrays(copied):
    bodies = lazy(DeviceMeshes(meshes()), [2, 0])
    out = copied(bodies)
    assert type(out) is Bodies
    for field in fields(Bodies):
        assert np.array_equal(getattr(out, field.name), getattr(bodies, field.name)), field.name
    moved = replace(bodies, vertices_m=bodies.vertices_m + 1)
    assert np.array_equal(moved.vertices_m, bodies.vertices_m + 1)
    assert on_device([moved], shown=False)[0] is None


def test_numbers_that_are_not_finite_are_found_without_the_meshes():
    kept = DeviceMeshes(meshes())
    bodies = lazy(kept, [0, 1])
    joints = bodies.joints_m.copy()
    joints[1, 3] = np.nan
    assert not bodies.with_values(joints_m=joints).finite
    assert not is_read(kept)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(0, 6), st.data())
def test_only_the_newest_meshes_stay_on_the_device(windows, most, data):
    """Whatever is dropped in between, at most this much is kept there, and nothing is lost."""
    each = meshes(1).nbytes
    keeper, held = MeshKeeper(most * each), []
    for number, people in enumerate(windows):
        tensor = meshes(people, seed=number)
        (kept,) = keeper.keep(tensor, [people])
        held.append((kept, tensor.flatten(0, 2)))
        if data.draw(st.booleans()):
            held.pop(data.draw(st.integers(0, len(held) - 1)))
        del kept
        on_device = [k for k, _ in held if k.on_device() is not None]
        assert sum(k.bytes for k in on_device) <= most * each
        assert on_device == [k for k, _ in held][len(held) - len(on_device) :], "the newest"
        for k, expected in held:
            there = k.on_device()
            assert np.array_equal(k.on_host() if there is None else there, expected)


@pytest.mark.gpu
def test_other_threads_read_while_the_gpu_works():
    keeper = MeshKeeper(most_bytes=1 << 20)

    def read(number):
        with torch.cuda.stream(torch.cuda.Stream()):
            big = torch.randn(2000, 2000, device="cuda")
            for _ in range(10):
                big = big @ big / 2000
            tensor = meshes(seed=number, device="cuda") + 0 * big[0, 0].nan_to_num()
            (kept,) = keeper.keep(tensor, [3])
        with ThreadPoolExecutor(4) as readers:
            arrays = list(readers.map(lambda _: lazy(kept, [1]).vertices_m, range(4)))
        return all(np.array_equal(a, meshes(seed=number).numpy()[[1], 0, 0]) for a in arrays)

    assert all(read(number) for number in range(20))


def window(people=2, frames=4):
    """A window of standing people; one is not in the second frame."""
    body, random = load_body(), torch.Generator().manual_seed(3)
    out = [{} for _ in range(frames)]
    for track in range(1, people + 1):
        pose = some_pose(random, 1).expand(frames, -1, -1, -1)
        place = torch.tensor([[0.8 * track - 1.2, 0.1, 4.0]]).expand(frames, -1)
        found, _ = seen_as_people(body, pose, place, torch.zeros(frames, 10))
        for frame, person in zip(out, found):
            frame[track] = person
    del out[1][2]
    return out


def fitted(fitter):
    jobs = [FitJob(window(), K, FitMemory()), FitJob(window(3), K, FitMemory())]
    return fitter.fit_many(jobs)


def test_a_fit_leaves_its_meshes_where_they_are():
    expected = fitted(BodyFitter(load_body()))
    fitter = BodyFitter(load_body())
    fitter._keeper = MeshKeeper()
    found = fitted(fitter)
    for ours, theirs in zip(found, expected, strict=True):
        kept = {id(each._vertices.meshes) for each in ours}
        assert len(kept) == 1, "one copy a window"
        assert not is_read(ours[0]._vertices.meshes)
        for one, other in zip(ours, theirs, strict=True):
            assert type(other) is Bodies
            assert isinstance(one._vertices, DeviceMesh)
            assert one.finite
            for field in fields(Bodies):
                a, b = getattr(one, field.name), getattr(other, field.name)
                assert np.array_equal(a, b), field.name
    assert [len(each) for each in found[0]] == [2, 1, 2, 2]


@pytest.mark.gpu
def test_meshes_outlive_the_graph_that_made_them():
    fitter = BodyFitter(load_body(), device="cuda")
    first = fitted(fitter)
    there, rows = on_device([first[0][0]], shown=False)[0]
    before = there[torch.from_numpy(rows).cuda()].cpu().numpy()
    for _ in range(3):
        fitted(fitter)
    assert np.array_equal(first[0][0].vertices_m, before)
    np.testing.assert_allclose(before, fitted(BodyFitter(load_body()))[0][0].vertices_m, atol=0.02)
