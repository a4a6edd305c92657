"""`run` and `evaluate` with networks of the user's, on the sample with discs on its person."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from app import cli
from pipeline.core.skeleton import BLAZEPOSE_33, COCO_17, MHR_70
from tests.support.onnx_files import colours, dotted, write_network
from tests.support.paths import SAMPLE, TRUTH

pytestmark = [pytest.mark.weights, pytest.mark.slow]
FRAMES = 24


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A lossless clip: the sample with a disc of its own colour on each of COCO's points."""
    folder = tmp_path_factory.mktemp("marked")
    with np.load(TRUTH) as truth:
        arrays = {name: truth[name] for name in truth}
    points = arrays["landmarks_px"][:, BLAZEPOSE_33.indices(*COCO_17.names)]
    whole = len(points)
    np.savez(
        folder / "truth.npz",
        **{name: a[:FRAMES] if a.shape[:1] == (whole,) else a for name, a in arrays.items()},
    )
    capture = cv2.VideoCapture(str(SAMPLE))
    writer = None
    for k in range(FRAMES):
        image = np.ascontiguousarray(capture.read()[1][..., ::-1])
        image = dotted(image, points[k], colours(17), 4)[..., ::-1]
        if writer is None:
            code = cv2.VideoWriter_fourcc(*"FFV1")
            writer = cv2.VideoWriter(str(folder / "clip.mkv"), code, 30, image.shape[1::-1])
        writer.write(image)
    writer.release()
    return folder


def run(capsys, *words):
    code = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("head", ["simcc", "heatmap"])
def test_bodies_follow_a_landmark_network(marked, tmp_path, capsys, head):
    file = write_network(tmp_path / "points.onnx", head, colours(17))
    lines = tmp_path / "out.jsonl"
    code, out, err = run(
        capsys, "run", marked / "clip.mkv", "--estimator", "onnx", "--model", file,
        "--jsonl", lines, "--people", "1",
    )  # fmt: skip
    assert code == 0, err
    assert "points.onnx: ONNX Runtime" in out + err
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) == FRAMES
    assert sum(len(row["bodies"]) == 1 for row in rows) >= FRAMES - 4
    assert {body["track"] for row in rows for body in row["bodies"]} == {1}


@pytest.mark.parametrize("head", ["simcc", "instanthmr"])
def test_evaluate_takes_any_estimator(marked, tmp_path, capsys, head):
    """The network's points are the truth's, so what is perceived is off by parts of a pixel."""
    if head == "instanthmr":
        palette = colours(17)[[COCO_17.index(name) for name in nearest_of_coco()]]
        words = ["--estimator", "instanthmr"]
        file = write_network(tmp_path / "n.onnx", head, palette, (224, 224))
    else:
        words = ["--estimator", "onnx"]
        file = write_network(tmp_path / "n.onnx", head, colours(17))
    code, out, err = run(
        capsys, "evaluate", marked / "clip.mkv", "--truth", marked / "truth.npz", *words,
        "--model", file, "--json", tmp_path / "figures.json",
    )  # fmt: skip
    assert code == 0, err
    figures = json.loads((tmp_path / "figures.json").read_text())["figures"]
    found = {name: (row["mesh"], row["perceived"]) for name, row in figures.items()}
    assert found["coverage_pct"][0] > 80
    assert found["ghosts"][0] == found["switches"][0] == 0
    # In the picture, at 720 lines; most of the landmarks that COCO lacks count too.
    assert found["landmarks_px"][1] < 6
    assert found["mpjpe_mm"][0] is not None
    assert (found["mpjpe_mm"][1] is None) == (head == "simcc")


def nearest_of_coco() -> list[str]:
    """For each of MHR's points the one of COCO's that stands in for it in this test."""
    out = []
    for name in MHR_70.names:
        side = name.split("_")[0]
        hand = "ankle" if "toe" in name or "heel" in name else "wrist"
        other = "nose" if side == "neck" else f"{side}_{hand}"
        out.append(name if name in COCO_17 else other)
    return out
