"""A depth map's way into the fit: its scale, the people's size, and how much it improves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.config import load_config
from app.evaluate import evaluate
from pipeline.body.load import load_body
from pipeline.core.camera import project
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Bodies, Person
from pipeline.fitting.fitter import BodyFitter
from pipeline.fitting.initialise import sized_by_depth
from pipeline.fitting.observations import observe
from pipeline.perception.base import Perceiver
from pipeline.perception.ultralytics_models.picture import Letterbox
from pipeline.perception.with_depth import DepthPerceiver
from pipeline.runtime.make import make_estimator
from pipeline.tracking.depth_scale import BEHIND_SURFACE_M, ENOUGH, DepthScale

LENS = np.array([[900.0, 0, 320], [0, 900.0, 240], [0, 0, 1]])
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def no_bodies():
    return BodyFitter(load_body()).no_bodies()


def person_with(map_depth: float | None = None, x: float = 100.0) -> Person:
    box = np.array([x, 10, x + 40, 110], np.float32)
    marks = np.tile((box[:2] + box[2:]) / 2, (33, 1)).astype(np.float32)
    world = np.zeros((33, 3), np.float32)
    return Person(box, 0.9, marks, np.ones(33, np.float32), world, map_depth=map_depth)


def bodies_at(no_bodies: Bodies, depths_m: dict[int, float]) -> Bodies:
    joints = np.zeros((len(depths_m), 24, 3), np.float32)
    joints[:, 0, 2] = list(depths_m.values())
    return replace(no_bodies, track=np.array(list(depths_m), np.int64), joints_m=joints)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3), st.lists(st.floats(2.0, 20.0), min_size=ENOUGH, max_size=40))
def test_the_scale_is_found_whatever_the_unit(no_bodies, unit, depths_m):
    scale = DepthScale()
    for z in depths_m[:ENOUGH]:
        seen = [{3: person_with((z - BEHIND_SURFACE_M) / unit)}]
        assert scale.place(seen)[0][3].root_depth_m is None
        scale.learn(seen, [bodies_at(no_bodies, {3: z})])
    assert scale.metres == pytest.approx(unit, rel=1e-4)
    for z in depths_m:
        placed = scale.place([{8: person_with((z - BEHIND_SURFACE_M) / unit)}])
        assert placed[0][8].root_depth_m == pytest.approx(z, rel=1e-3)


def test_a_third_of_wild_readings_does_not_move_it(no_bodies):
    scale, random = DepthScale(), np.random.default_rng(0)
    for k in range(ENOUGH):
        z = random.uniform(3, 9)
        wild = 40.0 if k % 3 == 0 else 1.0
        seen = [{1: person_with(wild * (z - BEHIND_SURFACE_M) / 2.5)}]
        scale.learn(seen, [bodies_at(no_bodies, {1: z})])
    assert scale.metres == pytest.approx(2.5, rel=1e-3)


def test_a_given_scale_stays(no_bodies):
    scale = DepthScale(2.0)
    scale.learn([{1: person_with(1.0)}] * 99, [bodies_at(no_bodies, {1: 50.0})] * 99)
    assert scale.metres == 2.0


@pytest.mark.parametrize("seen", [None, 0.0, -1.0])
def test_a_person_without_a_depth_gets_no_root_depth(no_bodies, seen):
    scale = DepthScale(2.0)
    assert scale.place([{1: person_with(seen)}, {}])[0][1].root_depth_m is None
    learning = DepthScale()
    learning.learn([{1: person_with(seen)}] * 99, [bodies_at(no_bodies, {1: 5.0})] * 99)
    assert learning.metres is None


@settings(max_examples=30, deadline=None)
@given(st.floats(0.75, 1.35), st.integers(0, 2**31 - 1))
def test_world_landmarks_get_the_size_that_the_depth_implies(size, seed):
    """World landmarks of another size than the person's, who stands where the map says."""
    random = np.random.default_rng(seed)
    place = np.array([*random.uniform(-0.5, 0.5, 2), random.uniform(3, 9)])
    points = random.uniform([-0.3, -0.9, -0.2], [0.3, 0.9, 0.2], (33, 3))
    pixels = project(points + place, LENS).astype(np.float32)
    person = replace(
        person_with(), landmarks_px=pixels, world_m=points.astype(np.float32),
        root_depth_m=float(place[2]),
    )  # fmt: skip
    (true,) = _turned_back(person)
    for known in ([True] * 4, [False, True, False, False]):
        frames = [
            replace(true, world_m=true.world_m * size, root_depth_m=place[2] if k else None)
            for k in known
        ]
        seen = observe([frames], LENS, CPU)
        sized = sized_by_depth(seen).world_m[0].numpy()
        assert np.abs(sized - true.world_m).max() < 0.02
    unknown = [replace(person, root_depth_m=None)] * 4
    seen = observe([unknown], LENS, CPU)
    assert torch.equal(sized_by_depth(seen).world_m, seen.world_m)


def _turned_back(person):
    """The person with world landmarks in the axes of its own ray, as a network gives them."""
    from pipeline.core.camera import view_rotation

    turn = view_rotation(person.landmarks_px, LENS)
    yield replace(person, world_m=(person.world_m @ turn).astype(np.float32))


def test_a_wrong_depth_changes_sizes_within_bounds():
    far = replace(person_with(), root_depth_m=80.0)
    near = replace(person_with(), root_depth_m=0.5)
    for person in (far, near):
        world = np.random.default_rng(0).uniform(-0.8, 0.8, (33, 3)).astype(np.float32)
        marks = project(world + [0, 0, 5.0], LENS).astype(np.float32)
        seen = observe([[replace(person, world_m=world, landmarks_px=marks)] * 2], LENS, CPU)
        ratio = float(sized_by_depth(seen).world_m.norm() / seen.world_m.norm())
        assert 0.7 < ratio < 1.45


# The perceiver.


class Base(Perceiver):
    """Returns the people that it was given."""

    name = "base"

    def __init__(self, people):
        self.people, self.closed = people, False

    def prepare(self, window):
        return window

    def embed(self, window, memory):
        return memory

    def decode(self, embedding, window):
        return list(self.people), "remembered"

    def close(self):
        self.closed = True


class Levels:
    """A person's depth is the level of its picture times its place across it."""

    def __init__(self):
        self.pictures = []

    def letterbox(self, height, width):
        return Letterbox.of(height, width, 100, centred=False)

    def __call__(self, images, seen, picture):
        levels = images[:, 0, 0, 0].float()
        self.pictures.append(levels.tolist())
        return levels[picture] * (1 + seen[:, 8])


def window_of(levels, people):
    frames = tuple(
        Frame(k, "s", 0, k / 30, np.full((100, 200, 3), level, np.uint8))
        for k, level in enumerate(levels)
    )
    assert len(frames) == len(people)
    return Window(frames, min(2, len(frames) - 1))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("reuse", [False, True])
def test_each_person_is_measured_in_its_own_frame(together, reuse):
    people = [
        (person_with(),),
        (),
        (person_with(x=20.0), person_with(x=140.0)),
        (person_with(x=60.0),),
    ]
    base, meter = Base(people), Levels()
    if together:
        base.perceive_many = lambda windows, _: [(list(people), "remembered") for _ in windows]
    metered = DepthPerceiver(base, meter, CPU, reuse=reuse)
    window = window_of((10, 20, 30, 40), people)
    if together:
        (out,) = metered.perceive_many([window], [None])
    else:
        out = metered.decode(metered.embed(window, None), window)
    found, memory = out
    assert memory == "remembered"
    for t, (here, before) in enumerate(zip(found, people)):
        for person, was in zip(here, before):
            if reuse and t != window.key:
                assert person.map_depth is None
                continue
            middle = was.landmarks_px[23, 0]
            box = meter.letterbox(100, 200)
            x = float(box.to_picture(torch.tensor([middle, 0.0]))[0])
            across = 2 * (x + 0.5) / box.side - 1
            assert person.map_depth == pytest.approx((t + 1) * 10 * (1 + across), rel=1e-4)
    assert meter.pictures == [[30.0] if reuse else [10.0, 30.0, 40.0]]
    metered.close()
    assert base.closed


def test_frames_without_people_are_not_read():
    meter = Levels()
    metered = DepthPerceiver(Base([(), ()]), meter, CPU)
    window = window_of((1, 2), [(), ()])
    assert metered.decode(None, window)[0] == [(), ()]
    assert not meter.pictures


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -3.0])
def test_nonsense_is_no_depth(value):
    class Wild(Levels):
        def __call__(self, images, seen, picture):
            return torch.full((len(picture),), value)

    people = [(person_with(),)]
    metered = DepthPerceiver(Base(people), Wild(), CPU)
    ((person,),) = metered.decode(None, window_of((1,), people))[0]
    assert person.map_depth is None


def test_a_known_scale_wants_a_known_lens():
    with pytest.raises(ValueError, match="fov_deg or focal_px"):
        make_estimator(device="cpu", depth_scale=1.0)


# How much it improves, on a render.


@pytest.mark.slow
def test_a_true_map_puts_the_hips_where_they_are():
    config = load_config("default")
    clip, truth = "samples/pitch.mp4", "samples/pitch_truth.npz"
    metric = replace(config, perceive=replace(config.perceive, depth_scale=1.0))
    plain = evaluate(clip, truth, config, truth_lens=True)
    given_map = evaluate(clip, truth, metric, given=("depth-map",), truth_lens=True)
    aligned = evaluate(clip, truth, config, given=("depth-map",), truth_lens=True)
    noisy = evaluate(clip, truth, config, given=("noisy-depth-map",), truth_lens=True)
    root = [report.row("root_mm").mesh for report in (plain, given_map)]
    assert root[1] < 0.4 * root[0]
    assert given_map.row("mpjpe_mm").mesh < plain.row("mpjpe_mm").mesh
    moved = [report.row("root_motion_mm").mesh for report in (plain, aligned, noisy)]
    # Not by more: a shape that settles early steadies the distance without a map too.
    assert moved[1] < 0.75 * moved[0]
    # Another unit is found to be one: what is left is the noise.
    assert abs(noisy.row("distance_pct").mesh - aligned.row("distance_pct").mesh) < 4.0
