"""Masks of several networks against one another, without a network."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from app.bench import masks
from app.cli import main
from pipeline.core.frame import Frame, Window
from pipeline.core.people import Mask, Person
from pipeline.weights import store as weights
from tests.support.paths import SAMPLE


def square(x, side=20):
    """Return a person whose mask is a square of the image."""
    to_image = np.array([[1, 0, x], [0, 1, 10]], np.float32)
    box = np.array([x, 10, x + side, 10 + side], np.float32)
    marks = np.zeros((33, 2), np.float32)
    mask = Mask(np.ones((side, side), np.float32), to_image)
    return Person(box, 1.0, marks, np.ones(33, np.float32), np.zeros((33, 3), np.float32), mask)


def window_of(count):
    image = np.zeros((60, 100, 3), np.uint8)
    return Window(tuple(Frame(k, "s", 0, k / 30, image) for k in range(count)))


def test_overlaps_are_those_of_the_pixels():
    pairs = {("a", "b"): masks.Agreement(), ("a", "c"): masks.Agreement()}
    here = {
        "a": [(square(10),), (square(10), square(50))],
        "b": [(square(10),), (square(20), square(80))],
        "c": [(replace(square(10), mask=None),), (square(15), square(50))],
    }
    masks.add(pairs, window_of(2), here)
    # Half of a square moved away leaves a third of both.
    assert pairs["a", "b"].overlaps == pytest.approx([1.0, 1 / 3, 0.0])
    assert pairs["a", "c"].overlaps == pytest.approx([0.0, 0.6, 1.0])
    figures = pairs["a", "b"].as_json()
    assert figures["persons"] == 3
    assert figures["worst"] == {"frame": 1, "iou": 0.0}
    assert figures["iou_mean"] == pytest.approx(4 / 9, abs=1e-4)


@pytest.mark.weights
def test_what_is_not_here_is_not_measured(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(masks, "make_segmenter", None)
    monkeypatch.setattr(masks.weights, "find", refuse(weights.find))
    assert main(["bench", "--compare-masks", str(SAMPLE), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["pairs"] == {}
    assert set(result["not_measured"]) == set(masks.NETWORKS)
    assert main(["bench", "--compare-masks", str(SAMPLE)]) == 0
    assert capsys.readouterr().out.count("not measured: Get it with: ") == len(masks.NETWORKS)


def refuse(find):
    """The default models' files are here, no other's are."""

    def look(name, folder=None):
        if name in weights.REGISTRY:
            return find(name, folder)
        raise weights.WeightsError(f"{name} is missing.\nGet it with: fetch {name}")

    return look


@pytest.mark.weights
def test_a_network_is_held_against_our_own(monkeypatch, tmp_path):
    """A network that returns every mask unchanged agrees fully, for the people of every frame."""
    short = tmp_path / "short.mp4"
    cut(SAMPLE, short, 8)

    class Same:
        def __init__(self, base):
            self.base = base

        def embed(self, window, memory):
            return self.base.embed(window, memory)

        def decode(self, embedding, window):
            return self.base.decode(embedding, window)

    find = weights.find
    there = {"mobile-sam": {"file": short}}
    monkeypatch.setattr(
        masks.weights, "find",
        lambda name, folder=None: there[name] if name in there else refuse(find)(name, folder),
    )  # fmt: skip
    monkeypatch.setattr(masks, "make_segmenter", lambda *_: Same)
    result = masks.compare(short, 1, None, "cpu")
    assert list(result["pairs"]) == ["own/mobile-sam"]
    figures = result["pairs"]["own/mobile-sam"]
    assert figures["persons"] == 8
    assert figures["iou_mean"] == figures["worst"]["iou"] == 1.0


def cut(source, target, frames):
    import av

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        out = new.add_stream("libx264", rate=30)
        first = old.streams.video[0]
        out.width, out.height, out.pix_fmt = first.width, first.height, "yuv420p"
        for k, picture in enumerate(old.decode(first)):
            if k == frames:
                break
            picture.pts = None
            new.mux(out.encode(picture))
        new.mux(out.encode())


def test_a_clip_that_is_not_there_is_one_line(capsys):
    assert main(["bench", "--compare-masks", "none.mp4"]) == 1
    said = capsys.readouterr().err
    assert "none.mp4" in said
    assert len(said.strip().splitlines()) <= 3
