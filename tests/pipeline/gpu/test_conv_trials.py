"""cuDNN's trials: measured once, kept, and taken only where they gain."""

from __future__ import annotations

import json
import threading

import pytest
import torch
from torch import nn

from pipeline.gpu.conv_trials import gpu_seconds, trials_pay


class Timed:
    """Measures given times, and notes the thread and the switch of each measurement."""

    def __init__(self, without_s, with_s):
        self.times_s = {False: without_s, True: with_s}
        self.calls = []

    def __call__(self, module, batch):
        trials = torch.backends.cudnn.benchmark
        self.calls.append((trials, threading.get_ident()))
        return self.times_s[trials]


MODULE, BATCH = nn.Conv2d(3, 4, 3), (torch.zeros(2, 3, 8, 8),)


@pytest.mark.parametrize(("with_s", "pay"), [(0.9, True), (0.96, False), (1.2, False)])
def test_they_pay_where_they_save_a_twentieth(tmp_path, with_s, pay):
    timed = Timed(1.0, with_s)
    assert trials_pay(MODULE, BATCH, tmp_path / "new" / "folder", timed) is pay
    assert [trials for trials, _ in timed.calls] == [False, True]
    assert not torch.backends.cudnn.benchmark, "as it was"
    # What cuDNN has chosen in one thread would answer for the other measurement too.
    assert threading.get_ident() not in {thread for _, thread in timed.calls}


def test_a_kept_answer_is_taken_for_the_same_module_alone(tmp_path):
    timed = Timed(1.0, 0.5)
    for _ in range(3):
        assert trials_pay(MODULE, BATCH, tmp_path, timed)
    assert len(timed.calls) == 2
    other = Timed(1.0, 2.0)
    assert not trials_pay(nn.Conv2d(3, 5, 3), BATCH, tmp_path, other)
    assert not trials_pay(MODULE, (BATCH[0][:1],), tmp_path, other)
    assert not trials_pay(MODULE, (BATCH[0].double(),), tmp_path, other)
    assert len(other.calls) == 6


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pay": '])
def test_a_damaged_answer_is_measured_again(tmp_path, text):
    timed = Timed(1.0, 0.5)
    trials_pay(MODULE, BATCH, tmp_path, timed)
    (kept,) = tmp_path.iterdir()
    kept.write_text(text)
    assert trials_pay(MODULE, BATCH, tmp_path, timed)
    assert len(timed.calls) == 4
    assert json.loads(kept.read_text())["pay"] is True


def test_without_a_folder_nothing_is_measured(tmp_path):
    timed = Timed(1.0, 2.0)
    assert trials_pay(MODULE, BATCH, None, timed)
    assert timed.calls == []
    file = tmp_path / "no folder"
    file.write_text("")
    assert not trials_pay(MODULE, BATCH, file, timed), "an answer that cannot be kept is used"


@pytest.mark.gpu
def test_a_pass_is_timed_on_the_gpu():
    module = nn.Sequential(*(nn.Conv2d(64, 64, 3, padding=1) for _ in range(20))).cuda().half()
    small, large = (torch.zeros(n, 64, 64, 64, device="cuda").half() for n in (1, 64))
    assert 0 < gpu_seconds(module, (small,)) < 0.05
    assert gpu_seconds(module, (large,)) > 2 * gpu_seconds(module, (small,))
