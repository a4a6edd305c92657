"""Which pictures outputs get: planes where a GPU draws and all of them take planes."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from app import body_renderer, render_loop
from app.config import Config, OutputConfig, RenderConfig
from app.outputs.base import Output
from app.render_loop import RenderLoop
from app.serve.channel import Channel
from pipeline.core.frame import Frame
from pipeline.core.stats import Stats
from pipeline.core.yuv import BT709, Pixels, YuvImage, rgb_of
from tests.support.bodies import bodies, made_up_body
from tests.support.planes import painting, planes_of

pytest.importorskip("triton")
SIZE = (48, 200)
LENS = np.array([[90.0, 0, 100], [0, 90.0, 24], [0, 0, 1]])


class Shown:
    """An output that collects its pictures."""

    needs_picture = True
    files = warnings = ()

    def __init__(self) -> None:
        self.pictures: list[Pixels] = []

    def open(self, info: Any) -> None: ...

    def write(self, frame: Frame, bodies: Any, picture: Any) -> None:
        self.pictures.append(picture)

    def close(self) -> None: ...


class ShownAsPlanes(Shown):
    takes_planes = True


def draw(monkeypatch, outputs: list[Output], frames: list[Frame], **render) -> None:
    """Draw a window by the GPU's renderer; without a GPU in Triton's interpreter."""
    from render.rasterize_gpu import GpuRenderer

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(body_renderer, "make_renderer", lambda name: GpuRenderer(device))
    estimator = SimpleNamespace(
        body=SimpleNamespace(**vars(made_up_body()), name="free", gender="neutral"),
        device=device, intrinsics=lambda frame: LENS, reports=(),
    )  # fmt: skip
    window = [(frame, bodies([1])) for frame in frames]
    source = SimpleNamespace(name="s", live=True, info=SimpleNamespace(fps=30.0, frame_count=None))
    run = SimpleNamespace(
        source=source, estimator=estimator, stats=Stats(), windows=lambda: iter([window]),
        low_latency=False,
    )  # fmt: skip
    monkeypatch.setattr(RenderLoop, "_hud_lines", lambda self, count: ["1 person"])
    loop = RenderLoop(Config(source="s", render=RenderConfig(**render)), run, outputs, None)
    loop._draw_all()


@pytest.mark.parametrize("planes", [False, True], ids=["RGB frames", "frames as planes"])
@pytest.mark.parametrize("hud", [False, True], ids=["no words", "words"])
def test_planes_show_what_rgb_shows(monkeypatch, planes, hud):
    kind = planes_of if planes else lambda seed, size, colour: painting(seed, *size)
    frames = [Frame(k, "s", 0, k / 30, kind(k, SIZE, BT709)) for k in range(2)]
    as_rgb, as_planes = Shown(), ShownAsPlanes()
    draw(monkeypatch, [as_rgb], frames, renderer="gpu", hud=hud)
    draw(monkeypatch, [as_planes], frames, renderer="gpu", hud=hud)
    for rgb, yuv in zip(as_rgb.pictures, as_planes.pictures, strict=True):
        assert isinstance(rgb, np.ndarray)
        assert isinstance(yuv, YuvImage)
        assert yuv.colour == BT709
        luma = np.array([0.2126, 0.7152, 0.0722])
        # Chroma is halved, luma is not; a colour that RGB has not is cut off.
        assert np.abs((rgb - yuv.rgb.astype(float)) @ luma).mean() < 1


@pytest.mark.parametrize(
    ("outputs", "settings"),
    [([ShownAsPlanes, Shown], {}), ([ShownAsPlanes], {"labels": True})],
    ids=["one needs RGB", "labels"],
)
def test_all_get_rgb_where_it_is_needed(monkeypatch, outputs, settings):
    made = [each() for each in outputs]
    frames = [Frame(0, "s", 0, 0.0, planes_of(0, SIZE, BT709))]
    draw(monkeypatch, made, frames, renderer="gpu", hud=False, **settings)
    for output in made:
        assert [type(each) for each in output.pictures] == [np.ndarray]


@pytest.mark.parametrize("planes", [False, True], ids=["RGB frames", "frames as planes"])
def test_another_style_is_drawn_from_the_next_window_on(monkeypatch, planes):
    """From a GPU's renderer to those on the CPU and back."""
    kind = planes_of if planes else lambda seed, size, colour: painting(seed, *size)
    made = []
    monkeypatch.setattr(RenderLoop, "_draw_all", lambda self: made.append(self))
    shown, frame = ShownAsPlanes(), Frame(0, "s", 0, 0.0, kind(0, SIZE, BT709))
    draw(monkeypatch, [shown], [frame], renderer="gpu", hud=False)
    (loop,) = made
    for style in ("mannequin", "skeleton", "off", "wireframe", "mannequin"):
        loop.draw_as(RenderConfig(renderer="gpu", style=style, hud=False))
        loop._draw_window([(frame, bodies([1]))])
    first, bones, nothing, edges, last = (rgb_of(each) for each in shown.pictures)
    assert np.array_equal(nothing, frame.image)
    assert np.array_equal(first, last)
    for one, other in itertools.combinations((first, bones, nothing, edges), 2):
        assert not np.array_equal(one, other)


def test_words_are_written_into_planes_as_into_rgb():
    rgb, yuv = painting(1, 240, 320), planes_of(1, (240, 320), BT709)
    render_loop._add_hud(rgb, ["30.0 fps   2 people"])
    render_loop._add_hud(yuv, ["30.0 fps   2 people"])
    luma = np.array([0.2126, 0.7152, 0.0722])
    assert np.abs((rgb - yuv.rgb.astype(float)) @ luma).mean() < 1.5


def test_a_page_shows_planes_as_jpeg(tmp_path):
    now = [0.0]
    channel = Channel(lambda: "", lambda: tmp_path / "v.mp4", lambda: now[0], OutputConfig())
    channel.open(SimpleNamespace())
    channel._asked_s = 0.0
    yuv = planes_of(1, (48, 64), BT709)
    channel.write(Frame(0, "s", 0, 0.0, yuv), bodies([]), yuv)
    number, jpeg = channel.picture(0, 0.0)
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert number == 1
    assert np.abs(shown.astype(int) - rgb_of(yuv)).mean() < 6
