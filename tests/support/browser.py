"""A real browser without a screen, driven through its debugging protocol."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.waiting import until

_NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, _NAMES)), None)
_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
_NO_WEBGL = ("--disable-gpu", "--disable-3d-apis")
_COMPLAINTS = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")


class Page:
    """One tab of a headless browser. ``complaints`` are the errors that it reports of a page:
    messages of the console, exceptions, refusals by the page's policy."""

    def __init__(self, port: int) -> None:
        client = pytest.importorskip("websockets.sync.client")
        tab = httpx.put(f"http://127.0.0.1:{port}/json/new").json()
        self._stack = contextlib.ExitStack()
        opened = client.connect(tab["webSocketDebuggerUrl"], max_size=None)
        self._socket = self._stack.enter_context(opened)
        self._ids = itertools.count(1)
        self.complaints: list[dict] = []

    def call(self, method: str, **given: object) -> dict:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": given}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("method") in _COMPLAINTS:
                self.complaints.append(answer["params"])
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def listen(self) -> None:
        """Collect complaints from now on."""
        self.call("Log.enable")
        self.call("Runtime.enable")

    def go(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        until(lambda: self.run("document.readyState") == "complete")

    def run(self, script: str):
        """Return the value of an expression in the page."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str, seconds: float = 20) -> None:
        """Wait until an expression in the page is true."""
        until(lambda: self.run(script), seconds)

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def opened(folder: Path, webgl: bool = False) -> Iterator[Page]:
    """Open a tab of a browser that stores its profile in ``folder``; skip the test without a
    browser. With ``webgl`` it draws WebGL on the CPU, else it has none."""
    if BROWSER is None:
        pytest.skip("needs chromium")
    process = subprocess.Popen(
        [BROWSER, "--headless", "--no-sandbox", *(_WEBGL if webgl else _NO_WEBGL),
         "--remote-debugging-port=0",
         "--remote-allow-origins=*", f"--user-data-dir={folder / 'browser'}", "about:blank"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "DevTools listening" in line)
        found = re.search(r":(\d+)/", line)
        assert found is not None
        tab = Page(int(found[1]))
        yield tab
        tab.close()
    finally:
        process.kill()
        process.wait(10)
