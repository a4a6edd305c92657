"""The networks' own kernels compute what the reference module computes, layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d

from pipeline.gpu.engine_module import without_tf32
from pipeline.perception.blazepose import tflite
from pipeline.perception.blazepose.landmarks import INPUT, MASK
from pipeline.perception.blazepose.landmarks_torch import LandmarkNet
from pipeline.perception.blazepose.perceiver_gpu import DetectorNet, example_view
from pipeline.perception.blazepose.tflite import Graph, Operator, Tensor, read_graph
from pipeline.perception.blazepose.tflite_torch import GraphModule

pytest.importorskip("triton")
from pipeline.perception.blazepose.landmarks_gpu import LandmarkNetGpu  # noqa: E402
from pipeline.perception.blazepose.tflite_gpu import FusedGraph  # noqa: E402

SAME, VALID = 0, 1
NO_ACT, RELU, RELU6 = 0, 1, 3
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Net:
    """A graph that grows layer by layer; every method returns the number of its result."""

    def __init__(self, height, width, channels=3, seed=0):
        self.random = np.random.default_rng(seed)
        self.tensors, self.operators = [], []
        self.input = self._tensor((1, height, width, channels))

    def _tensor(self, shape, values=None):
        self.tensors.append(Tensor("", tuple(shape), np.float32, values))
        return len(self.tensors) - 1

    def _constant(self, *shape):
        return self._tensor(shape, self.random.normal(size=shape).astype(np.float32) * 0.3)

    def _add(self, code, inputs, shape, *options):
        out = self._tensor(shape)
        self.operators.append(Operator(code, tuple(inputs), (out,), options))
        return out

    def shape(self, x):
        return self.tensors[x].shape

    def _size(self, x, side, stride, padding):
        return [
            -(-n // stride) if padding == SAME else (n - side) // stride + 1
            for n in self.shape(x)[1:3]
        ]

    def conv(self, x, outputs, side=1, stride=1, padding=SAME, act=NO_ACT):
        weights = self._constant(outputs, side, side, self.shape(x)[3])
        shape = (1, *self._size(x, side, stride, padding), outputs)
        inputs = (x, weights, self._constant(outputs))
        return self._add(tflite.CONV_2D, inputs, shape, padding, stride, stride, act)

    def deep(self, x, side=3, stride=1, padding=SAME, act=NO_ACT):
        channels = self.shape(x)[3]
        shape = (1, *self._size(x, side, stride, padding), channels)
        inputs = (x, self._constant(1, side, side, channels), self._constant(channels))
        return self._add(tflite.DEPTHWISE_CONV_2D, inputs, shape, padding, stride, stride, 1, act)

    def add(self, a, b, act=NO_ACT):
        return self._add(tflite.ADD, (a, b), self.shape(a), act)

    def pad(self, x, *sides):
        table = np.array([(0, 0), *sides])
        shape = [n + int(p.sum()) for n, p in zip(self.shape(x), table)]
        return self._add(tflite.PAD, (x, self._tensor(table.shape, table)), shape)

    def pool(self, x):
        _, height, width, channels = self.shape(x)
        shape = (1, height // 2, width // 2, channels)
        return self._add(tflite.MAX_POOL_2D, (x,), shape, VALID, 2, 2, 2, 2)

    def enlarge(self, x, factor=2):
        _, height, width, channels = self.shape(x)
        shape = (1, factor * height, factor * width, channels)
        return self._add(tflite.RESIZE_BILINEAR, (x,), shape, 0, 0, 0, 1)

    def simple(self, code, inputs, shape, *options):
        return self._add(code, inputs, shape, *options)

    def graph(self, *ends):
        return Graph(tuple(self.tensors), tuple(self.operators), (self.input,), ends)


def compare(net, *ends, batch=2, tolerance=1e-4):
    """Compare the two modules' results, as shares of their scale; return the new one's steps."""
    graph = net.graph(*ends)
    reference = GraphModule(graph).eval().to(DEVICE)
    fused = FusedGraph(GraphModule(graph).eval()).to(DEVICE)
    height, width, channels = net.shape(net.input)[1:]
    torch.manual_seed(1)
    images = torch.randn(batch, channels, height, width, device=DEVICE)
    with torch.inference_mode(), without_tf32():
        for one, other in zip(reference(images), fused(images), strict=True):
            assert one.shape == other.shape
            scale = one.square().mean().sqrt().clamp_min(1e-6)
            assert ((one - other).abs().max() / scale).item() < tolerance
    return len(fused._steps)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 3), st.integers(5, 9), st.integers(5, 9), st.sampled_from([1, 2, 3, 5]),
    st.sampled_from([1, 2]), st.sampled_from([SAME, VALID]), st.sampled_from([0, 1, 3]),
    st.integers(1, 40), st.integers(0, 99),
)  # fmt: skip
def test_a_convolution(batch, height, width, side, stride, padding, act, outputs, seed):
    net = Net(height, width, seed=seed)
    compare(net, net.conv(net.input, outputs, side, stride, padding, act), batch=batch)


@settings(max_examples=8, deadline=None)
@given(
    st.integers(5, 9), st.integers(5, 9), st.sampled_from([3, 5]), st.sampled_from([1, 2]),
    st.sampled_from([SAME, VALID]), st.sampled_from([0, 1, 3]), st.sampled_from([8, 24, 72]),
    st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_a_depthwise_convolution_alone_and_before_another(
    height, width, side, stride, padding, act, channels, alone, seed
):
    net = Net(height, width, channels, seed)
    deep = net.deep(net.input, side, stride, padding, act)
    # What two layers read is not taken in.
    ends = (deep, net.conv(deep, 16)) if alone else (net.conv(deep, 16, act=act),)
    steps = compare(net, *ends)
    assert steps == (1 if channels <= 64 and not alone else 2)


@pytest.mark.parametrize("act", [NO_ACT, RELU])
def test_sums_are_taken_in_by_the_convolution_on_either_side(act):
    net = Net(6, 6, 8)
    first = net.conv(net.input, 16, act=RELU)
    second = net.conv(first, 16)
    assert compare(net, net.add(second, first, act)) == 2
    net = Net(6, 6, 8)
    first = net.conv(net.input, 16, act=RELU)
    assert compare(net, net.add(first, net.conv(first, 16), act)) == 2


def test_a_sum_that_no_layer_can_take_in():
    net = Net(6, 6, 8)
    both = net.conv(net.input, 8, act=RELU), net.conv(net.input, 8, act=RELU)
    assert compare(net, net.add(*both)) == 3


def test_padding_before_a_layer_and_of_channels_before_a_sum():
    net = Net(8, 8, 8)
    padded = net.pad(net.input, (1, 0), (0, 1), (0, 0))
    small = net.conv(net.deep(padded, 3, 2, VALID), 16)
    pooled = net.pad(net.pool(net.input), (0, 0), (0, 0), (0, 8))
    # The pool, and the rest in one.
    assert compare(net, net.add(pooled, small, RELU)) == 2


def test_padding_that_two_layers_read_stays():
    net = Net(8, 8, 8)
    padded = net.pad(net.input, (1, 1), (2, 1), (0, 0))
    compare(net, net.conv(padded, 8, 3, 2, VALID), net.conv(padded, 8, 3, 2, VALID))


@pytest.mark.parametrize("size", [(3, 5), (1, 1), (8, 4)])
def test_an_enlargement_with_and_without_a_sum(size):
    net = Net(*size, 8)
    assert compare(net, net.enlarge(net.input)) == 1
    net = Net(*size, 8)
    large = net.enlarge(net.input)
    assert compare(net, net.add(large, net.enlarge(net.conv(net.input, 8)), RELU)) == 3


def test_what_only_moves_numbers():
    net = Net(4, 4, 8)
    spread = net.simple(tflite.DEPTH_TO_SPACE, (net.input,), (1, 8, 8, 2), 2)
    joined = net.simple(tflite.CONCATENATION, (net.input, net.input), (1, 4, 4, 16), 3, 0)
    flat = net.simple(tflite.RESHAPE, (net.input,), (1, 16, 8))
    sure = net.simple(tflite.LOGISTIC, (net.conv(net.input, 1),), (1, 4, 4, 1))
    compare(net, spread, joined, flat, sure)


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([1, 3]), st.sampled_from([2, 4]), st.integers(1, 3), st.integers(0, 99))
def test_means_of_a_convolution_are_one_with_larger_steps(side, factor, outputs, seed):
    net = Net(8, 12, 8, seed)
    graph = net.graph(net.conv(net.input, outputs, side))
    images = torch.randn(2, 8, 8, 12, device=DEVICE)
    with torch.inference_mode(), without_tf32():
        means = avg_pool2d(
            GraphModule(graph).to(DEVICE)(images)[0].permute(0, 3, 1, 2), factor
        ).permute(0, 2, 3, 1)
        fused = FusedGraph(GraphModule(graph), {graph.outputs[0]: factor}).to(DEVICE)
        assert torch.allclose(fused(images)[0], means, atol=1e-4)


@pytest.mark.parametrize("wrong", [RELU, "factor"])
def test_means_of_anything_else_are_refused(wrong):
    net = Net(8, 8, 8)
    graph = net.graph(net.conv(net.input, 8, act=NO_ACT if wrong == "factor" else wrong))
    with pytest.raises(ValueError, match="means of"):
        FusedGraph(GraphModule(graph), {graph.outputs[0]: 3})


def test_half_precision_keeps_the_last_layers_exact():
    net = Net(8, 8)
    wide = net.conv(net.input, 16, 3, 2, act=RELU)
    end = net.conv(net.deep(wide), 5, 2, 2, VALID)
    graph = net.graph(end)
    half = GraphModule(graph).eval().halve().to(DEVICE)
    images = torch.randn(3, 3, 8, 8, device=DEVICE)
    with torch.inference_mode(), without_tf32():
        out = FusedGraph(half).to(DEVICE)(images)[0]
        exact = GraphModule(graph).eval().to(DEVICE)(images)[0]
    assert out.dtype == torch.float32
    scale = exact.square().mean().sqrt()
    assert ((out - exact).abs().mean() / scale).item() < 3e-3


def test_layers_that_the_kernels_do_not_know_are_refused():
    net = Net(4, 4, 8)
    shape = (1, 8, 8, 8)
    corners = net.simple(tflite.RESIZE_BILINEAR, (net.input,), shape, 0, 0, 1, 0)
    with pytest.raises(ValueError, match="half pixels"):
        FusedGraph(GraphModule(net.graph(corners)))


@pytest.mark.gpu
@pytest.mark.parametrize("batch", [1, 4, 8, 16])
@pytest.mark.parametrize("make", [DetectorNet, LandmarkNet])
def test_the_shipped_networks_on_a_gpu(files, make, batch):
    name, side, low = {
        DetectorNet: ("pose_detection.tflite", 224, -1.0),
        LandmarkNet: ("pose_landmark_full.tflite", 256, 0.0),
    }[make]
    graph = read_graph(files[name])
    images = example_view(side, low).cuda() * torch.rand(batch, 1, 1, 1, device="cuda")
    with torch.inference_mode(), without_tf32():
        exact = make(graph).eval().cuda()(images)
        out = make(graph).eval().halve().with_kernels().cuda()(images)
    scale = exact.square().mean().sqrt()
    assert ((exact - out).abs().mean() / scale).item() < 1e-2


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 3), st.integers(0, 99))
def test_reading_the_landmarks_is_what_torch_does(batch, seed):
    """Points inside, at the edges and far outside; heat that is enough and heat that is not."""
    random = torch.Generator().manual_seed(seed)

    def made(*shape, scale=1.0):
        return scale * torch.randn(batch, *shape, generator=random)

    values = made(195, scale=200)
    presence, logits, world = made(1), made(MASK, MASK, 1, scale=3), made(117)
    heatmaps = made(64, 64, 39, scale=2) - 2
    outputs = tuple(t.to(DEVICE) for t in (values, presence, logits, heatmaps, world))
    net = LandmarkNet.__new__(LandmarkNet)
    torch.nn.Module.__init__(net)
    large = torch.nn.functional.interpolate(
        outputs[2].permute(0, 3, 1, 2), scale_factor=INPUT // MASK
    )
    net.net = lambda crops: (*outputs[:2], large.permute(0, 2, 3, 1), *outputs[3:])
    ours = LandmarkNetGpu.__new__(LandmarkNetGpu)
    torch.nn.Module.__init__(ours)
    ours.net = lambda crops: outputs
    crops = torch.zeros(batch, 3, 1, 1)
    assert torch.allclose(ours(crops), net(crops), atol=1e-5)
