"""The plan's rows: people are segmented in the right frame, and each row runs from end to end."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bench import footage, plan, plan_nets, plan_notes, plan_people, record, subject
from app.bench.plan import PlanPipeline
from app.bench.roofline import Ceilings, Work
from app.bench.rows import ROWS, Plan, Settings
from app.bench.timers import HostTimer, NoTimer
from app.bench.work import module_work, standing_person
from pipeline.body.load import load_body
from pipeline.core.camera import default_intrinsics
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Person
from pipeline.fitting.fitter import BodyFitter
from pipeline.gpu.transfer import upload
from pipeline.perception.ultralytics_models.package import ultralytics
from pipeline.perception.ultralytics_models.picture import Letterbox
from pipeline.perception.ultralytics_models.segment import (
    MASK_SIDE,
    looks,
    mask_of,
    masks_in,
    region_of,
)

torch.set_num_threads(1)
PLANNED = [row for row in ROWS if row.settings.plan is not None]
SIZE = (96, 64)
"""Width and height of the tests' frames."""
HERE = Ceilings(1.0, 1.0, 1.0, 10.0, cache_bytes=1 << 20)


def person(x0, y0, x1, y1):
    box = np.array([x0, y0, x1, y1], np.float32)
    marks = np.tile((box[:2] + box[2:]) / 2, (33, 1)).astype(np.float32)
    return Person(box, 1.0, marks, np.ones(33, np.float32), np.zeros((33, 3), np.float32))


@pytest.fixture(scope="module")
def a_person():
    fitter = BodyFitter(load_body(None))
    return standing_person(fitter, default_intrinsics(SIZE[1], SIZE[0]), 0.0)


def player(count=8):
    """Frames that differ in their level."""
    levels = np.arange(count, dtype=np.uint8) * 20 + 10
    return footage.Player(np.tile(levels[:, None, None, None], (1, SIZE[1], SIZE[0], 3)))


# --- declarations -------------------------------------------------------------------------------


def test_the_rows_are_the_plans():
    assert [row.id for row in PLANNED] == [
        "baseline", "tf32", "compiled", "compiled-trt", "sam-cache", "sam-full", "sam-full-trt",
        "fastsam", "batch", "cache", "full", "full-trt", "full-s",
    ]  # fmt: skip
    figures = {row.id: row.plan_ms for row in PLANNED if row.plan_ms}
    assert figures == {"baseline": 800, "compiled": 300, "fastsam": 150, "batch": 100, "cache": 70}
    ids = [row.id for row in ROWS]
    for row in PLANNED:
        assert row.against == ("baseline",)
        assert row.above is None or ids.index(row.above) < ids.index(row.id)
        assert row.settings.as_json()["plan"]["segment"] == row.settings.plan.segment
    assert len({row.settings.plan.steps for row in PLANNED}) == 1  # No row wins by fewer steps.
    assert "plan" not in Settings().as_json()


def test_a_row_in_tensorrt_differs_in_its_engine_and_its_attention():
    rows = {row.id: row for row in PLANNED}
    for name in ("compiled", "sam-full", "full"):
        of, row = rows[name], rows[f"{name}-trt"]
        assert (row.above, row.settings.engine, row.settings.plan.attention) == (
            name, "tensorrt", "plain",
        )  # fmt: skip
        plan = replace(row.settings.plan, attention=of.settings.plan.attention)
        assert replace(row.settings, engine=of.settings.engine, plan=plan) == of.settings


def test_without_ultralytics_the_rows_name_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for row in PLANNED:
        assert subject.missing(row) == "needs ultralytics: pip install 'bodystream[ultralytics]'"


# --- geometry -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    st.integers(40, 300), st.integers(40, 300), st.booleans(),
    st.tuples(*[st.floats(0.1, 0.4)] * 2, *[st.floats(0.5, 0.9)] * 2),
)  # fmt: skip
def test_a_mask_lies_where_it_says(height, width, centred, parts):
    """A map whose values are its own coordinates gives each mask pixel its place in the image."""
    x0, y0, x1, y1 = parts
    who = person(x0 * width, y0 * height, x1 * width, y1 * height)
    box = Letterbox.of(height, width, 256, centred=centred)
    row = torch.from_numpy(looks([who], box, box))
    line = (torch.arange(64) + 0.5) * 4 - 0.5  # picture places of a map of 64 pixels
    for axis, ramp in enumerate((line[None, :].expand(64, 64), line[:, None].expand(64, 64))):
        cut = masks_in(ramp[None] / 100, row[:, 4:8])[0]
        places = torch.logit(cut.double()) * 100
        mask = mask_of(cut.numpy(), who)
        ends = np.array([[0, 0, 1], [MASK_SIDE - 1, MASK_SIDE - 1, 1]], np.float32)
        wanted = box.to_picture(torch.from_numpy(ends @ mask.to_image.T))[:, axis]
        for k, at in enumerate((0, -1)):
            inside = float(wanted[k].clamp(line[0], line[-1]))
            assert float(places[at, at]) == pytest.approx(inside, abs=0.05)
    region = region_of(who)
    assert (region[:2] < who.box_px[:2]).all()
    assert (region[2:] > who.box_px[2:]).all()


def test_a_players_frames_have_their_numbers():
    shown = player(5)
    for source in (0, 3):
        for index in range(6):
            for frame in shown.window(source, index).frames:
                assert (frame.image == shown.frames[shown.number(frame)]).all()


def test_frames_without_anybody_take_the_nearest():
    a, b = {1: person(0, 0, 9, 9)}, {2: person(0, 0, 5, 5)}
    assert plan_people.from_neighbours([{}, a, {}, {}, {}, b]) == [a, a, a, a, b, b]
    with pytest.raises(ValueError, match="no person is found"):
        plan_people.from_neighbours([{}, {}])


# --- who is looked at in which picture ----------------------------------------------------------


class FakeSegmenter:
    """Its masks hold the level of the picture they are made from."""

    once = False

    def __init__(self, real=True):
        self.real, self.embedded = real, []

    def letterbox(self, height, width):
        return Letterbox.of(height, width, 64, centred=False)

    def embed(self, images):
        self.embedded.append(images[:, 0, 0, 0].tolist())
        return images[:, 0, 0, 0].float()

    def masks(self, embedding, seen, picture):
        return embedding[picture][:, None, None].expand(-1, MASK_SIDE, MASK_SIDE)


class FakeMeter:
    real = True

    def __init__(self):
        self.measured = []

    def letterbox(self, height, width):
        return Letterbox.of(height, width, 64, centred=True)

    def __call__(self, images, seen, picture):
        levels = images[:, 0, 0, 0].float()
        self.measured.append(levels[picture].tolist())
        return levels[picture]


class FakeFitter:
    """A fitter that records its jobs."""

    def __init__(self, body, *_, **__):
        self.body, self.jobs, self.graphs, self.tf32 = body, [], False, []

    def warm_up(self, people):
        pass

    def fit_many(self, jobs):
        self.tf32.append(torch.backends.cuda.matmul.allow_tf32)
        self.jobs += [(job, dict(job.memory.tracks)) for job in jobs]
        for job in jobs:
            job.memory.tracks[7] = "known"
        nobody = BodyFitter.no_bodies(self)
        return [[nobody for _ in job.people] for job in jobs]


def faked(monkeypatch, chosen, real=True):
    segmenter, meter = FakeSegmenter(real), FakeMeter()

    def handed(make, sizes):
        make.work.update(dict.fromkeys(("embed", "mask", "depth"), Work(1.0, 1.0)))
        return segmenter

    monkeypatch.setattr(plan, "make_segmenter", handed)
    monkeypatch.setattr(plan, "make_depth", lambda make, sizes: meter)
    monkeypatch.setattr(plan, "BodyFitter", FakeFitter)
    made = PlanPipeline(Settings("cpu", renderer="numba", half=False, plan=chosen))
    return made, segmenter, meter


def window(source="a", levels=(10, 30, 50, 70), key=0):
    images = [np.full((SIZE[1], SIZE[0], 3), level, np.uint8) for level in levels]
    frames = tuple(Frame(k, source, 0, k / 30, image) for k, image in enumerate(images))
    return Window(frames, key)


def levels_fitted(pipeline, job=-1):
    """The level of every frame's masks, by track."""
    frames = pipeline._fitter.jobs[job][0].people
    return [{track: float(p.mask.values[0, 0]) for track, p in people.items()} for people in frames]


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_every_frames_people_are_found_in_their_own_frame(monkeypatch, batch):
    pipeline, segmenter, meter = faked(monkeypatch, Plan(batch=batch))
    pipeline.people_of = lambda frame: {1: person(5, 5, 40, 60), frame.id + 2: person(9, 9, 50, 50)}
    subject.run(pipeline, window(), pipeline.begin(), NoTimer())
    whole = sum(segmenter.embedded, [])
    assert whole == [10, 30, 50, 70]
    assert max(map(len, segmenter.embedded)) == batch
    assert levels_fitted(pipeline) == [{1: v, k + 2: v} for k, v in enumerate((10, 30, 50, 70))]
    assert sum(meter.measured, []) == [10, 10, 30, 30, 50, 50, 70, 70]


@pytest.mark.parametrize("segment", ["sam-h", "fastsam-x"])
@pytest.mark.parametrize("key", [0, 2])
def test_a_reused_key_frame_serves_its_window_and_no_other(monkeypatch, segment, key):
    chosen = Plan(segment, batch=4, reuse=True, reuse_depth=True, sources=2)
    pipeline, segmenter, meter = faked(monkeypatch, chosen)
    there = {2: {8: person(1, 1, 30, 30)}}  # A person who is not in key frame 0.
    pipeline.people_of = lambda frame: {1: person(5, 5, 40, 60), **there.get(frame.id, {})}
    windows = [window("a", key=key), window("b", (110, 130, 150, 170), key)]
    ticket = pipeline.submit(windows, [pipeline.begin(), pipeline.begin()], NoTimer())
    done = pipeline.collect(ticket)
    keys = [(10, 30, 50, 70)[key], (110, 130, 150, 170)[key]]
    assert segmenter.embedded == [keys]  # Both sources' in one batch, nothing else.
    assert [len(d.pictures) for d in done] == [4, 4]
    for k, level in enumerate(keys):
        fitted = levels_fitted(pipeline, k)
        assert fitted == [{1: level}, {1: level}, {1: level, 8: level}, {1: level}]
    (measured,) = meter.measured
    assert sorted(measured) == sorted(keys * 2)


def test_masks_of_random_weights_are_brought_over_but_not_fitted(monkeypatch):
    pipeline, _, _ = faked(monkeypatch, Plan(), real=False)
    who = person(5, 5, 40, 60)
    pipeline.people_of = lambda frame: {1: who}
    assert pipeline.weights == "random"
    timer = HostTimer()
    subject.run(pipeline, window(), pipeline.begin(), timer)
    stages = {"upload", "segment", "depth", "fit", "draw", "download"}
    assert set(timer.finish()) == stages
    assert all(frame[1] is who for frame in pipeline._fitter.jobs[0][0].people)


@pytest.mark.parametrize("warm", [False, True])
def test_a_cold_fit_forgets_and_a_warm_one_does_not(monkeypatch, warm):
    pipeline, _, _ = faked(monkeypatch, Plan(warm=warm))
    pipeline.people_of = lambda frame: {1: person(5, 5, 40, 60)}
    state = pipeline.begin()
    for _ in range(2):
        subject.run(pipeline, window(), state, NoTimer())
    assert [bool(known) for _, known in pipeline._fitter.jobs] == [False, warm]


def test_the_fit_is_never_rounded_to_tf32(monkeypatch):
    with subject.rounding(True):
        pipeline, _, _ = faked(monkeypatch, Plan())
        pipeline.people_of = lambda frame: {1: person(5, 5, 40, 60)}
        subject.run(pipeline, window(), pipeline.begin(), NoTimer())
        assert torch.backends.cuda.matmul.allow_tf32
    assert pipeline._fitter.tf32 == [False]


def test_nobody_in_a_window_is_nobody_drawn(monkeypatch):
    for chosen in (Plan(batch=4), Plan("fastsam-s", reuse=True, reuse_depth=True)):
        pipeline, _, _ = faked(monkeypatch, chosen)
        pipeline.people_of = lambda frame: {}
        shown = window()
        done = subject.run(pipeline, shown, pipeline.begin(), NoTimer())
        assert done.people == 0
        for picture, frame in zip(done.pictures, shown.frames):
            assert (picture == frame.image).all()


def test_who_is_there_must_be_said_first(monkeypatch):
    pipeline, _, _ = faked(monkeypatch, Plan())
    with pytest.raises(RuntimeError, match="people_of was not set"):
        subject.run(pipeline, window(), pipeline.begin(), NoTimer())


# --- what is said of them -----------------------------------------------------------------------


def test_names_of_attention_are_short_and_the_most_frequent_first():
    names = [
        "void pytorch_flash::flash_fwd_kernel<Flash<96>>(Params)", "sgemm_128x64",
        "void (anonymous namespace)::softmax_warp_forward<float>(int)",
        "void pytorch_flash::flash_fwd_kernel<Flash<64>>(Params)",
    ]  # fmt: skip
    found = plan_notes.names_of(names)
    assert found[0] == "pytorch_flash::flash_fwd_kernel"
    assert len(found) == 2
    assert "softmax" in found[1]


def test_meshes_are_compared_where_both_have_them():
    flat = np.zeros((5, 3), np.float32)
    moved = flat + np.array([0.003, 0.004, 0], np.float32)
    apart = plan_notes.mesh_difference_mm({(0, 1): flat, (1, 1): flat}, {(0, 1): moved})
    assert apart == pytest.approx(5.0, rel=1e-5)
    assert plan_notes.mesh_difference_mm({(0, 1): flat}, {(1, 1): flat}) is None


def test_a_modules_work_is_its_products():
    layer = torch.nn.Linear(8, 4, bias=False)
    work = module_work(layer, (torch.zeros(3, 8),), "fp16")
    assert work.operations == 2 * 3 * 8 * 4
    assert work.memory_bytes == 2 * (8 * 4 + 3 * 8 + 3 * 4)


# --- end to end, with small networks of ultralytics' own ----------------------------------------


def small(tasks, name, attention):
    from pipeline.perception.ultralytics_models.depth import MonoDepth
    from pipeline.perception.ultralytics_models.fastsam import FastSam
    from pipeline.perception.ultralytics_models.sam import split

    torch.manual_seed(0)
    if name.startswith("fastsam"):
        return FastSam(tasks.SegmentationModel("yolov8n-seg.yaml", nc=1, verbose=False).eval(), 64)
    if name.endswith("depth"):
        return MonoDepth(tasks.DepthModel("yolo26n-depth.yaml", nc=1, verbose=False).eval(), 64)
    sam = ultralytics("models.sam.build")
    encoder = sam.ImageEncoderViT(
        depth=2, embed_dim=48, img_size=224, num_heads=3, use_rel_pos=True, window_size=7,
        global_attn_indexes=[1], out_chans=64,
    )  # fmt: skip
    prompts = sam.PromptEncoder(64, (14, 14), (224, 224), 16)
    decoder = sam.MaskDecoder(64, sam.TwoWayTransformer(2, 64, 4, 128))
    return split(sam.SAMModel(encoder, prompts, decoder).eval(), "random", attention)


@pytest.fixture
def bench(tasks, a_person, monkeypatch):
    """Measures rows with small networks, one person standing in every frame."""
    monkeypatch.setattr(
        plan_nets, "network", lambda name, file, side, attention: small(tasks, name, attention)
    )
    monkeypatch.setattr(
        plan_people, "find_people", lambda shown, most, folder: [{1: a_person}] * len(shown.frames)
    )
    monkeypatch.setattr(record, "stage_work", lambda *_: {"fit": Work(1e9)})
    monkeypatch.setattr(record.weights, "find", lambda *_: {})
    options = record.Options(windows=2, warm=1, size=SIZE)
    machine = {"gpu": None, "cpu": "abacus"}
    return record.Bench(options, ceilings_of=lambda device: HERE, hardware=machine)


@pytest.mark.slow
@pytest.mark.ultralytics
def test_every_row_runs_and_says_what_it_is(bench):
    meshes = {}
    for row in PLANNED:
        cheap = replace(row.settings, device="cpu", engine="eager", renderer="numba", graphs=False)
        made = bench.measure(replace(row, settings=cheap), lambda text: None)
        assert made["weights"] == "random"
        assert made["notes"][0] == "speed only"
        assert made["people_drawn"] == 1
        assert made["total_ms_p50"] > 0
        stages = {"upload", "segment", "depth", "fit", "draw", "download"}
        assert set(made["stages_ms"]) == stages
        assert "eager" in made["engine"]
        named = any(note.startswith("attention: ") for note in made["notes"])
        assert named == cheap.plan.segment.startswith("sam")
        if row.above is not None:
            apart = made["mesh_difference_mm"]
            warmed = cheap.plan.warm != meshes[row.above].plan.warm
            # The same people, fitted alike: only the first pose they start from differs.
            assert (0 < apart < 100) if warmed else apart == 0
        meshes[row.id] = cheap


@pytest.mark.ultralytics
def test_reuse_embeds_once_a_window(tasks, a_person, monkeypatch):
    monkeypatch.setattr(
        plan_nets, "network", lambda name, file, side, attention: small(tasks, name, attention)
    )
    calls = []
    engine_of = plan_nets.make_engine

    def counted(module, *rest, **more):
        engine = engine_of(module, *rest, **more)
        name = type(module).__name__

        def call(*batch):
            calls.append((name, len(batch[0])))
            return engine(*batch)

        call.report = engine.report
        return call

    monkeypatch.setattr(plan_nets, "make_engine", counted)
    expected = {
        "baseline": [("SamEncoder", 1), ("SamDecoder", 1), ("MonoDepth", 1)] * 4,
        "sam-cache": [("SamEncoder", 1), ("SamDecoder", 4), ("MonoDepth", 4)],
        "fastsam": [("FastSam", 1), ("MonoDepth", 1)] * 4,
        "batch": [("FastSam", 4), ("MonoDepth", 4)],
        "full": [("FastSam", 1), ("MonoDepth", 1)],
    }
    for row in PLANNED:
        if row.id not in expected:
            continue
        cheap = replace(row.settings, device="cpu", renderer="numba", graphs=False)
        pipeline = PlanPipeline(cheap)
        pipeline.people_of = lambda frame: {1: a_person}
        calls.clear()
        subject.run(pipeline, player(4).window(0, 0), pipeline.begin(), NoTimer())
        assert calls == expected[row.id], row.id


# --- on a GPU -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.tensorrt
@pytest.mark.ultralytics
@pytest.mark.parametrize("name", ["sam-full-trt", "full-trt"])
def test_a_row_runs_in_tensorrt(bench, name):
    row = next(row for row in PLANNED if row.id == name)
    made = bench.measure(row, lambda text: None)
    assert made["people_drawn"] == 1
    assert made["engine"].count("tensorrt, half precision, CUDA graphs") >= 2
    assert "eager," not in made["engine"]


@pytest.mark.gpu
@pytest.mark.ultralytics
@pytest.mark.parametrize("name", ["compiled", "full", "sam-full"])
def test_a_row_runs_on_a_gpu_and_the_networks_do_not_wait(bench, a_person, name):
    row = next(row for row in PLANNED if row.id == name)
    made = bench.measure(row, lambda text: None)
    assert made["people_drawn"] == 1
    assert made["gpu_memory_mb"] > 0
    # "full" takes what `auto` finds, which is never eager on a GPU with Triton.
    assert ("eager," in made["engine"]) == (name == "compiled")
    pipeline = PlanPipeline(row.settings)
    pipeline.people_of = lambda frame: {1: a_person}
    shown, state = player(), pipeline.begin()
    for index in range(2):
        subject.run(pipeline, shown.window(0, index), state, NoTimer())
    windows = [upload(shown.window(0, 2), torch.device("cuda"))]
    people = [[pipeline.people_of(frame) for frame in windows[0].frames]]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = pipeline._perceive(windows, people, NoTimer())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    masks = results.masks()
    # FastSAM's mask of the key frame is for all frames; SAM's decoder makes one for each.
    assert len(masks) == (1 if name == "full" else 4)
    assert all(np.isfinite(values).all() for values in masks.values())
