"""The page of `serve` in a real browser, driven through its debugging protocol."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import av
import httpx
import numpy as np
import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("websockets.sync.client")

from tests.support.browser import Page, opened  # noqa: E402
from tests.support.clips import number_of, numbered, write_clip  # noqa: E402
from tests.support.served_recordings import recorded  # noqa: E402
from tests.support.serving import TOKEN  # noqa: E402
from tests.support.waiting import until  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


LAST = 39
"""The number of the last picture of `clip`."""


@pytest.fixture
def clip(tmp_path) -> str:
    return str(write_clip(tmp_path / "c.mp4", [numbered(k) for k in range(LAST + 1)]))


@pytest.fixture
def page(tmp_path) -> Iterator[Page]:
    with opened(tmp_path) as tab:
        yield tab


def test_a_day_with_the_page(serve_anywhere, page, rtsp_server, tmp_path):
    """Add a source, see it live, kill it, see that, bring it back, record it, download, remove."""
    served, camera = serve_anywhere(), rtsp_server()
    page.go(served.url)
    until(lambda: page.run("!document.getElementById('nothing').hidden"))
    page.run(
        "document.forms[0].address.value = " + json.dumps(camera.url())
        + "; document.forms[0].name.value = 'door'; document.forms[0].requestSubmit()"
    )  # fmt: skip
    until(lambda: page.run("document.querySelector('article .state')?.textContent") == "live", 20)
    picture = "document.querySelector('article img')"
    until(lambda: page.run(f"{picture}.naturalWidth") == 320)

    def pixel() -> str:
        """Something of the picture that is shown."""
        return page.run(
            "(() => { const c = document.createElement('canvas'); c.width = 320; c.height = 240;"
            f"c.getContext('2d').drawImage({picture}, 0, 0); return c.toDataURL(); }})()"
        )

    before = pixel()
    until(lambda: pixel() != before)

    camera.kill()
    state = "document.querySelector('article .state').textContent"
    until(lambda: page.run(state) in ("stalled", "reconnecting"))
    until(lambda: "refused" in page.run("document.querySelector('article .reason').textContent"))
    again = rtsp_server(camera.port)
    until(lambda: page.run(state) == "live")
    assert page.run("document.querySelector('.reconnects').textContent") == "1"

    page.run("document.querySelector('.record').click()")
    until(lambda: page.run("!document.querySelector('.red').hidden"))
    time.sleep(1.5)
    page.run("document.querySelector('.record').click()")
    until(lambda: page.run("document.querySelector('.red').hidden"))
    until(lambda: page.run("document.querySelectorAll('#files a').length") == 2)
    link = page.run("document.querySelector('#files a[href$=\".mp4\"]').getAttribute('href')")
    (tmp_path / "got.mp4").write_bytes(httpx.get(served.url + link).content)
    with av.open(str(tmp_path / "got.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) > 20
    poses = page.run("fetch(document.querySelector('.poses').href).then((answer) => answer.text())")
    assert len(poses.splitlines()) > 20
    assert all("bodies" in json.loads(line) for line in poses.splitlines())

    page.run("document.forms[0].address.value = '/etc/passwd'; document.forms[0].requestSubmit()")
    until(lambda: "rtsp://" in page.run("document.getElementById('trouble').textContent"))
    page.run("document.querySelector('.remove').click()")
    until(lambda: page.run("document.getElementById('confirm').open"))
    page.run("document.querySelector('#confirm [value=yes]').click()")
    until(lambda: page.run("document.querySelectorAll('article').length") == 0)
    again.kill()


def test_seven_sources_are_live_at_once_and_text_stays_text(serve_anywhere, page):
    """There are more sources than the six connections that a browser opens to a host; and an
    address is shown as text, not run as a script."""
    served = serve_anywhere()
    for number in range(7):
        picture = f"lavfi:testsrc2=size=160x90:rate={number + 4}"
        served.hub.add(picture, f"camera{number}", trusted=True)
    # A file of this machine: of an address such a path would not be shown at all.
    hostile = "<img src=x onerror=window.hacked=1>.mp4"
    served.hub.add(hostile, "hostile", trusted=True)
    page.go(served.url)
    count = "[...document.images].filter((each) => each.naturalWidth === 160).length"
    until(lambda: page.run(count) == 7, 20)
    assert page.run("fetch('/api/sources').then((answer) => answer.status)") == 200
    rates = "[...document.querySelectorAll('.fps')].filter((each) => each.textContent > 0).length"
    until(lambda: page.run(rates) == 7)
    places = "[...document.querySelectorAll('.address')].map((each) => each.textContent)"
    until(lambda: hostile in page.run(places))
    assert page.run("document.querySelectorAll('.address img, .reason img').length") == 0
    assert page.run("window.hacked ?? 0") == 0


def test_people_who_are_not_followed_are_shown(serve, page, three_unfollowed):
    served = serve()
    page.go(served.url)
    served.hub.add("lavfi:testsrc2=size=160x90:rate=5", "street", trusted=True)
    people = "document.querySelector('article .people')?.textContent"
    until(lambda: page.run(people) == "0 of 3", 20)


def test_the_page_is_opened_by_its_token(serve_anywhere, page):
    served = serve_anywhere(TOKEN)
    page.go(served.url)
    assert page.run("location.pathname") == "/login"
    page.run(f"document.forms[0].token.value = {TOKEN!r}; document.forms[0].submit()")
    until(lambda: page.run("location.pathname") == "/")
    until(lambda: page.run("document.getElementById('nothing')?.hidden") is False)
    served.hub.add("lavfi:testsrc2=size=160x90:rate=5", "test", trusted=True)
    until(lambda: page.run("document.querySelector('article img')?.naturalWidth") == 160, 20)
    assert page.run("document.cookie") == "", "no script reads the session"


CARD = "document.querySelector('article')"
SEEN = f"{CARD}?.querySelector('.picture img').naturalWidth > 0"


def press(page: Page, key: str, text: str = "") -> None:
    """Press a key as a person does."""
    codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowRight": 39}
    down = {"key": key, "windowsVirtualKeyCode": codes[key]}
    page.call("Input.dispatchKeyEvent", type="keyDown", **down, **({"text": text} if text else {}))
    page.call("Input.dispatchKeyEvent", type="keyUp", **down)


def click(page: Page, what: str) -> None:
    """Click as a person does: a browser plays nothing and fills no screen for a script."""
    script = f"document.querySelector({what!r}).click()"
    page.call("Runtime.evaluate", expression=script, userGesture=True)


def tab_to(page: Page, what: str, most: int = 40) -> None:
    """Press Tab until an element that the selector names has the focus, and shows it."""
    for _ in range(most):
        press(page, "Tab")
        if page.run(f"document.activeElement.matches({what!r})"):
            style = page.run(
                "(() => { const e = document.activeElement;"
                "const shown = e.type === 'radio' ? e.nextElementSibling : e;"
                "const style = getComputedStyle(shown);"
                "return style.outlineStyle + ' ' + style.outlineWidth; })()"
            )
            assert style == "solid 2px", f"{what}: the focus is not shown: {style}"
            return
    raise AssertionError(f"{what} cannot be reached with Tab")


def test_all_is_done_with_the_keyboard(serve_anywhere, page, clip):
    """Style, settings, replay, record, play, delete and remove, with Tab, Enter, Space, arrows and
    Escape alone."""
    served = serve_anywhere()
    served.hub.add(clip, "test", trusted=True)
    page.listen()
    page.go(served.url)
    until(lambda: page.run(SEEN), 20)

    tab_to(page, ".segments input:checked")
    press(page, "ArrowRight")
    until(lambda: served.hub.settings("test")["style"] == "skeleton")
    tab_to(page, ".adjust")
    press(page, "Enter", "\r")
    assert page.run("document.querySelector('.adjust').getAttribute('aria-expanded')") == "true"
    tab_to(page, ".settings select", 4)
    press(page, "Escape")
    assert page.run("document.querySelector('.settings').hidden")
    assert page.run("document.activeElement.matches('.adjust')")

    until(lambda: page.run("!document.querySelector('.ended').hidden"), 20)
    read = served.hub.sources()[0].read
    page.run("document.getElementById('theme').focus()")
    tab_to(page, ".repeat")
    press(page, "Enter", "\r")
    until(lambda: served.hub.sources()[0].read > read and served.hub.settings("test")["loop"])

    tab_to(page, ".record")
    press(page, "Enter", "\r")
    until(lambda: page.run("!document.querySelector('.red').hidden"))
    time.sleep(1.0)
    press(page, "Enter", "\r")
    until(lambda: page.run("document.querySelector('.red').hidden"))
    until(lambda: page.run("document.querySelector('.delete')?.disabled === false"))

    tab_to(page, ".play")
    press(page, "Enter", "\r")
    until(lambda: page.run("document.querySelector('video').currentTime > 0.1"))
    press(page, "Escape")
    until(lambda: page.run("!document.getElementById('player').open"))
    assert page.run("document.activeElement.matches('.play')")
    tab_to(page, "summary")
    press(page, "Enter", "\r")
    assert page.run("document.querySelector('#files details').open")
    press(page, "Escape")
    assert not page.run("document.querySelector('#files details').open")

    tab_to(page, ".delete")
    press(page, "Enter", "\r")
    # The dialog begins on Cancel, so that Enter twice deletes nothing.
    press(page, "Enter", "\r")
    until(lambda: page.run("document.activeElement.matches('.delete')"))
    press(page, "Enter", "\r")
    press(page, "Escape")
    assert len(served.hub.folder.recordings()) == 1
    press(page, "Enter", "\r")
    tab_to(page, "#confirm [value=yes]", 3)
    press(page, "Enter", "\r")
    until(lambda: served.hub.folder.recordings() == [])
    assert page.run("document.activeElement.id") in ("recordings-title", "")

    page.run("document.getElementById('theme').focus()")
    tab_to(page, ".remove")
    press(page, "Enter", "\r")
    tab_to(page, "#confirm [value=yes]", 3)
    press(page, "Enter", "\r")
    until(lambda: served.hub.names() == set(), 20)
    assert page.complaints == []


def test_a_question_asked_again_at_once_takes_its_own_answer(serve, page):
    """A dialog's closing is an event of its own, which may come when it is open again."""
    served = serve()
    (served.folder / "door_20261127-093029.mp4").write_bytes(b"x")
    page.go(served.url)
    until(lambda: page.run("document.querySelector('.delete')?.disabled === false"))
    page.run(
        "(() => { const dialog = document.getElementById('confirm');"
        "const ask = document.querySelector('.delete');"
        "ask.click(); dialog.close('no'); ask.click(); })()"
    )
    page.run("new Promise((resolve) => setTimeout(resolve, 50))")
    assert len(served.hub.folder.recordings()) == 1
    page.run("document.querySelector('#confirm [value=yes]').click()")
    until(lambda: served.hub.folder.recordings() == [])


def test_everything_that_is_pressed_has_a_name(serve, page, clip):
    served = serve()
    served.hub.add(clip, "test", trusted=True)
    (served.folder / "door_20261127-093029.mp4").write_bytes(b"x")
    page.go(served.url)
    until(lambda: page.run("document.querySelectorAll('article, #files li').length") == 2)
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "link", "textbox", "combobox", "checkbox", "radio", "slider", "img", "image")
    found = [node for node in nodes if node.get("role", {}).get("value") in roles]
    shown = [node for node in found if not node["ignored"]]
    assert len(shown) > 12
    for node in shown:
        assert node["name"]["value"], node


def test_the_theme_is_remembered_and_follows_the_system_else(serve, page):
    served = serve()
    ground = "getComputedStyle(document.body).backgroundColor"
    colours = {}
    for scheme in ("dark", "light"):
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        page.call("Emulation.setEmulatedMedia", features=wanted)
        page.go(served.url)
        colours[scheme] = page.run(ground)
    assert colours["dark"] != colours["light"]
    page.run(
        "(() => { const choice = document.getElementById('theme'); choice.value = 'dark';"
        "choice.dispatchEvent(new Event('change')); })()"
    )
    assert page.run(ground) == colours["dark"], "the system says light"
    page.go(served.url)
    assert page.run(ground) == colours["dark"]
    assert page.run("document.getElementById('theme').value") == "dark"


def contrast(page: Page, selector: str) -> float:
    """The contrast of an element's text on its ground (WCAG 2.2, 1.4.3)."""
    return page.run(
        "(() => { const rgb = (text) => text.match(/[\\d.]+/g).map(Number);"
        "const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255;"
        "return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });"
        "return 0.2126 * r + 0.7152 * g + 0.0722 * b; };"
        f"let e = document.querySelector({selector!r}); const ink = rgb(getComputedStyle(e).color);"
        "let ground = [0, 0, 0, 0]; while (e && ground[3] === 0) {"
        "ground = rgb(getComputedStyle(e).backgroundColor); if (ground.length === 3) {break;}"
        "e = e.parentElement; }"
        "const [a, b] = [light(ink.slice(0, 3)), light(ground.slice(0, 3))];"
        "return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })()"
    )


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_can_be_read_in_both_themes(serve, page, clip, scheme):
    served = serve()
    served.hub.add(clip, "test", trusted=True)
    (served.folder / "door_20261127-093029.mp4").write_bytes(b"x")
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    page.call("Emulation.setEmulatedMedia", features=wanted)
    page.go(served.url)
    until(lambda: page.run("document.querySelectorAll('article, #files li').length") == 2)
    page.run("document.querySelector('.adjust').click()")
    for selector in (
        "h1", "#summary", "#add button", "input", "select", "article h2", ".address", "dt", "dd",
        ".segments :checked + span", ".segments :not(:checked) + span", ".settings small",
        ".record", ".remove", ".when", "summary",
    ):  # fmt: skip
        assert contrast(page, selector) >= 4.5, selector


def test_a_clip_ends_with_its_last_frame_and_is_played_again(serve_anywhere, page, clip):
    served = serve_anywhere()
    served.hub.add(clip, "test", trusted=True)
    page.go(served.url)
    until(lambda: page.run("document.querySelector('.ended')?.hidden === false"), 20)
    # Longer than a picture is waited for.
    time.sleep(2.5)
    shown = page.run(
        "(() => { const c = document.createElement('canvas'); const x = c.getContext('2d');"
        f"x.drawImage({CARD}.querySelector('.picture img'), 0, 0);"
        "return [...x.getImageData(0, 60, 160, 1).data]; })()"
    )
    row = np.array(shown, np.uint8).reshape(1, 160, 4)[..., :3]
    assert number_of(row) == LAST
    assert served.hub.sources()[0].read == LAST + 1
    page.run("document.querySelector('.replay').click()")
    until(lambda: served.hub.sources()[0].read == 2 * (LAST + 1), 20)
    assert page.run("document.querySelector('.reason').textContent") == ""


def test_settings_change_and_say_when_the_source_begins_again(serve_anywhere, page):
    served = serve_anywhere()
    served.hub.add("lavfi:testsrc2=size=160x90:rate=10", "test", trusted=True)
    page.go(served.url)
    until(lambda: page.run(SEEN), 20)
    page.run("document.querySelector('.adjust').click()")
    bottom = "document.querySelector('.settings').getBoundingClientRect().bottom"
    assert page.run(f"{bottom} <= innerHeight + 1")

    def put(setting: str, script: str):
        control = f"document.querySelector('[data-setting={setting}]')"
        page.run(
            f"(() => {{ const c = {control}; {script}; c.dispatchEvent(new Event('change')); }})()"
        )

    put("alpha", "c.value = 0.25")
    put("labels", "c.checked = true")
    until(lambda: served.hub.settings("test")["labels"] is True)
    until(lambda: served.hub.settings("test")["alpha"] == 0.25)
    put("style", "c.value = 'wireframe'")
    until(lambda: served.hub.settings("test")["style"] == "wireframe")
    number = served.hub.number("test")
    put("timing", "c.checked = true")
    until(lambda: served.hub.number("test") > number, 20)
    until(lambda: "test begins again" in page.run("document.getElementById('note').textContent"))
    # Off and on again keeps the kind of mesh.
    page.run("document.querySelector('.segments [value=off]').click()")
    until(lambda: served.hub.settings("test")["style"] == "off")
    time.sleep(1.5)
    page.run("document.querySelector('.segments [value=mesh]').click()")
    until(lambda: served.hub.settings("test")["style"] == "wireframe")
    # Another viewer's change is shown.
    served.hub.change("test", {"style": "skeleton", "alpha": 0.75})
    until(lambda: page.run("document.querySelector('.segments :checked').value") == "skeleton")
    until(lambda: page.run("document.querySelector('[data-setting=alpha]').value") == "0.75")
    assert page.run("document.querySelector('.loop').hidden"), "it is no clip"


def test_a_refused_setting_is_put_back_though_it_has_the_focus(serve, page, monkeypatch):
    served = serve()
    served.hub.add("lavfi:testsrc2=size=160x90:rate=10", "test", trusted=True)
    page.go(served.url)
    until(lambda: page.run(SEEN), 20)
    page.run("document.querySelector('.adjust').click()")
    labels = "document.querySelector('[data-setting=labels]')"
    before = page.run(f"{labels}.checked")

    def refuse(*_):
        raise ValueError("labels cannot be changed now")

    monkeypatch.setattr(served.hub, "change", refuse)
    page.run(f"{labels}.focus(), {labels}.click()")
    assert page.run(f"{labels}.checked") is not before
    until(lambda: "now" in page.run("document.getElementById('trouble').textContent"))
    until(lambda: page.run(f"{labels}.checked") is before)
    assert page.run(f"document.activeElement === {labels}")


def test_the_kind_of_mesh_is_remembered(serve, page):
    """While a skeleton is shown, the server has no kind of mesh to say."""
    served = serve()
    served.hub.add("lavfi:testsrc2=size=160x90:rate=10", "test", trusted=True)
    page.go(served.url)
    style = "document.querySelector('.segments [value={}]')"
    served.hub.change("test", {"style": "wireframe"})
    chosen = "document.querySelector('[data-setting=style]')?.value"
    until(lambda: page.run(chosen) == "wireframe", 20)
    page.run(f"{style.format('skeleton')}.click()")
    until(lambda: served.hub.settings("test")["style"] == "skeleton")
    page.go(served.url)
    until(lambda: page.run(f"{style.format('skeleton')}?.checked === true"))
    page.run(f"{style.format('mesh')}.click()")
    until(lambda: served.hub.settings("test")["style"] == "wireframe")


def test_a_snapshot_and_poses_are_downloaded(serve_anywhere, page, clip, tmp_path):
    served = serve_anywhere()
    served.hub.add(clip, "test", trusted=True)
    recorded(served.folder)
    saved = tmp_path / "saved"
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(saved))
    page.go(served.url)
    until(lambda: page.run(SEEN), 20)
    page.run("document.querySelector('.snapshot').click()")
    until(lambda: list(saved.glob("test_*.jpg")) != [])
    until(lambda: page.run("document.querySelectorAll('#files details .row > *').length") == 5)
    for words, name in (("npz", ".npz"), ("GLB", ".glb"), ("BVH", "_bvh.zip")):
        page.run(
            "[...document.querySelectorAll('#files details button')]"
            f".find((each) => each.textContent.includes({words!r})).click()"
        )
        until(lambda name=name: (saved / f"door_20261127-093029{name}").exists(), 40)
    (served.folder / "door_20261127-093029.jsonl").write_text("")
    page.run("document.querySelector('#files details button').click()")
    until(lambda: "no people" in page.run("document.getElementById('trouble').textContent"), 40)


def test_the_whole_screen_is_left_with_escape(serve, page, clip):
    served = serve()
    served.hub.add(clip, "test", trusted=True)
    page.go(served.url)
    until(lambda: page.run(SEEN), 20)
    click(page, ".full")
    until(lambda: page.run("document.fullscreenElement?.className === 'screen'"))
    click(page, ".full")
    until(lambda: page.run("document.fullscreenElement === null"))


def test_a_long_recording_is_played_from_any_place(serve, page):
    """The browser asks for the part that it shows; a recording in parts goes on with the next."""
    served = serve()
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (96, 160, 3), np.uint8) for _ in range(8)]
    for part in (1, 2):
        path = served.folder / f"door_20261127-093029_{part:04d}.mp4"
        write_clip(path, [noise[k % 8] for k in range(500)], gop=25, options={"crf": "1"})
    page.go(served.url)
    until(lambda: page.run("document.querySelector('.play')?.disabled === false"))
    click(page, ".play")
    video = "document.querySelector('video')"
    until(lambda: page.run(f"{video}.currentTime > 0.2"), 20)
    assert page.run(f"{video}.seekable.end(0)") == pytest.approx(20, abs=0.1)
    page.run(f"{video}.currentTime = 15")
    until(lambda: page.run(f"{video}.currentTime > 15.2 && !{video}.seeking"), 20)
    page.run(f"{video}.currentTime = 19.8")
    until(lambda: page.run(f"{video}.currentSrc.endsWith('_0002.mp4')"), 20)
    assert page.run("document.querySelector('.parts [aria-pressed=true]').textContent") == "Part 2"
    page.run("document.querySelector('#player .close').click()")
    until(lambda: page.run(f"{video}.hasAttribute('src')") is False)


def test_the_list_keeps_its_focus_while_it_is_refreshed(serve, page):
    served = serve()
    recorded(served.folder)
    page.go(served.url)
    until(lambda: page.run("document.querySelector('.play') !== null"))
    page.run("document.querySelector('#files details').open = true")
    page.run("document.querySelector('#files details a').focus()")
    recorded(served.folder, "yard_20271127-093029")
    until(lambda: page.run("document.querySelectorAll('#files li').length") == 2)
    time.sleep(1.5)
    assert page.run("document.activeElement.textContent") == "Video"
    assert page.run("document.activeElement.closest('details').open")
