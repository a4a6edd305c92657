"""Motions as folders: found by name, by entry point and by path, checked, and triggered."""

from __future__ import annotations

import importlib
import math
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.events.features import FEATURES
from pipeline.events.find import MOTIONS, find_motion, motion_names
from pipeline.events.motion import FallMotion, PeakMotion, Wording, load_motion
from tests.support.motions.installed import SERVE, installed
from tests.support.throws import a_person, mirrored, throw, watch

# Where motions are.


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of packages that are installed for one test."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [each for each in sys.modules if each.split(".")[0] == "court"]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.mark.parametrize("value", ["court.serve", "court.serve.measures", "court:folder"])
def test_another_package_brings_a_motion(site, value):
    """An entry point's value is a package, a module beside motion.toml, or a function."""
    installed(site, value=value)
    assert "court_serve" in motion_names()
    motion = load_motion("court_serve")
    assert motion.name == "tennis_serve"
    assert motion.report.moment == "contact"
    assert set(motion.measures.definitions) == {
        "contact_height", "elbow_flexion", "trunk_tilt", "wrist_speed",
    }  # fmt: skip


def test_a_package_s_measures_may_import_their_neighbours(site):
    installed(site)
    folder = site / "court" / "serve"
    (folder / "names.py").write_text("SPEED = 'wrist_speed'\n")
    text = (folder / "measures.py").read_text()
    text = text.replace("MEASURES = {", "from .names import SPEED\n\nMEASURES = {")
    (folder / "measures.py").write_text(text.replace('"wrist_speed":', "SPEED:"))
    assert "wrist_speed" in load_motion("court_serve").measures.definitions


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nosuch_module", "ModuleNotFoundError"),
        ("court:nosuch", "AttributeError"),
        ("math:tau", "TypeError"),
    ],
)
def test_an_entry_point_that_fails_is_named_in_a_line(site, value, words):
    installed(site, value=value)
    with pytest.raises(
        ValueError, match=rf"^motion court_serve: entry point {value}: [^\n]*$"
    ) as e:
        load_motion("court_serve")
    assert words in str(e.value)


def test_a_shipped_motion_is_not_replaced_by_a_package(site):
    installed(site, entry="throw")
    assert load_motion("throw").measures is not None
    assert find_motion("throw").folder == MOTIONS / "throw"
    assert motion_names().count("throw") == 1


def test_a_folder_and_its_file_are_the_motion_too(tmp_path, monkeypatch):
    by_folder, by_file = load_motion(SERVE), load_motion(str(SERVE / "motion.toml"))
    assert by_folder == by_file
    assert by_folder.measures.definitions == by_file.measures.definitions
    monkeypatch.chdir(SERVE.parent)
    assert load_motion("tennis_serve") == by_folder
    # A known name is not a folder that happens to lie here.
    (tmp_path / "throw").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_motion("throw").name == "throw"
    with pytest.raises(OSError, match=r"throw.motion\.toml"):
        load_motion("./throw/motion.toml")


def test_an_unknown_name_lists_the_known_ones(site):
    installed(site)
    for name, hint in (("thrwo", "; did you mean throw?"), ("cuort_serve", "did you mean court_se"),
                       ("zzz", "'zzz'")):  # fmt: skip
        with pytest.raises(ValueError, match="^there is no motion [^\n]+$") as error:
            load_motion(name)
        assert hint in str(error.value)
        assert "; there are: court_serve, throw, or give a" in str(error.value)


# What a folder says.


def changed(tmp_path: Path, file: str, old: str, new: str, motion: Path = SERVE) -> Path:
    """A copy of a motion in which a file's text was changed."""
    folder = tmp_path / "changed"
    shutil.copytree(motion, folder)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('trigger = "peak"', 'trigger = "rise"', "trigger: one of fall, peak, not 'rise'"),
        ('trigger = "peak"', "trigger = {}", "trigger: one of fall, peak"),
        ('trigger = "peak"\n', "", "peak_of: there is no such setting"),
        ('peak_of = "speed"', 'peak_of = "sped"', "there is no feature 'sped'"),
        ("peak_least = 12.0", "", "missing: 'peak_least'"),
        ("peak_least = 12.0", "level = 1", "level: there is no such setting"),
        ('noun = "serve"', 'nuon = "serve"', "report: nuon: there is no such setting"),
        ('noun = "serve"', "noun = 3", "report: noun: a text, not 3"),
        ("[report]", "[[report]]", "report: a table"),
        ("bias = 1.0", "measures = 1", "measures: there is no such setting"),
        ("bias = 1.0", "conditions = []", "conditions: there is no such setting"),
    ],
)
def test_a_mistake_in_the_file_is_told_in_a_line(tmp_path, old, new, words):
    folder = changed(tmp_path, "motion.toml", old, new)
    # Nothing of a folder with such a mistake is run.
    (folder / "measures.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(ValueError, match=rf"^[^\n]*{re.escape(words)}[^\n]*$"):
        load_motion(folder)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("MEASURES = {", "MEASURES = 3 or {", "MEASURES: a mapping"),
        ("MEASURES = {", 'MEASURES = {"x": 1,', "MEASURES: 'x': a Measure by its name, not 1"),
        ("def measure_event", "def measure_it", "there is no function measure_event"),
        ("import numpy as np", "import nosuch as np", "ModuleNotFoundError: No module named"),
        ("_UP = ", "_UP = (", "SyntaxError"),
    ],
)
def test_a_mistake_in_the_measures_is_told_in_a_line(tmp_path, old, new, words):
    with pytest.raises(ValueError, match=rf"^[^\n]*measures.py: [^\n]*{re.escape(words)}[^\n]*$"):
        load_motion(changed(tmp_path, "measures.py", old, new))


def test_measures_of_other_names_are_told(tmp_path):
    motion = load_motion(changed(tmp_path, "measures.py", '"trunk_tilt": angle', '"tilt": angle'))
    with pytest.raises(ValueError, match="differ in: tilt, trunk_tilt"):
        motion.measures.fitted(np.random.default_rng(0).normal(size=(4, 24, 3)), [0] * 4, "left", 2)


def test_corrections_must_fit_the_measures(tmp_path):
    folder = changed(tmp_path, "measures.py", "def measure_event", "def measure_event")
    (folder / "estimator.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"estimator.npz: not learned corrections"):
        load_motion(folder)
    shutil.copy(MOTIONS / "throw" / "estimator.npz", folder)
    with pytest.raises(ValueError, match="not in MEASURES: hand_speed, hip_shoulder_separation"):
        load_motion(folder)
    folder = changed(tmp_path / "more", "measures.py", "def describe", "def picture",
                     MOTIONS / "throw")  # fmt: skip
    with pytest.raises(ValueError, match="no function describe, which estimator.npz needs"):
        load_motion(folder)


def test_corrections_go_with_their_folder_wherever_it_lies(tmp_path):
    """A copy of the throw measures what a throw does, under another name too; a file alone has no
    corrections of its own."""
    joints = np.random.default_rng(0).normal(0, 0.3, (4, 24, 3))
    asked = (joints, [k / 30 for k in range(4)], "right", 2)
    shipped = load_motion("throw").measures.estimates(*asked)
    folder = changed(tmp_path, "motion.toml", 'name = "throw"', 'name = "other"', MOTIONS / "throw")
    assert load_motion(folder).measures.estimates(*asked) == shipped
    file = shutil.copy(folder / "motion.toml", tmp_path / "other.toml")
    alone = load_motion(file).measures.estimates(*asked)
    fitted = load_motion("throw").measures.fitted(*asked)
    assert {name: each.fitted for name, each in alone.items()} == fitted
    assert all(math.isnan(each.value) for each in alone.values())


def test_words_follow_from_the_noun():
    assert Wording("pirouette") == Wording("pirouette", "pirouettes", title="Pirouettes")
    assert Wording("serve", title="Aces").title == "Aces"
    assert Wording("kick", "kicks at goal").title == "Kicks at goal"


def test_a_throw_is_told_as_before():
    motion = load_motion("throw")
    assert (motion.schema, motion.frame_key) == ("bodystream.release/1", "release_frame")
    assert isinstance(motion, FallMotion)
    other = load_motion(SERVE)
    assert (other.schema, other.frame_key) == ("bodystream.event/1", "event_frame")
    assert isinstance(other, PeakMotion)


# A peak as a trigger.


def serve(contact_s: float, fps: float = 30.0, seconds: float = 2.0, reach: float = 1.6):
    """A hand that drops behind the back and then is fastest overhead at the contact."""
    frames = []
    for k in range(round(seconds * fps)):
        t = k / fps - contact_s
        # From low through overhead to low ahead; the speed is that of a logistic function, whose
        # peak is at 0.
        along = 1.0 / (1.0 + math.exp(-t / 0.045))
        angle = math.radians(-150 + 240 * along)
        hand, side = reach * math.cos(angle), reach * math.sin(angle)
        frames.append((k / fps, a_person(hand, side, 40.0)))
    return frames


@settings(max_examples=30, deadline=None)
@given(phase=st.floats(0, 1), left=st.booleans())
def test_a_peak_is_found_within_a_frame_and_told_with_the_frame_after(phase, left):
    contact_s = 1.0 + phase / 30
    frames = serve(contact_s)
    if left:
        frames = [(t, mirrored(person)) for t, person in frames]
    motion = load_motion(SERVE)
    found, refused = watch(frames, motion)
    (event,) = found
    # A speed is that of the step before a frame, so its peak is seen up to a frame late.
    assert -0.5 / 30 <= event.pts_s - contact_s <= 1.5 / 30
    assert event.shown_id == event.frame_id + 1
    assert event.hand == ("left" if left else "right")
    assert event.motion is motion
    assert event.confidence == motion.confidence(event.features)
    # Conditions are judged at the peak: the hand was still overhead there.
    assert event.features["hand"] > 0.1
    assert event.features["speed"] >= motion.peak_least
    assert set(event.features) == set(FEATURES)
    assert not refused


@pytest.mark.parametrize("fps", [24, 60, 120])
def test_a_peak_is_found_at_any_rate(fps):
    (event,), _ = watch(serve(1.0, fps), load_motion(SERVE))
    assert abs(event.pts_s - 1.0) <= 1.5 / min(fps, 30)


def test_what_is_slow_or_low_or_still_rising_is_no_peak():
    motion = load_motion(SERVE)
    slow = [(3 * t, person) for t, person in serve(1.0)]
    low = serve(1.0, reach=0.3)
    still = [(k / 30, a_person(0.9, 0.4, 0.0)) for k in range(40)]
    for frames in (slow, low, still):
        assert watch(frames, motion) == ([], [])
    # A throw's hand is as fast, and passes the shoulders on its way down.
    assert watch(throw(), replace(motion, peak_least=100.0)) == ([], [])


def test_a_peak_at_the_end_is_refused_in_a_line():
    motion = load_motion(SERVE)
    frames = serve(1.0)
    at = watch(frames, motion)[0][0].frame_id
    found, refused = watch(frames[: at + 1], motion)
    assert found == []
    (one,) = refused
    assert (one.frame_id, one.hand) == (at, "right")
    assert one.reason == "the source ends before the hand's speed has peaked"
    # Told with the frame after it, a peak whose person is new is refused as well.
    found, refused = watch([(t - 0.9, p) for t, p in frames[27:]], motion)
    assert found == []
    assert "seen for less than 0.3 s before" in refused[0].reason
    gone = [(t, {} if at < k < at + 9 else {1: p}) for k, (t, p) in enumerate(frames)]
    found, refused = watch(gone, motion)
    assert found == []
    assert re.fullmatch(r"not seen for 0\.\d\d s about the peak", refused[0].reason)
