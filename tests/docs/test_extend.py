"""The examples of docs/extend do what their pages say."""

from __future__ import annotations

import csv
import shutil
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from app.outputs import catalog
from app.outputs.base import OutputError
from pipeline.body.kinematics import Skeleton, forward_kinematics
from pipeline.body.load import load_body
from pipeline.body.rotations import exp_so3
from pipeline.capture.base import SourceOptions
from pipeline.core.camera import default_intrinsics, project
from pipeline.fitting.solver import FRAME_DIM, retract
from pipeline.perception.base import PerceiverOptions
from pipeline.perception.catalog import PERCEIVERS
from pipeline.runtime.stream import stream
from samples.extend import recorded_people
from samples.extend.csv_output import CsvOutput
from samples.extend.ground_residual import ground_rows
from tests.support.bodies import bodies, frame, run_info
from tests.support.paths import ROOT, SAMPLE, TRUTH


def test_the_example_of_a_perceiver_gives_bodies(tmp_path, monkeypatch):
    monkeypatch.setitem(PERCEIVERS.parts, "recorded", "samples.extend.recorded_people:make")
    shutil.copy(TRUTH, tmp_path / "people.npz")
    with np.load(TRUTH) as truth:
        points_px = dict(zip(truth["frame"].tolist(), truth["landmarks_px"]))
    how = {"perceiver": "recorded", "model_folder": tmp_path, "device": "cpu"}
    far_px = []
    with stream(str(SAMPLE), SourceOptions(seconds=0.3), **how) as run:
        for image, found in run:
            assert list(found.track) == [1]
            drawn_px = project(found.landmarks_m[0], default_intrinsics(*image.size))
            far_px.append(np.median(np.linalg.norm(drawn_px - points_px[image.id], axis=1)))
    assert len(far_px) == 9
    assert max(far_px) < 8, "the body lies on the recorded landmarks"


def test_the_example_of_a_perceiver_says_what_it_needs():
    with pytest.raises(ValueError, match="--weights"):
        recorded_people.make(PerceiverOptions())


def test_the_example_of_an_output_writes_every_body(tmp_path):
    output = CsvOutput(tmp_path / "pelvis.csv")
    output.close()
    output.open(run_info())
    rows = [([1, 4], 0), ([], 1), ([4], 2)]
    written = [bodies(tracks, seed) for tracks, seed in rows]
    for index, each in enumerate(written):
        output.write(frame(index), each, None)
    output.close()
    output.close()
    assert output.files == (tmp_path / "pelvis.csv",)
    with open(tmp_path / "pelvis.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["frame"], row["track"]) for row in read] == [("0", "1"), ("0", "4"), ("2", "4")]
    first = [float(read[0][name]) for name in ("x_m", "y_m", "z_m")]
    np.testing.assert_allclose(first, written[0].joints_m[0, 0], atol=1e-4)


def test_the_example_of_an_output_is_found_by_its_entry_point(monkeypatch):
    """As a package's metadata would name it, in the group that the page names."""
    point = EntryPoint("csv", "samples.extend.csv_output:ENTRY", catalog.GROUP)
    monkeypatch.setattr(catalog, "entry_points", lambda group: [point])
    catalog.entries.cache_clear()
    try:
        (entry,) = (each for each in catalog.entries() if each.name == "csv")
    finally:
        catalog.entries.cache_clear()
    assert entry.load() is CsvOutput
    assert entry.flag == "--csv"
    page = (ROOT / "docs" / "extend" / "output.md").read_text()
    assert f'[project.entry-points."{catalog.GROUP}"]' in page


def test_the_example_of_an_output_cannot_write_everywhere(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        CsvOutput(tmp_path / "none" / "pelvis.csv").open(run_info())


@pytest.fixture(scope="module")
def skeleton() -> Skeleton:
    return Skeleton.of(load_body())


def test_the_example_of_a_residual_has_the_right_jacobian(skeleton):
    """Against central differences, at a pose with all feet below the floor."""
    torch.manual_seed(0)
    turns = 0.3 * torch.randn(1, 1, 24, 3)
    state = (exp_so3(turns), torch.tensor([[[0.1, 0.2, 4.0]]]), 0.5 * torch.randn(1, 10))
    floor = torch.tensor([-5.0])

    def rows_at(step: torch.Tensor):
        rotations, transl_m, betas = retract(state, step)
        pose = forward_kinematics(skeleton, rotations[:, 0], transl_m[:, 0], betas)
        # A large scale: the weights of the robust cost are held in the Jacobian.
        return ground_rows(skeleton, pose, betas, floor, sigma_m=0.1, robust=1e6)

    size = FRAME_DIM + 10
    rows, jacobian, cost = rows_at(torch.zeros(1, size))
    assert (rows > 0).all()
    torch.testing.assert_close(cost, rows.square().sum(1), rtol=1e-4, atol=0)
    eps = 1e-2
    for k in range(size):
        step = torch.zeros(1, size)
        step[0, k] = eps
        numeric = (rows_at(step)[0] - rows_at(-step)[0]) / (2 * eps)
        torch.testing.assert_close(jacobian[..., k], numeric, rtol=0.01, atol=0.02)


def test_feet_above_the_floor_cost_nothing(skeleton):
    rest = torch.eye(3).expand(1, 24, 3, 3)
    pose = forward_kinematics(skeleton, rest, torch.zeros(1, 3), torch.zeros(1, 10))
    rows, jacobian, cost = ground_rows(
        skeleton, pose, torch.zeros(1, 10), torch.tensor([5.0]), sigma_m=0.1, robust=3.0
    )
    assert not rows.any()
    assert not jacobian.any()
    assert not cost.any()


def test_the_pages_show_the_examples():
    """Each page includes its example's file, so it cannot differ from what is tested."""
    for page, example in (
        ("perceiver", "samples/extend/recorded_people.py"),
        ("output", "samples/extend/csv_output.py"),
        ("motion", "tests/support/motions/tennis_serve/motion.toml"),
        ("motion", "tests/support/motions/tennis_serve/measures.py"),
        ("residual", "samples/extend/ground_residual.py"),
    ):
        text = (ROOT / "docs" / "extend" / f"{page}.md").read_text()
        assert f'--8<-- "{example}"' in text
