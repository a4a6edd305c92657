"""The ultralytics models compute what ultralytics does, and their weights are read exactly.

The networks are built from ultralytics' own configuration files with random weights and saved as
it saves them, so nothing is downloaded.
"""

from __future__ import annotations

import copy
import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.gpu.engine import make_engine
from pipeline.perception.ultralytics_models import fastsam, yolo_pose
from pipeline.perception.ultralytics_models.depth import MonoDepth
from pipeline.perception.ultralytics_models.load import MODELS, build
from pipeline.perception.ultralytics_models.package import UltralyticsError, ultralytics
from pipeline.perception.ultralytics_models.picture import Letterbox, for_sam, for_yolo
from pipeline.perception.ultralytics_models.sam import ATTENTION, SamDecoder, SamEncoder
from pipeline.weights.torch_file import CheckpointError

torch.set_num_threads(1)


def scattered(net, seed=0):
    """Every parameter and statistic at random, since what starts at nought hides mistakes."""
    source = torch.Generator().manual_seed(seed)
    for name, value in net.state_dict().items():
        if not value.is_floating_point():
            continue
        if name.endswith("running_var") or value.ndim == 1 and name.endswith("weight"):
            value.copy_(torch.rand(value.shape, generator=source) + 0.5)
        elif not float(value.abs().max()) or value.ndim == 1:
            value.copy_(torch.randn(value.shape, generator=source) * 0.1)
    return net.eval()


def pictures(count, side, seed=1):
    return torch.rand((count, 3, side, side), generator=torch.Generator().manual_seed(seed))


def yolo(tasks, kind, cfg):
    torch.manual_seed(3)
    return scattered(getattr(tasks, kind)(cfg, nc=1, verbose=False))


def as_shipped(net):
    """A file's content as ultralytics saves it."""
    net = copy.deepcopy(net).half()
    return {"epoch": -1, "model": net, "ema": None, "train_args": {"task": "x"}, "date": "now"}


# --- the networks -------------------------------------------------------------------------------


@pytest.mark.ultralytics
def test_pose_rows_are_ultralytics_own(tasks):
    net = yolo(tasks, "PoseModel", "yolo26n-pose.yaml")
    images = pictures(2, 128)
    with torch.inference_mode():
        head = net.model[-1]
        _, raw = net(images)
        head.end2end = True  # Boxes by their corners.
        theirs = head._estimator(raw["one2one"]).transpose(1, 2)
        ours = yolo_pose.YoloPose(copy.deepcopy(net), 128)(images)
    assert ours.shape == (2, 16 * 16 + 8 * 8 + 4 * 4, yolo_pose.ROW)
    where = torch.ones(yolo_pose.ROW, dtype=torch.bool)
    where[4] = where[7::3] = False
    theirs = theirs.clone()
    theirs[..., where] -= 0.5  # They count from a pixel's corner.
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    best = yolo_pose.best_rows(ours, 5)
    assert torch.equal(best[..., 4], ours[..., 4].sort(1, descending=True).values[:, :5])


@pytest.mark.ultralytics
def test_fastsam_rows_and_prototypes_are_ultralytics_own(tasks):
    net = yolo(tasks, "SegmentationModel", "yolov8n-seg.yaml")
    images = pictures(2, 128)
    with torch.inference_mode():
        (theirs, prototypes), _ = copy.deepcopy(net)(images)
        ours = fastsam.FastSam(copy.deepcopy(net), 128)(images)
    x, y, width, height, *rest = theirs.unbind(1)
    sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    theirs = torch.stack((*(side - 0.5 for side in sides), *rest), 2)
    torch.testing.assert_close(ours[0], prototypes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours[1], theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.ultralytics
def test_depth_is_ultralytics_own(tasks):
    net = yolo(tasks, "DepthModel", "yolo26n-depth.yaml")
    images = pictures(2, 128)
    with torch.inference_mode():
        # Random layers say nearly the same everywhere: let what they say count for more.
        head, last = net.model[-1], net.model[-1].head[-1]
        head.cal_a.fill_(1)
        head.cal_b.fill_(0)
        last.bias.copy_(-200 * (net(images).log().mean() - last.bias))
        last.weight.mul_(200)
        head.cal_a.fill_(1.3)
        head.cal_b.fill_(0.4)
        theirs = copy.deepcopy(net)(images)[:, 0]
        ours = MonoDepth(net, 128)(images)
    assert ours.shape == (2, 32, 32)
    assert float(theirs.std() / theirs.mean()) > 0.01
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def small_sam(tasks):
    """A SAM of SAM's own parts, small, on 320-pixel pictures (20 x 20 places: windows are filled
    up), every weight at random."""
    build_sam = ultralytics("models.sam.build")
    torch.manual_seed(0)
    side = 320
    encoder = build_sam.ImageEncoderViT(
        depth=2, embed_dim=48, img_size=side, num_heads=3, use_rel_pos=True, window_size=14,
        global_attn_indexes=[1], out_chans=64,
    )  # fmt: skip
    prompts = build_sam.PromptEncoder(64, (20, 20), (side, side), 16)
    transformer = build_sam.TwoWayTransformer(2, 64, 4, 128)
    decoder = build_sam.MaskDecoder(64, transformer)
    return scattered(build_sam.SAMModel(encoder, prompts, decoder))


@pytest.fixture(params=["pose", "fastsam", "depth", "encoder", "decoder"])
def part(request, tasks):
    """Each module that an engine is given, small, and a batch of three for it."""
    images = pictures(3, 64)
    if request.param == "pose":
        return yolo_pose.YoloPose(yolo(tasks, "PoseModel", "yolo26n-pose.yaml"), 64), (images,)
    if request.param == "fastsam":
        return fastsam.FastSam(yolo(tasks, "SegmentationModel", "yolov8n-seg.yaml"), 64), (images,)
    if request.param == "depth":
        return MonoDepth(yolo(tasks, "DepthModel", "yolo26n-depth.yaml"), 64), (images,)
    sam = copy.deepcopy(request.getfixturevalue("small_sam"))
    if request.param == "encoder":
        return SamEncoder(sam.image_encoder), (pictures(3, 320) * 4 - 2,)
    boxes = torch.tensor([[10.0, 20, 200, 300], [0, 0, 319, 319], [100.5, 50, 130, 60]])
    embedding = torch.randn((3, 64, 20, 20), generator=torch.Generator().manual_seed(2))
    return SamDecoder(sam.prompt_encoder, sam.mask_decoder), (embedding, boxes)


def outputs(module, *batch):
    with torch.inference_mode():
        out = module(*batch)
    return tuple(t.float() for t in (out if isinstance(out, tuple) else (out,)))


def addresses(module):
    """Where every tensor lies that a module holds, as a parameter, a buffer or otherwise."""
    return {
        (name, key): value.data_ptr()
        for name, child in module.named_modules()
        for key, value in {**vars(child), **child._parameters, **child._buffers}.items()
        if isinstance(value, torch.Tensor)
    }


@pytest.mark.ultralytics
def test_a_batch_is_its_rows_and_leaves_nothing_behind(part):
    """A captured graph keeps the addresses it saw: no tensor may lie elsewhere afterwards."""
    module, batch = part
    before = addresses(module)
    whole = outputs(module, *batch)
    rows = [outputs(module, *(t[k : k + 1] for t in batch)) for k in range(3)]
    assert addresses(module) == before
    for k, out in enumerate(whole):
        assert len(out) == 3
        torch.testing.assert_close(out, torch.cat([r[k] for r in rows]), rtol=1e-4, atol=1e-3)


@pytest.mark.ultralytics
def test_an_engine_can_have_it_whole(part):
    """One graph without breaks, and images may lie channels last."""
    module, batch = part
    wanted = outputs(module, *batch)
    with torch.inference_mode():
        torch.compile(module, fullgraph=True, dynamic=False, backend="eager")(*batch)
    module.to(memory_format=torch.channels_last)
    last = (batch[0].contiguous(memory_format=torch.channels_last), *batch[1:])
    for out, want in zip(outputs(module, *last), wanted, strict=True):
        torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-3)


@pytest.mark.ultralytics
def test_half_precision_is_near(part):
    module, batch = part
    wanted = outputs(module, *batch)
    halved = module.halve() if hasattr(module, "halve") else module.half()
    assert next(halved.parameters()).dtype == torch.float16
    for out, want in zip(outputs(halved, *batch), wanted, strict=True):
        apart, scale = (out - want).abs(), want.square().mean().sqrt()
        assert float(apart.mean() / scale) < 1e-2
        assert float(apart.mean()) > 0  # It was computed in half precision indeed.


@pytest.mark.ultralytics
@pytest.mark.parametrize("attention", ATTENTION)
def test_the_encoder_is_ultralytics_own(small_sam, attention):
    images = pictures(2, 320) * 4 - 2
    with torch.inference_mode():
        theirs = small_sam.image_encoder(images)
        ours = SamEncoder(copy.deepcopy(small_sam.image_encoder), attention)
        torch.testing.assert_close(ours(images), theirs, rtol=1e-4, atol=1e-4)
        for block in ours.net.blocks:  # The relative positions have their say.
            block.attn.rel_h.mul_(0)
        assert float((ours(images) - theirs).abs().max()) > 1e-2


@pytest.mark.ultralytics
def test_the_decoder_is_ultralytics_own_for_people_of_several_pictures(small_sam):
    source = torch.Generator().manual_seed(5)
    embedding = torch.randn((3, 64, 20, 20), generator=source)
    boxes = torch.tensor([[10.0, 20, 200, 300], [0, 0, 319, 319], [100.5, 50, 130, 60]])
    prompts, decoder = small_sam.prompt_encoder, small_sam.mask_decoder
    with torch.inference_mode():
        ours = SamDecoder(copy.deepcopy(prompts), copy.deepcopy(decoder))
        masks, quality = ours(embedding, boxes)
        assert masks.shape == (3, 80, 80)
        assert quality.shape == (3,)
        for k in range(3):
            sparse, dense = prompts(None, boxes[k : k + 1], None)
            wanted = decoder(embedding[k : k + 1], prompts.get_dense_pe(), sparse, dense, False)
            torch.testing.assert_close(masks[k], wanted[0][0, 0], rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(quality[k], wanted[1][0, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.ultralytics
def test_mobile_sam_takes_its_biases_from_the_weights(tasks):
    """ultralytics makes them once, from what the weights were when it last left training."""
    vit = ultralytics("models.sam.build").TinyViT
    torch.manual_seed(0)
    net = vit(
        img_size=224, embed_dims=(8, 16, 16, 320), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2)
    )
    net = scattered(net.eval())
    images = pictures(2, 224)
    with torch.inference_mode():
        for part in net.modules():
            if hasattr(part, "attention_biases"):
                part.attention_biases.normal_()
        stale = net(images)
        ours = SamEncoder(copy.deepcopy(net))
        theirs = net.train().eval()(images)
        torch.testing.assert_close(ours(images), theirs, rtol=1e-4, atol=1e-4)
        assert float((stale - theirs).abs().max()) > 1e-4
        half = copy.deepcopy(ours).half()
        assert half.net.layers[1].blocks[0].attn.ab.dtype == torch.float16


@pytest.mark.ultralytics
@pytest.mark.parametrize("name", ["yolo26n-pose", "yolo26n-depth", "fastsam-s"])
def test_weights_come_back_from_the_file_ultralytics_writes(tasks, name, tmp_path):
    kinds = {"pose": ("PoseModel", f"{name}.yaml"), "depth": ("DepthModel", f"{name}.yaml")}
    kind, cfg = kinds.get(name.split("-")[-1], ("SegmentationModel", "yolov8s-seg.yaml"))
    net = yolo(tasks, kind, cfg)
    torch.save(as_shipped(net), tmp_path / "net.pt")
    images = pictures(1, 64)
    with torch.inference_mode():
        model = build(name, tmp_path / "net.pt", side=64)
        assert model.weights == "real"
        again = type(model)(net.half().float(), 64)
        got, wanted = (
            out if isinstance(out, tuple) else (out,) for out in (model(images), again(images))
        )
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.ultralytics
def test_without_weights_a_model_says_so_and_is_the_same_each_time(tasks):
    one, same, other = (build("yolo26n-pose", seed=seed, side=64) for seed in (1, 1, 2))
    assert one.weights == "random"
    images = pictures(1, 64)
    with torch.inference_mode():
        assert torch.equal(one(images), same(images))
        assert not torch.equal(one(images), other(images))


@pytest.mark.slow
@pytest.mark.ultralytics
@pytest.mark.parametrize("name", ["mobile-sam", "sam-b"])
def test_sam_as_published_goes_through_its_file(tasks, name, tmp_path):
    made = {"mobile-sam": "build_mobile_sam", "sam-b": "build_sam_vit_b"}[name]
    net = getattr(ultralytics("models.sam.build"), made)()
    path = tmp_path / "sam.pt"
    torch.save(net.state_dict(), path)
    sam = build(name, path)
    path.unlink()
    assert sam.weights == "real"
    with torch.inference_mode():
        embedding = sam.encoder(torch.zeros(1, 3, 1024, 1024))
        assert embedding.shape == (1, 256, 64, 64)
        masks, quality = sam.decoder(embedding, torch.tensor([[100.0, 100, 400, 900]]))
    assert masks.shape == (1, 256, 256)
    assert quality.shape == (1,)


@pytest.mark.ultralytics
def test_another_networks_weights_are_refused(tasks, tmp_path):
    torch.save(as_shipped(yolo(tasks, "PoseModel", "yolo26n-pose.yaml")), tmp_path / "pose.pt")
    for name in ("yolo26s-pose", "yolo26n-depth"):
        with pytest.raises(CheckpointError, match=f"not the weights of {name}"):
            build(name, tmp_path / "pose.pt")


def test_names_that_are_no_model():
    with pytest.raises(ValueError, match="there is no model 'sam-z'"):
        build("sam-z")
    with pytest.raises(ValueError, match="1024"):
        build("sam-b", side=512)
    assert {"sam-h", "sam-b", "mobile-sam", "fastsam-s", "fastsam-x"} < set(MODELS)


@pytest.mark.skipif(importlib.util.find_spec("ultralytics") is not None, reason="it is installed")
def test_without_ultralytics_the_extra_is_named():
    with pytest.raises(UltralyticsError, match=r"bodystream\[ultralytics\]"):
        build("yolo26n-pose")


@pytest.mark.gpu
@pytest.mark.ultralytics
@pytest.mark.parametrize("half", [False, True])
def test_an_engine_replays_it_on_a_gpu(part, half):
    """Graphs of two batch sizes, called in turn, without the host ever waiting."""
    module, batch = part
    wanted = outputs(module, *batch)
    engine = make_engine(module, batch, engine="eager", half=half, buckets=(1, 4))
    assert engine.report.graphs
    on_gpu = tuple(t.cuda() for t in batch)
    one = tuple(t[1:2] for t in on_gpu)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            whole = tuple(t.clone() for t in engine(*on_gpu))
            single = tuple(t.clone() for t in engine(*one))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for out, alone, want in zip(whole, single, wanted, strict=True):
        scale = float(want.square().mean().sqrt())
        near = (2e-2 if half else 5e-3) * scale  # TF32 may be on.
        assert float((out.cpu() - want).abs().mean()) < near
        assert float((alone.cpu() - want[1:2]).abs().mean()) < near


@pytest.mark.gpu
@pytest.mark.ultralytics
@pytest.mark.parametrize("attention", ATTENTION)
def test_the_encoders_attentions_agree_on_a_gpu_in_half_precision(small_sam, attention):
    images = (pictures(2, 320) * 4 - 2).cuda()
    with torch.inference_mode():
        wanted = small_sam.image_encoder(images.cpu()).cuda()
        ours = SamEncoder(copy.deepcopy(small_sam.image_encoder), attention).cuda().half()
        got = ours(images).float()
    assert float((got - wanted).abs().mean() / wanted.square().mean().sqrt()) < 1e-2


@pytest.mark.gpu
def test_pictures_and_instances_are_made_on_a_gpu_without_waiting():
    images = torch.randint(0, 255, (2, 90, 160, 3), dtype=torch.uint8)
    prototypes, rows = torch.rand(2, fastsam.COEFFICIENTS, 16, 16), torch.rand(2, 50, fastsam.ROW)
    rows[..., :4] = rows[..., :4] * 30 + torch.tensor([0, 0, 30, 30])
    boxes, picture = torch.tensor([[5.0, 5, 40, 50], [0, 0, 60, 60]]), torch.tensor([1, 0])
    wanted = for_yolo(images, 64)[0], *fastsam.instances_in_boxes(prototypes, rows, boxes, picture)
    there = [t.cuda() for t in (images, prototypes, rows, boxes, picture)]

    def run():
        square, box = for_yolo(there[0], 64)
        box.to_image(there[3])
        return square, *fastsam.instances_in_boxes(*there[1:])

    run()  # Constants are brought over once.
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for out, want in zip(got, wanted, strict=True):
        torch.testing.assert_close(out.cpu(), want, rtol=1e-4, atol=1e-4)


# --- instances for boxes ------------------------------------------------------------------------


def row(box, score, coefficient):
    return torch.tensor([*box, score, coefficient, *[0.0] * (fastsam.COEFFICIENTS - 1)])


def test_an_instance_is_chosen_by_its_box_and_stays_inside_it():
    prototypes = torch.zeros(2, fastsam.COEFFICIENTS, 16, 16)
    prototypes[:, 0] = 1
    person = (8.0, 8.0, 39.0, 55.0)
    rows = torch.stack(
        [
            torch.stack([row((0, 0, 63, 63), 0.9, 1), row(person, 0.8, 2), row(person, 0.05, 3)]),
            torch.stack([row((40, 0, 60, 20), 0.9, 4), row(person, 0.0, 5), row(person, 0.02, 6)]),
        ]
    )
    boxes = torch.tensor([person, person, (200.0, 200, 210, 210), (41, 0, 60, 20)])
    masks, agreement = fastsam.instances_in_boxes(
        prototypes, rows, boxes, torch.tensor([0, 1, 0, 1])
    )
    assert float(masks[0].max()) == 2
    inside = np.argwhere(masks[0].numpy() > 0)
    assert (inside.min(0) == (2, 2)).all()
    assert (inside.max(0) == (13, 9)).all()
    assert agreement[0] == pytest.approx(1)
    # Noise belongs to no person, and where there is no instance there is no mask.
    assert float(masks[1].max()) == fastsam.BACKGROUND
    assert float(masks[2].max()) == fastsam.BACKGROUND
    assert agreement[1:3].tolist() == [0, 0]
    assert float(masks[3].max()) == 4
    assert float(agreement[3]) == pytest.approx(19 / 20)
    first = fastsam.instances_in_boxes(prototypes, rows, boxes[:1])
    assert torch.equal(first[0][0], masks[0])
    nobody = fastsam.instances_in_boxes(prototypes, rows, boxes[:0])
    assert nobody[0].shape == (0, 16, 16)


# --- pictures -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from((64, 640, 1024)), st.booleans())
def test_a_place_goes_to_the_picture_and_back(height, width, side, centred):
    box = Letterbox.of(height, width, side, centred=centred)
    points = torch.tensor([[-0.5, -0.5, width - 0.5, height - 0.5], [3.0, 4.0, 5.0, 6.0]])
    torch.testing.assert_close(box.to_image(box.to_picture(points)), points, rtol=1e-4, atol=0.05)
    edges = box.to_picture(points)[0] + 0.5  # The image's edges are the inner picture's.
    left, top = float(edges[0]), float(edges[1])
    assert left == pytest.approx(box.left, abs=1e-2)
    assert top == pytest.approx(box.top, abs=1e-2)
    assert float(edges[2]) == pytest.approx(box.left + box.inner[1], abs=1e-2)
    # A map's pixel lies where the picture's pixels under it do.
    to_image = box.map_to_image(side // 4)
    centre = torch.tensor([[4 * 5 + 1.5, 4 * 7 + 1.5]])
    np.testing.assert_allclose(
        to_image @ [5, 7, 1], box.to_image(centre)[0].numpy(), rtol=1e-4, atol=0.05
    )


def test_pictures_show_the_image_where_they_say():
    images = torch.zeros(1, 90, 160, 3, dtype=torch.uint8)
    images[:, 30:60, 40:80] = torch.tensor([200, 100, 50], dtype=torch.uint8)
    square, box = for_yolo(images, 64)
    assert square.shape == (1, 3, 64, 64)
    assert square[0, :, 0, 0].tolist() == pytest.approx([114 / 255] * 3)
    corner = box.to_picture(torch.tensor([[40.0, 30, 79, 59]]))[0]
    x0, y0, x1, y1 = (round(float(v)) for v in corner)
    centre = square[0, :, (y0 + y1) // 2, (x0 + x1) // 2]
    assert centre.tolist() == pytest.approx([200 / 255, 100 / 255, 50 / 255])
    bright = (square[0, 0] > 0.6).nonzero()
    assert bright.min(0).values.tolist() == pytest.approx([y0, x0], abs=1)
    assert bright.max(0).values.tolist() == pytest.approx([y1, x1], abs=1)
    normal, box = for_sam(images, 64)
    assert (box.left, box.top) == (0, 0)
    assert float(normal[0, :, 40:].abs().max()) < 1e-6
    black = [-123.675 / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    assert normal[0, :, 2, 2].tolist() == pytest.approx(black, rel=1e-5)
    with pytest.raises(ValueError, match="uint8"):
        for_sam(images.float(), 64)
