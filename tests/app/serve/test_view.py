"""The 3D view in a real browser: of a recording, in a notebook and of a live source."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("websockets.sync.client")

import bodystream  # noqa: E402
from app.exports.recording import read_recording  # noqa: E402
from app.serve import live  # noqa: E402
from app.serve.connection import listen  # noqa: E402
from app.serve.running import running  # noqa: E402
from app.serve.viewing import create_view  # noqa: E402
from app.view.frames import recording_file  # noqa: E402
from pipeline.core.people import Bodies  # noqa: E402
from tests.support.bodies import frame as made_frame  # noqa: E402
from tests.support.bodies import run_info  # noqa: E402
from tests.support.browser import Page, opened  # noqa: E402
from tests.support.clips import numbered, write_clip  # noqa: E402
from tests.support.recordings import save_poses  # noqa: E402
from tests.support.serving import TOKEN, Served  # noqa: E402
from tests.support.view import FPS, free_body, posed_arrays  # noqa: E402
from tests.support.waiting import until  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FRAMES = {1: [0, 1, 2, 3, 8, 9], 2: [1, 2, 3], 9: [3, 8, 9]}
"""Frames 4 to 7 have no people."""
VIEW = "document.querySelector('.view3d').view3d"
READY = "document.querySelector('.view3d')?.view3d?.frame.tracks.length > 0"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Page]:
    with opened(tmp_path_factory.mktemp("browser"), webgl=True) as tab:
        tab.listen()
        yield tab


@pytest.fixture
def page(browser) -> Iterator[Page]:
    # Leaves the last test's page, whose server is gone.
    browser.go("about:blank")
    browser.complaints.clear()
    yield browser
    # A socket that is closed while it opens is a warning: its tab was left at once.
    levels = [each.get("entry", {}).get("level") for each in browser.complaints]
    assert [each for each, level in zip(browser.complaints, levels) if level != "warning"] == []


@contextlib.contextmanager
def served(path: Path, token: str | None = None) -> Iterator[str]:
    recording = recording_file(read_recording(path))
    with running(create_view(recording, token), listen("127.0.0.1", 0)) as (url, _):
        yield url


@pytest.fixture
def shown(page, tmp_path) -> Iterator[Callable[[dict[str, Any]], Page]]:
    """Opens the page of a recording, paused at its first frame."""
    with contextlib.ExitStack() as stack:

        def show(arrays: dict[str, Any]) -> Page:
            path = save_poses(tmp_path / "poses.npz", arrays)
            page.go(stack.enter_context(served(path)))
            page.wait_for(READY)
            page.run(f"{VIEW}.timeline.toggle(false), {VIEW}.timeline.go(0)")
            return page

        yield show


def go(page: Page, number: int) -> list[int]:
    """Show a frame of a recording; return the people who are shown."""
    return page.run(
        f"{VIEW}.timeline.go({number / FPS}), {VIEW}.stage.render(),"
        f"[...{VIEW}.people].filter(([_, each]) => each.object.visible)"
        ".map(([track]) => track).sort()"
    )


def test_the_page_poses_and_shapes_people_as_the_file_has_them(shown):
    """Joints are those of the mesh's bones, vertices those that three.js skins on the CPU by the
    same rules as its shader; both within a millimetre, in the camera's axes."""
    arrays = posed_arrays(FRAMES)
    page = shown(arrays)
    wanted = free_body(arrays)
    vertices = wanted.shown_m.numpy()[:, ::500]
    for number in (0, 3, 9):
        for track in go(page, number):
            (row,) = np.flatnonzero((arrays["frame"] == number) & (arrays["track"] == track))
            joints = page.run(f"{VIEW}.jointsOf({track})")
            assert np.abs(np.array(joints) - arrays["joints_m"][row]).max() < 1e-3
            skinned = page.run(
                f"(() => {{ const mesh = {VIEW}.people.get({track}).body.mesh;"
                f"return [...Array({vertices.shape[1]}).keys()].map((index) =>"
                "mesh.getVertexPosition(500 * index, mesh.position.clone()).toArray()); })()"
            )
            assert np.abs(np.array(skinned) - vertices[row]).max() < 1e-3


def test_people_appear_and_vanish(shown):
    page = shown(posed_arrays(FRAMES))
    for number in range(10):
        assert go(page, number) == [track for track, own in FRAMES.items() if number in own]


def test_the_camera_sees_each_joint_where_the_picture_has_it(shown):
    """Through the camera, a joint's pixel is that of the pinhole, in a view of any shape."""
    arrays = posed_arrays({1: [0]})
    arrays["intrinsics"] = np.array([[900.0, 0, 500], [0, 1000, 420], [0, 0, 1]])
    page = shown(arrays)
    page.run(f"{VIEW}.enterCamera(), {VIEW}.stage.render()")
    found = page.run(
        f"(() => {{ const {{ stage, people }} = {VIEW}; stage.camera.updateMatrixWorld();"
        "const { clientWidth: w, clientHeight: h } = stage.canvas;"
        "const at = (joint) => { const p = stage.toWorld(people.get(1).joint(joint,"
        " stage.camera.position.clone())).project(stage.camera);"
        " return [w * (1 + p.x) / 2, h * (1 - p.y) / 2]; };"
        "return { w, h, joints: [...Array(24).keys()].map(at) }; })()"
    )
    height, width = arrays["image_size"]
    scale = min(found["w"] / width, found["h"] / height)
    pixels = arrays["joints_m"][0] @ arrays["intrinsics"].T
    pixels = pixels[:, :2] / pixels[:, 2:]
    # The picture is in the middle of the view.
    wanted = (pixels - (np.array([width, height]) - 1) / 2) * scale
    wanted += np.array([found["w"], found["h"]]) / 2
    np.testing.assert_allclose(found["joints"], wanted, atol=0.5)


def test_people_stay_in_view_until_the_viewer_moves_it(shown):
    """A person who walks ten metres aside; then the viewer turns the view."""
    arrays = posed_arrays({1: list(range(20))})
    arrays["joints_m"] = arrays["joints_m"] + np.arange(20)[:, None, None] * [0.5, 0, 0]
    page = shown(arrays)
    place = f"{VIEW}.pelvises()[0].project({VIEW}.stage.camera).x"
    for number in range(20):
        go(page, number)
        assert abs(page.run(place)) < 0.7
    page.run(f"{VIEW}.canvas.focus()")
    press(page, "ArrowLeft", 37)
    viewer = f"{VIEW}.stage.camera.position.toArray()"
    chosen = page.run(viewer)
    for number in range(20):
        go(page, number)
        assert page.run(viewer) == chosen
    page.run(f"{VIEW}.reset()")
    assert abs(page.run(place)) < 0.7


def press(page: Page, key: str, code: int) -> None:
    for kind in ("keyDown", "keyUp"):
        text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
        page.call(
            "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text
        )  # fmt: skip


def test_the_view_is_used_by_the_keyboard(shown):
    page = shown(posed_arrays(FRAMES))
    page.run(f"{VIEW}.timeline.slider.focus()")
    press(page, "ArrowRight", 39)
    assert page.run(f"{VIEW}.frame.frame") == 1
    press(page, " ", 32)
    assert page.run(f"{VIEW}.timeline.playing") is True
    press(page, " ", 32)
    assert page.run(f"{VIEW}.timeline.playing") is False
    page.run(f"{VIEW}.canvas.focus()")
    before = page.run(f"{VIEW}.stage.camera.position.toArray()")
    press(page, "ArrowLeft", 37)
    after = page.run(f"{VIEW}.stage.camera.position.toArray()")
    assert np.abs(np.subtract(before, after)).max() > 0.01
    names = page.run(
        "[...document.querySelectorAll('.view3d :is(button, select, input, canvas)')]"
        ".map((each) => each.getAttribute('aria-label') ?? each.textContent)"
    )
    assert all(names)


def test_meshes_and_skeletons_are_switched(shown):
    page = shown(posed_arrays({1: [0, 1]}))
    parts = f"{VIEW}.people.get(1).body.mesh.visible, {VIEW}.people.get(1).skeleton.visible"
    assert page.run(f"[{parts}]") == [True, False]
    page.run(f"{VIEW}.skeleton.click()")
    assert page.run(f"[{parts}]") == [False, True]
    page.run(f"{VIEW}.mesh.click()")
    assert page.run(f"[{parts}]") == [True, False]


def test_a_followed_person_stays_and_a_mirrored_one_changes_side(shown):
    arrays = posed_arrays({1: [0, 1, 2], 2: [0, 1]})
    page = shown(arrays)
    page.run(f"{VIEW}.follow.value = 2, {VIEW}.follow.dispatchEvent(new Event('change'))")
    target = f"{VIEW}.stage.controls.target.toArray()"
    for number in (0, 1):
        go(page, number)
        pelvis = arrays["joints_m"][(arrays["frame"] == number) & (arrays["track"] == 2)][0, 0]
        np.testing.assert_allclose(page.run(target), pelvis * [1, -1, -1], atol=1e-3)
    stays = page.run(target)
    go(page, 2)
    assert page.run(target) == stays, "who is not there is not followed"
    page.run(f"{VIEW}.tools.querySelector('[title^=Swap]').click()")
    go(page, 1)
    np.testing.assert_allclose(page.run(target), pelvis * [-1, -1, -1], atol=1e-3)


def test_a_licensed_body_has_a_skeleton_and_no_mesh(shown):
    page = shown({**posed_arrays({1: [0]}), "model": np.array("SMPL")})
    assert page.run(f"{VIEW}.people.get(1).body") is None
    assert page.run(f"{VIEW}.people.get(1).skeleton.visible") is True
    assert page.run(f"{VIEW}.mesh.disabled") is True
    assert "licensed" in page.run("document.querySelector('.view3d .note').textContent")
    loaded = page.run("performance.getEntriesByType('resource').map((each) => each.name)")
    assert not [name for name in loaded if name.endswith("body.bin")]


def test_a_notebooks_cell_shows_the_same(page, tmp_path):
    arrays = posed_arrays({1: [0, 1]})
    cell = bodystream.view(save_poses(tmp_path / "poses.npz", arrays))._repr_html_()
    path = tmp_path / "cell.html"
    path.write_text(f"<!doctype html>{cell}")
    page.go(path.as_uri())
    inside = "document.querySelector('iframe').contentDocument.querySelector('.view3d')?.view3d"
    page.wait_for(f"{inside}?.frame.tracks.length > 0")
    joints = page.run(f"{inside}.jointsOf(1)")
    assert np.abs(np.array(joints) - arrays["joints_m"][0]).max() < 1e-3


def test_a_page_without_webgl_says_so(tmp_path):
    path = save_poses(tmp_path / "poses.npz", posed_arrays({1: [0]}))
    with served(path) as url, opened(tmp_path) as page:
        page.go(url)
        page.wait_for("document.getElementById('view').textContent.includes('WebGL')")


@contextlib.contextmanager
def fed(served: Served, *names: str) -> Iterator[dict[str, Any]]:
    """Sources with two people in every frame; yields the people's arrays."""
    arrays = posed_arrays({1: [0], 2: [0]})
    bodies = live_bodies(arrays)
    for name in names:
        served.hub.add("lavfi:testsrc2=size=64x48:rate=5", name, trusted=True)
    stop = threading.Event()

    def feed() -> None:
        for number in range(1_000_000, 1_010_000):
            for name in names:
                served.hub._channel(name).view.add(run_info(), made_frame(number), bodies)
            if stop.wait(0.04):
                return

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield arrays
    finally:
        stop.set()
        thread.join()


def choose(page: Page, name: str, tab: str) -> None:
    """Choose a tab of a source's card, once it is there."""
    found = (
        f"[...document.querySelectorAll('article[aria-label={name}] [role=tab]')]"
        f".find((each) => each.textContent === '{tab}')"
    )
    page.wait_for(f"!!{found}")
    page.run(f"{found}.click()")


def view_of(name: str) -> str:
    return f"document.querySelector('article[aria-label={name}] .view3d')?.view3d"


def test_a_live_sources_tab_shows_its_bodies(serve, page):
    served = serve()
    with fed(served, "door") as arrays:
        page.go(served.url)
        choose(page, "door", "3D")
        page.wait_for(READY, 60)
        joints = [page.run(f"{VIEW}.jointsOf({track})") for track in (1, 2)]
        assert np.abs(np.array(joints) - arrays["joints_m"]).max() < 1e-3
        number = page.run(f"{VIEW}.frame.frame")
        page.wait_for(f"{VIEW}.frame.frame > {number}")
        choose(page, "door", "Picture")
        assert page.run("document.querySelector('.picture').hidden") is False
        assert page.run("document.querySelector('.view3d canvas')") is None


def test_a_tab_that_is_left_keeps_no_view(serve, page):
    """A browser has some sixteen WebGL contexts for all views: the oldest is lost to a new one."""
    served = serve()
    with fed(served, "door", "yard"):
        page.go(served.url)
        page.run("window.views = []")
        choose(page, "yard", "3D")
        page.wait_for(f"{view_of('yard')}?.people.size > 0", 60)
        for _ in range(20):
            choose(page, "door", "3D")
            page.wait_for(f"{view_of('door')}?.people.size > 0", 60)
            page.run(f"{{ views.push(new WeakRef({view_of('door')})); }}")
            choose(page, "door", "Picture")
        page.call("HeapProfiler.collectGarbage")
        assert page.run("views.filter((each) => each.deref()).length") <= 1
        context = f"{view_of('yard')}.stage.renderer.getContext()"
        assert page.run(f"{context}.isContextLost()") is False


def test_a_view_that_lost_its_memory_says_so_and_comes_back(serve, page):
    served = serve()
    with fed(served, "door"):
        page.go(served.url)
        choose(page, "door", "3D")
        page.wait_for(READY, 60)
        page.run(f"{VIEW}.stage.renderer.forceContextLoss()")
        page.wait_for("document.querySelector('.view3d .note').textContent.includes('memory')")
        choose(page, "door", "3D")
        page.wait_for(READY, 60)
        assert page.run("document.querySelector('.view3d .note').textContent") == ""
        assert page.run(f"{VIEW}.stage.lost") is False
    # three.js writes to the console that the context was lost.
    page.complaints[:] = [each for each in page.complaints if "Context Lost" not in str(each)]


def test_a_body_that_did_not_load_is_loaded_again(serve, page):
    served = serve()
    with fed(served, "door"):
        page.go(served.url)
        # Once without an answer, once with an error's.
        page.run(
            "{ const real = fetch; let count = 0; window.fetch = (...given) => {"
            "if (!String(given[0]).endsWith('body.bin')) { return real(...given); }"
            "count += 1; if (count === 1) { return Promise.reject(new TypeError('no network')); }"
            "return count === 2 ? real('/view/none.js') : real(...given); }; }"
        )
        choose(page, "door", "3D")
        said = "document.querySelector('.view3d-live > .note').textContent"
        page.wait_for(f"{said}.includes('no network')")
        page.wait_for(f"{said}.includes('404')")
        page.wait_for(READY, 60)
        assert page.run(said) == ""
    # The browser itself reports the 404.
    assert all(each.get("entry", {}).get("source") == "network" for each in page.complaints)
    page.complaints.clear()


def test_a_viewer_without_a_place_reads_why(serve, page, monkeypatch):
    monkeypatch.setattr(live, "MOST_SOCKETS", 0)
    served = serve()
    with fed(served, "door"):
        page.go(served.url)
        choose(page, "door", "3D")
        said = "document.querySelector('.view3d-live > .note').textContent"
        page.wait_for(f"{said}.includes('there are 0 already')")


def test_the_state_and_the_recording_are_seen_in_3d(serve, page, tmp_path):
    clip = write_clip(tmp_path / "c.mp4", [numbered(k) for k in range(80)])
    served = serve()
    served.hub.add(str(clip), "clip", trusted=True)
    with fed(served, "door"):
        page.go(served.url)
        for name in ("door", "clip"):
            choose(page, name, "3D")
            page.wait_for(f"!!{view_of(name)}?.stage", 60)

        def shown(name: str, what: str) -> bool:
            return page.run(
                f"document.querySelector('article[aria-label={name}] {what}').checkVisibility()"
            )

        until(lambda: shown("clip", ".ended"), 20)
        assert all(shown("clip", each) for each in (".state", ".replay", ".repeat", ".snapshot"))
        canvas = "document.querySelector('article[aria-label={}] canvas')"
        opacity = f"getComputedStyle({canvas}).opacity"
        assert float(page.run(opacity.format("clip"))) < 0.5, "they are not live"
        page.wait_for("document.querySelector('article[aria-label=door]').dataset.state === 'live'")
        assert page.run(opacity.format("door")) == "1"
        page.run("document.querySelector('article[aria-label=door] .record').click()")
        until(lambda: shown("door", ".red"))


def live_bodies(arrays: dict[str, Any]) -> Bodies:
    """Bodies of a recording's rows, as a fit gives them."""
    names = ("track", "global_orient", "body_pose", "betas", "transl_m", "joints_m", "score")
    empty = Bodies.none(12)
    return empty.with_values(**{name: arrays[name] for name in names})


def test_frames_that_come_in_bursts_are_shown_one_by_one(serve, page):
    """The model sends four at once; each is shown when it is due, and none out of order."""
    page.go(serve().url)
    shown = page.run(
        """import("/view/live.js").then(({ Pace }) => {
          const pace = new Pace(), shown = [];
          for (let tick = 0; tick < 400; tick++) {
            const now = tick / 100;
            if (tick % 16 === 0) {
              for (let n = 0; n < 4; n++) { pace.add({ pts_s: (tick / 4 + n) * 0.04 }, now); }
            }
            const frame = pace.next(now);
            if (frame) { shown.push([now, frame.pts_s]); }
          }
          return shown;
        })"""
    )
    now, pts = np.array(shown[8:]).T
    np.testing.assert_allclose(np.diff(pts), 0.04, atol=1e-9)
    np.testing.assert_allclose(np.diff(now), 0.04, atol=0.011)


def test_a_source_whose_body_is_licensed_sends_poses_alone(serve):
    """All that a browser can get is the free body's file, whatever body is fitted."""
    from websockets.sync.client import connect

    served = serve()
    served.hub.add("lavfi:testsrc2=size=64x48:rate=5", "door", trusted=True)
    info = replace(run_info(), model="SMPL")
    log = served.hub._channel("door").view
    log.add(info, made_frame(1_000_000), live_bodies(posed_arrays({1: [0], 2: [0]})))
    with connect(f"ws://127.0.0.1:{served.port}/ws/door/view") as socket:
        scene, message = json.loads(socket.recv(timeout=10)), socket.recv(timeout=10)
    assert scene["model"] == "SMPL"
    assert not scene["mesh"]
    assert len(message) == 16 + 2 * 620


def test_the_page_of_a_recording_needs_its_token(tmp_path):
    path = save_poses(tmp_path / "poses.npz", posed_arrays({1: [0]}))
    with served(path, TOKEN) as url:
        for way in ("recording.bin", "view/body.bin", "view/view3d.js"):
            assert httpx.get(url + way).status_code == 401
            got = httpx.get(url + way, headers={"authorization": f"Bearer {TOKEN}"})
            assert got.status_code == 200
        for way in ("view/../pages.py", "view/%2e%2e/pages.py", "view/none.js"):
            got = httpx.get(url + way, headers={"authorization": f"Bearer {TOKEN}"})
            assert got.status_code == 404
