"""The page of throws: it stands alone, shows what the events say, and runs nothing of theirs."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from app.reports.draw_svg import Axis, body, boxes, views
from app.reports.page import ReportedEvent, write_page
from pipeline.core.skeleton import JOINT_NAMES
from pipeline.events.motion import Motion, Wording, load_motion
from pipeline.events.motions.throw.measures import MEASURES, hand_speed, measure
from tests.support.browser import opened
from tests.support.motions.installed import SERVE
from tests.support.paths import TRUTH as SAMPLE

JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")
MOTION = load_motion("throw")
VOID = {"meta", "link", "img", "input", "br"}


def throw(
    source: str = "pitch.mp4", release: int = 60, shift: float = 0.0, **event
) -> ReportedEvent:
    """The rendered pitch, its truth as the fit; ``shift`` moves estimates."""
    with np.load(SAMPLE) as truth:
        joints, times = truth["joints_m"].astype(float), truth["pts_s"]
    near = slice(release - 30, release + 16)
    shown = [measure(each, "right") for each in joints[near]]
    timeline = {name: np.array([each[name] for each in shown]) for name in shown[0]}
    timeline["hand_speed"] = np.array(
        [hand_speed(joints[at - 1 : at + 1], times[at - 1 : at + 1], "right")
         for at in range(near.start, near.stop)]
    )  # fmt: skip
    measures = {}
    for index, (name, told) in enumerate(MEASURES.items()):
        fitted = float(timeline[name][30])
        value = fitted + shift + 0.1 * index
        half = 12.34 if told.unit == "deg" else 0.123
        measures[name] = {"value": value, "low": value - half, "high": value + half,
                          "fitted": fitted, "unit": told.unit,
                          "definition": told.definition}  # fmt: skip
    frames = list(range(release - 2, release + 2))
    told = {
        "schema": "bodystream.release/1", "id": "a1", "source": source, "motion": "throw",
        "release_frame": release, "pts_s": float(times[release]), "time": "2026-11-25T14:00:00Z",
        "person": 2, "hand": "right", "confidence": 0.98, "frames": frames, "measures": measures,
    }  # fmt: skip
    return ReportedEvent(
        MOTION,
        {**told, **event},
        [JPEG] * 4,
        times[near] - times[release],
        timeline,
        joints[frames],
    )


class Reader(HTMLParser):
    """Reads a page as it stands: fails where elements are not nested; every attribute, the text of
    every element by its tag, every ``id``."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []
        ids = [value for _, name, value in self.attributes if name == "id"]
        assert len(set(ids)) == len(ids)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *each) for each in attrs]
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *each) for each in attrs]
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data

    def values(self, name: str) -> list[str | None]:
        return [value for _, each, value in self.attributes if each == name]


def read(
    tmp_path: Path, *throws: ReportedEvent, motion: Motion = MOTION, **given
) -> tuple[str, Reader]:
    path = write_page(tmp_path / "page", throws, motion, **given)
    assert path == tmp_path / "page" / "index.html"
    assert [each.name for each in path.parent.iterdir()] == ["index.html"]
    text = path.read_text("utf-8")
    return text, Reader(text)


def shown(number: float, digits: int) -> str:
    return f"{number:.{digits}f}".replace("-", "\N{MINUS SIGN}")


@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_the_page_stands_alone(tmp_path, count):
    text, page = read(tmp_path, *(throw(shift=each) for each in range(count)))
    assert not re.search(r"https?://|file:|@import|url\(", text)
    for value in page.values("src") + page.values("href"):
        assert value is not None
        assert value.startswith(("data:", "#"))
    targets = page.values("id")
    assert all(each[1:] in targets for each in page.values("href") if each.startswith("#"))
    assert not page.values("style"), "the policy refuses them"
    assert "default-src 'none'" in text
    assert "unsafe" not in text
    assert page.values("lang") == ["en"]
    assert len(page.texts.get("img", [])) == 4 * count
    assert all(page.values("alt"))
    assert [value for tag, name, value in page.attributes if tag == "section" and name == "id"] == (
        (["comparison"] if count > 1 else []) + [f"event-{each + 1}" for each in range(count)]
    )


def test_numbers_are_the_events(tmp_path):
    one = throw()
    _, page = read(tmp_path, one)
    cells = page.texts["td"]
    ranges = page.texts["span"]
    for name, told in one.event["measures"].items():
        digits = 1 if MEASURES[name].unit == "deg" else 2
        assert shown(told["value"], digits) in cells
        assert shown(told["fitted"], digits) in cells
        assert f"{shown(told['low'], digits)} to {shown(told['high'], digits)}" in ranges
        assert told["unit"] in cells
        assert told["definition"] in page.values("title")
    facts = page.texts["dd"]
    assert {"frame 60", "2.000 s", "right", "98 %", "2"} <= set(facts)
    assert page.texts["time"] == ["2026-11-25 14:00:00 UTC"]
    assert page.texts["p"][0] == "1 throw from 1 source"


def test_curves_are_the_timeline(tmp_path):
    one = throw()
    text, page = read(tmp_path, one)
    data = json.loads(page.texts["script"][0])
    found = data["events"][0]
    np.testing.assert_allclose(found["times"], one.timeline_s, atol=1e-4)
    for name, values in one.timeline.items():
        np.testing.assert_allclose(found["curves"][name], values, atol=0.06)
        axis = data["axes"][name]
        assert axis["low"] <= values.min() <= values.max() <= axis["high"]
    assert text.count('class="plot"') == len(MEASURES)
    assert text.count('class="body"') == 4 * 3


def test_several_are_compared(tmp_path):
    shifts = (0.0, 3.0, -4.0)
    throws = [throw(f"pitch_{each}.mp4", shift=shift) for each, shift in enumerate(shifts)]
    text, page = read(tmp_path, *throws, title="Three")
    assert page.texts["h1"] == ["Three"]
    assert page.texts["p"][0] == "3 throws from 3 sources"
    values = [each.event["measures"]["trunk_tilt"]["value"] for each in throws]
    cells = page.texts["td"]
    assert shown(float(np.mean(values)), 1) in cells
    assert shown(float(np.std(values, ddof=1)), 1) in cells
    headers = [value for tag, name, value in page.attributes if (tag, name) == ("th", "scope")]
    assert len(headers) == text.count("<th ")
    assert page.values("href").count("#event-3") > 1


HOSTILE = ("<script>alert(1)</script>", '"onload=', "</script><img src=x onerror=alert(1)>", "'&<")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_comes_from_outside_is_text(tmp_path, name):
    bad = throw(name, id=name, time=name, hand=name, person=name)
    measures = dict(bad.event["measures"])
    measures[name] = {"value": 1.0, "low": 0.0, "high": 2.0, "fitted": 1.5,
                      "unit": name, "definition": name}  # fmt: skip
    bad = replace(bad, event={**bad.event, "measures": measures})
    text, page = read(tmp_path, bad, throw(), title=name)
    assert page.texts["h1"] == [name]
    assert name in page.texts["h2"][1]
    assert name in page.texts["code"]
    assert len(page.texts["script"]) == 2
    assert len(page.texts["img"]) == 8
    assert not [each for _, each, _ in page.attributes if each.startswith("on")]
    assert name in json.loads(page.texts["script"][0])["axes"]


def test_what_is_not_known_is_said(tmp_path):
    one = throw(time=None, confidence=None, id=None)
    nothing = dict.fromkeys(("value", "low", "high", "fitted"))
    measures = {**one.event["measures"], "trunk_tilt": {**nothing, "unit": "deg"},
                "elbow_flexion": {"value": math.nan, "low": math.nan, "high": math.inf,
                                  "fitted": 44.04}}  # fmt: skip
    del measures["hand_speed"]
    timeline = {**one.timeline, "trunk_tilt": np.full(len(one.timeline_s), np.nan)}
    timeline["elbow_flexion"] = timeline["elbow_flexion"].copy()
    timeline["elbow_flexion"][[3, 5, 6]] = np.nan
    del timeline["hand_speed"]
    joints = one.joints_m.copy()
    joints[0, JOINT_NAMES.index("left_hand")] = np.nan
    joints[1] = np.nan
    half = replace(
        one, event={**one.event, "measures": measures}, pictures=[], timeline=timeline,
        joints_m=joints,
    )  # fmt: skip
    for throws in ((half,), (half, one), (half, half)):
        text, page = read(tmp_path, *throws)
        said = re.sub(r"<(style|script).*?</\1>", "", text, flags=re.DOTALL)
        said = said[said.index("<body>") :].replace('class="none"', "")
        assert not re.search(r"\b(nan|inf|none|null)\b", said, re.IGNORECASE)
        assert "not measurable" in said
        assert "44.0" in page.texts["td"]
        found = json.loads(page.texts["script"][0])["events"][0]["curves"]
        assert found["elbow_flexion"][3] is None
        assert set(found["trunk_tilt"]) == {None}
    unseen = one.joints_m.copy()
    unseen[2] = np.nan
    gone = replace(one, event={**one.event, "measures": None}, timeline=timeline, joints_m=unseen)
    for throws in ((gone,), (gone, one)):
        read(tmp_path, *throws)
    bare = ReportedEvent(MOTION, {"release_frame": 5}, [], np.empty(0), {}, one.joints_m)
    read(tmp_path, bare)
    read(tmp_path, bare, one)


def test_no_throw_is_said(tmp_path):
    text, page = read(tmp_path)
    assert page.texts["p"][0] == "No throws"
    assert "No throw was found" in text


def serve(source: str = "court.mp4") -> ReportedEvent:
    """The same body as a tennis serve, whose measures have no corrections."""
    motion, moved = load_motion(SERVE), throw(source)
    estimates = motion.measures.estimates(moved.joints_m, [k / 30 for k in range(4)], "right", 2)
    measures = {
        name: {"value": None, "low": None, "high": None, "fitted": each.fitted,
               "unit": motion.measures.definitions[name].unit,
               "definition": motion.measures.definitions[name].definition}
        for name, each in estimates.items()
    }  # fmt: skip
    event = {**moved.event, "motion": motion.name, "measures": measures, motion.frame_key: 60}
    del event["release_frame"]
    timeline = {name: np.linspace(0, 1, len(moved.timeline_s)) for name in measures}
    return replace(moved, motion=motion, event=event, timeline=timeline)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_motion_has_words_of_its_own(tmp_path, count):
    events = [serve() for _ in range(count)]
    text, page = read(tmp_path, *events, motion=load_motion(SERVE))
    assert not re.search("throw|release|ball", re.sub('base64,[^"]*', "", text), re.IGNORECASE)
    assert page.texts["h1"] == ["Tennis serves"]
    if not count:
        assert "A serve shows once its contact is seen" in text
        return
    assert page.texts["p"][0] == ("1 serve from 1 source" if count == 1 else
                                  f"{count} serves from 1 source")  # fmt: skip
    assert {"Contact", "Racket hand"} <= set(page.texts["dt"])
    assert "At the contact" in page.texts["h3"]
    # Without corrections there are no estimates to show, only what the fitted body does.
    assert "Estimate" not in "".join(page.texts["th"])
    assert "no estimates" in text
    digits = {name: each.digits for name, each in events[0].motion.measures.definitions.items()}
    for name, each in events[0].event["measures"].items():
        assert shown(each["fitted"], digits[name]) in page.texts["td"]
    assert ("standard deviation of the fitted bodies" in text) == (count > 1)


def test_words_of_a_motion_are_text_too(tmp_path):
    word = HOSTILE[2]
    motion = replace(MOTION, report=Wording(word, word, word, word, word, word))
    text, page = read(tmp_path, *(replace(throw(), motion=motion) for _ in range(2)), motion=motion)
    assert len(page.texts["script"]) == 2
    assert len(page.texts["img"]) == 8
    assert word in page.texts["h1"]
    assert not [each for _, each, _ in page.attributes if each.startswith("on")]


def test_an_angle_that_comes_round_breaks_its_curve(tmp_path):
    one = throw()
    turned = np.where(one.timeline_s < 0, 170.0, -170.0)
    timeline = {**one.timeline, "trunk_rotation": turned}
    text, _ = read(tmp_path, replace(one, pictures=[], timeline=timeline))
    figure = text[text.index('<figure data-measure="trunk_rotation"') :]
    drawn = re.search(r'class="curve" d="([^"]*)"', figure)
    assert drawn is not None
    assert drawn[1].count("M") == 2


@pytest.mark.parametrize(
    ("low", "high", "unit"),
    [(0, 1, "m/s"), (-179, 180, "deg"), (44, 44, "deg"), (0.5, 0.501, "m/s"), (-1e9, 1e15, "deg")],
)
def test_axes_hold_their_values_between_few_round_ticks(low, high, unit):
    axis = Axis.of([low, high, None, math.nan], unit)
    assert axis.low <= low <= high <= axis.high
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 6


def test_bodies_of_all_frames_and_views_have_one_scale():
    one = throw()
    seen = views(one.joints_m)
    found = boxes([seen])
    assert len({box[2] for box in found.values()}) == 1
    for view, box in found.items():
        points = seen[view][..., :2]
        assert (points >= np.array(box[:2])).all()
        assert (points <= np.array(box[:2]) + box[2:]).all()
    # Seen from the camera's right, what is further away is further right; from above, higher.
    depth = 100 * (one.joints_m[..., 2] - one.joints_m[:, :1, 2])
    np.testing.assert_allclose(seen["side"][..., 0], depth, atol=1e-6)
    np.testing.assert_allclose(seen["above"][..., 1], -depth, atol=1e-6)
    drawn = body(seen["camera"][2], found["camera"], "left", "<label>")
    assert 'aria-label="&lt;label&gt;"' in drawn
    elbow = seen["camera"][2][JOINT_NAMES.index("left_elbow")]
    arm = re.search(r'class="arm" d="([^"]*)"', drawn)
    assert arm is not None
    assert f"L{elbow[0]:.1f} {elbow[1]:.1f}" in arm[1]


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_in_a_browser(tmp_path):
    """No complaint; views and throws toggle; a pointer and the slider show values."""
    pytest.importorskip("websockets.sync.client")
    throws = [throw(HOSTILE[2]), throw(shift=2.0), throw("<b>", shift=-2.0)]
    path = write_page(tmp_path / "page", throws, MOTION)
    with opened(tmp_path) as page:
        page.listen()
        page.go(path.as_uri())
        assert page.run("document.documentElement.classList.contains('js')")
        assert page.run("[...document.images].length") == 12

        rows = "[...document.querySelectorAll('#event-2 .row')].map((row) => row.offsetHeight > 0)"
        assert page.run(rows) == [True, False, False]
        page.run("document.querySelector('#event-2 [value=above]').click()")
        assert page.run(rows) == [False, False, True]
        page.run("document.querySelector('#event-2 [value=all]').click()")
        assert page.run(rows) == [True, True, True]

        curve = "document.querySelector('#comparison .plot g[data-event=\"1\"]')"
        visible = f"getComputedStyle({curve}).display !== 'none'"
        assert page.run(visible)
        page.run("document.querySelector('.legend input[data-event=\"1\"]').click()")
        assert not page.run(visible)
        page.run("document.querySelector('.legend input[data-event=\"1\"]').click()")
        assert page.run(visible)

        slider = "document.querySelector('#event-1 .scrub input')"
        page.run(f"{slider}.value = 0; {slider}.dispatchEvent(new Event('input'))")
        first = shown(float(throws[0].timeline["elbow_flexion"][0]), 1)
        output = "document.querySelector('#event-1 .curves output').textContent"
        assert page.run(output) == first
        assert page.run("document.querySelector('#event-1 .scrub output').textContent") == (
            "\N{MINUS SIGN}1.00 s"
        )

        plot = "document.querySelector('#comparison .plot')"
        page.run(f"document.documentElement.style.scrollBehavior = 'auto'; {plot}.scrollIntoView()")
        box = page.run(f"(() => {{ const b = {plot}.getBoundingClientRect();"
                       "return [b.left, b.top, b.width, b.height]; })()")  # fmt: skip
        x, y = box[0] + 0.4 * box[2], box[1] + 0.8 * box[3]
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        assert page.run("document.querySelectorAll('.tip div').length") == 3
        assert page.complaints == []
