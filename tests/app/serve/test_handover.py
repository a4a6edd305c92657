"""A source that goes from one hub to another: nothing is counted twice, and people stay who they
are."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.build import load
from app.config import load_config
from app.serve.handover import Begin, Handover
from app.serve.hub import Hub, config_of
from tests.support.fakes import NoPeople
from tests.support.waiting import until

SAMPLE = Path(__file__).parents[3] / "samples" / "pitch.mp4"
PICTURES = "lavfi:testsrc2=size=160x90:rate=25"


def plain():
    config = load_config("default")
    return replace(config, render=replace(config.render, hud=False))


def carried(handover: Handover) -> Handover:
    """As it comes to another process."""
    return pickle.loads(pickle.dumps(handover))


def bodies_of(hub: Hub, name: str) -> dict[int, dict]:
    return {number: json.loads(line) for number, line in hub.bodies(name, -1)}


@pytest.mark.slow
@pytest.mark.weights
def test_people_keep_their_number_and_their_shape(tmp_path):
    config = config_of(plain(), str(SAMPLE))
    # Waiting for the model, as a clip alone does: no frame is dropped on a slow machine.
    config = replace(config, capture=replace(config.capture, pace="every-frame"))
    estimator = load(config)
    with Hub(plain(), estimator, tmp_path / "a") as a, Hub(plain(), estimator, tmp_path / "b") as b:
        a.begin("p", config, Begin())
        until(lambda: len(a.bodies("p", -1)) >= 40, 60)
        handover = carried(a.hand_over("p"))
        before = handover.begin.figures
        assert a.names() == set()
        assert before.in_flight == 0
        assert len(pickle.dumps(handover)) < 1 << 20
        b.begin("p", handover.config, replace(handover.begin, first_picture=1 << 32))
        until(lambda: b.sources()[0].state == "ended", 60)
        until(lambda: b.figures()[0][1].in_flight == 0, 10)
        after = bodies_of(b, "p")
        counted = b.figures()[0][1]
    # All frames of the clip were read once.
    assert counted.read == 108
    assert counted.read == counted.drawn + sum(counted.dropped.values())
    assert min(after) == before.last_read + 1
    first = after[min(after)]["bodies"][0]
    assert first["track"] == 1
    with Hub(plain(), estimator, tmp_path / "c") as whole:
        whole.begin("p", config, Begin())
        until(lambda: whole.sources()[0].state == "ended", 60)
        until(lambda: whole.figures()[0][1].in_flight == 0, 10)
        alone = bodies_of(whole, "p")
    estimator.close()
    mine, theirs = alone[min(after)]["bodies"][0], first
    # The shape was found from all frames before; a new start would begin from the mean again.
    assert np.allclose(mine["betas"], theirs["betas"], atol=0.25)


def test_a_live_source_that_was_connected_before_begins_at_once(tmp_path):
    model = NoPeople()
    with Hub(plain(), model, tmp_path / "a") as a, Hub(plain(), model, tmp_path / "b") as b:
        config = config_of(plain(), PICTURES)
        a.begin("p", config, Begin())
        until(lambda: a.bodies("p", -1), 20)
        b.prepare("p", config)
        number = a.number("p")
        handover = carried(a.hand_over("p"))
        b.begin("p", handover.config, handover.begin)
        until(lambda: len(b.bodies("p", -1)) > 10, 10)
        assert a.names() == set()
        assert b.names() == {"p"}
        assert b.number("p") != number
        assert min(bodies_of(b, "p")) > handover.begin.figures.last_read


def test_a_source_that_begins_again_keeps_its_rate(tmp_path):
    with Hub(plain(), NoPeople(), tmp_path) as hub:
        hub.begin("p", config_of(plain(), PICTURES), Begin(every=5))
        hub.restart("p")
        until(lambda: len(hub.bodies("p", -1)) > 6, 20)
        times = [body["pts_s"] for body in bodies_of(hub, "p").values()]
    assert (times[-1] - times[0]) / (len(times) - 1) > 4 / 25


def test_a_source_that_is_withdrawn_is_closed(tmp_path):
    with Hub(plain(), NoPeople(), tmp_path) as hub:
        hub.prepare("p", config_of(plain(), PICTURES))
        hub.withdraw("p")
        hub.withdraw("p")
        assert hub.names() == set()


def test_a_report_begins_a_source_elsewhere_with_its_lost_frames_counted(tmp_path):
    with Hub(plain(), NoPeople(), tmp_path) as hub:
        hub.begin("p", config_of(plain(), PICTURES), Begin())
        until(lambda: hub.bodies("p", -1), 20)
        report = carried(hub.reports()["p"])
    begin = report.begin_elsewhere()
    assert begin.figures.in_flight == 0
    assert begin.figures.read == report.figures.read
    assert begin.position.id == report.figures.last_read


def test_what_is_unknown_or_taken_is_refused(tmp_path):
    with Hub(plain(), NoPeople(), tmp_path) as hub:
        with pytest.raises(KeyError):
            hub.hand_over("p")
        hub.begin("p", config_of(plain(), PICTURES), Begin())
        with pytest.raises(ValueError, match="named p already"):
            hub.begin("p", config_of(plain(), PICTURES), Begin())
