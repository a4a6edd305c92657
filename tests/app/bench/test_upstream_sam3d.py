"""The row of the original SAM 3D Body, with a stand-in for its clone."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from app.bench import record, subject, upstream_imports, upstream_sam3d
from app.bench.rows import ROWS, Row
from tests.support.bench import HERE, MACHINE

FILES = {
    "sam_3d_body/__init__.py": "from .estimator import SAM3DBodyEstimator\n",
    "sam_3d_body/estimator.py": """
from sam_3d_body.models.meta_arch import Checkpoints


class SAM3DBodyEstimator:
    def __init__(self, model, cfg):
        self.model, self.cfg, self.asked = model, cfg, []

    def process_one_image(self, img, bboxes, inference_type):
        print("a line for each image")
        # As the original does at times, only now.
        import torch.nn.functional
        self.asked.append((img.shape, bboxes.tolist(), inference_type))
        return [self.model.device.type for _ in bboxes]
""",
    "sam_3d_body/models/__init__.py": "",
    "sam_3d_body/models/meta_arch/__init__.py": """
import os

import braceexpand
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only
from timm.models.layers import drop_path, to_2tuple, trunc_normal_
from yacs.config import CfgNode

assert os.environ["MOMENTUM_ENABLED"] == "0"
log = rank_zero_only(print)


class Checkpoints(pl.callbacks.ModelCheckpoint):
    pass


class SAM3DBody(pl.LightningModule):
    def __init__(self, cfg):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.cfg = cfg
        self.own = torch.nn.Linear(*to_2tuple(2))
        trunc_normal_(drop_path(self.own.weight, 0.1, False))
        self.mhr = torch.jit.load(cfg.MODEL.MHR_HEAD.MHR_MODEL_PATH)
        if cfg.MODEL.BACKBONE.TYPE.startswith("dinov3"):
            self.backbone = torch.hub.load(
                "facebookresearch/dinov3", cfg.MODEL.BACKBONE.TYPE, source="github",
                pretrained=False, drop_path=cfg.MODEL.BACKBONE.get("DROP_PATH_RATE", 0.0),
            )
""",
    "dinov3/dinov3/__init__.py": "",
    "dinov3/dinov3/hub/__init__.py": "",
    "dinov3/dinov3/hub/backbones.py": """
import torch


def dinov3_vith16plus(*, pretrained):
    assert not pretrained
    return torch.nn.Linear(3, 3)
""",
}


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder with modules of the original's names, and random weights for them."""
    for name, text in FILES.items():
        file = tmp_path / "clone" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    weights = nn.ModuleDict({"own": nn.Linear(2, 2)})
    monkeypatch.setattr(upstream_sam3d, "random_parts", lambda backbone, device: (weights, {}))
    scripted = torch.jit.script(nn.Linear(1, 1))
    monkeypatch.setattr(upstream_sam3d, "write_rig", lambda _, file: torch.jit.save(scripted, file))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "clone"


def original_row(row_id: str) -> Row:
    (row,) = (row for row in ROWS if row.id == row_id)
    return replace(row, settings=replace(row.settings, device="cpu"))


@pytest.mark.parametrize(
    ("row_id", "kind"),
    [("sam3d-upstream", "body"), ("sam3d-upstream-vith", "body"), ("sam3d-upstream-full", "full")],
)
def test_the_original_gets_each_frame_with_its_box(clone, row_id, kind, monkeypatch, capsys):
    monkeypatch.setattr("app.bench.record.weights.find", lambda *_: {})
    monkeypatch.setattr("app.bench.record.stage_work", lambda *_: {})
    made = []
    options = record.Options(windows=2, warm=1, size=(64, 36), upstream_folder=clone)

    def make(settings):
        made.append(upstream_sam3d.UpstreamPipeline(settings))
        made.append(made[0]._estimator)
        return made[0]

    bench = record.Bench(options, make=make, ceilings_of=lambda _: HERE, hardware=dict(MACHINE))
    measured = bench.measure(original_row(row_id), lambda _: None)
    assert capsys.readouterr().out == ""
    assert measured["weights"] == "random"
    assert measured["notes"] == ["speed only"]
    assert measured["settings"]["upstream"] is True
    assert set(measured["stages_ms"]) == {"perceive"}
    assert (measured["people_drawn"], measured["total_ms_p50"] > 0) == (1, True)
    asked = made[1].asked
    assert len(asked) == 4 * (1 + 2 + 2)
    assert {(shape, how) for shape, _, how in asked} == {((36, 64, 3), kind)}
    assert all(len(boxes) == 1 for _, boxes, _ in asked)


def test_the_process_is_as_before(clone, monkeypatch):
    theirs = ModuleType("pytorch_lightning")
    monkeypatch.setitem(sys.modules, "pytorch_lightning", theirs)
    monkeypatch.setenv("MOMENTUM_ENABLED", "yes")
    before = dict(sys.modules), list(sys.path), torch.hub.load, dict(os.environ)
    estimator = upstream_sam3d.load(clone, "dinov3", "cpu")
    assert (dict(sys.modules), list(sys.path), torch.hub.load, dict(os.environ)) == before
    assert sys.modules["pytorch_lightning"] is theirs
    assert estimator.model.backbone.in_features == 3
    assert not estimator.model.training


def test_a_broken_clone_leaves_the_process_as_before(clone):
    (clone / "sam_3d_body" / "__init__.py").write_text("import absent_module\n")
    before = dict(sys.modules), list(sys.path), torch.hub.load
    with pytest.raises(ModuleNotFoundError, match="absent_module"):
        upstream_sam3d.load(clone, "vith", "cpu")
    assert (dict(sys.modules), list(sys.path), torch.hub.load) == before


def test_what_is_missing_is_named_in_one_line(clone, monkeypatch):
    row = original_row("sam3d-upstream")
    assert subject.missing(row) == "needs --upstream DIR"
    no_original = upstream_imports.missing(clone / "dinov3", "dinov3")
    assert no_original == (
        f"{clone / 'dinov3'} has no sam_3d_body: give a clone of facebookresearch/sam-3d-body"
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "roma" else 1)
    assert upstream_imports.missing(clone, "dinov3") == "needs roma: pip install roma"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: 1)
    assert upstream_imports.missing(clone, "dinov3") is None
    beside = clone.parent / "dinov3"
    (clone / "dinov3").rename(beside)
    assert upstream_imports.missing(clone, "dinov3") is None, "a clone beside it serves too"
    beside.rename(clone.parent / "elsewhere")
    assert upstream_imports.missing(clone, "dinov3") == (
        f"needs DINOv3: clone facebookresearch/dinov3 to {clone / 'dinov3'}"
    )
    assert upstream_imports.missing(clone, "vith") is None, "ViT-H needs no DINOv3"


@given(st.integers(16, 4000), st.integers(16, 4000), st.integers(1, 20))
def test_boxes_lie_in_the_picture_side_by_side(width, height, people):
    boxes = upstream_sam3d.given_boxes(width, height, people)
    assert boxes.shape == (people, 4)
    assert boxes.min() >= -1e-3
    assert boxes[:, 2].max() <= width * (1 + 1e-6)
    assert boxes[:, 3].max() <= height
    assert (boxes[1:, 0] >= boxes[:-1, 2] - 1e-3 * width).all()
    assert (boxes[:, 2] > boxes[:, 0]).all()
