"""The page of `serve` in a real browser, driven through its debugging protocol."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import av
import httpx
import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("websockets.sync.client")

from tests.support.browser import Page, opened  # noqa: E402
from tests.support.serving import TOKEN  # noqa: E402
from tests.support.waiting import until  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


@pytest.fixture
def page(tmp_path) -> Iterator[Page]:
    with opened(tmp_path) as tab:
        yield tab


def test_a_day_with_the_page(serve, page, rtsp_server, tmp_path):
    """Add a source, see it live, kill it, see that, bring it back, record it, download, remove."""
    served, camera = serve(), rtsp_server()
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
    until(lambda: page.run("document.querySelectorAll('article').length") == 0)
    again.kill()


def test_seven_sources_are_live_at_once_and_text_stays_text(serve, page):
    """There are more sources than the six connections that a browser opens to a host; and an
    address is shown as text, not run as a script."""
    served = serve()
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


def test_the_page_is_opened_by_its_token(serve, page):
    served = serve(TOKEN)
    page.go(served.url)
    assert page.run("location.pathname") == "/login"
    page.run(f"document.forms[0].token.value = {TOKEN!r}; document.forms[0].submit()")
    until(lambda: page.run("location.pathname") == "/")
    until(lambda: page.run("document.getElementById('nothing')?.hidden") is False)
    served.hub.add("lavfi:testsrc2=size=160x90:rate=5", "test", trusted=True)
    until(lambda: page.run("document.querySelector('article img')?.naturalWidth") == 160, 20)
    assert page.run("document.cookie") == "", "no script reads the session"
