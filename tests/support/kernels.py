"""A notebook's kernel, driven as a notebook drives it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.support.paths import ROOT

LIMIT_S = 120


class Kernel:
    """A kernel that runs one cell at a time."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self._manager, self._client = manager, client

    def run(self, code: str, interrupt_at: str | None = None) -> tuple[dict[str, Any], str]:
        """Run a cell; return the kernel's reply and all text that the cell showed.

        Args:
            code: The cell.
            interrupt_at: Interrupt it as soon as it shows a text that begins with this pattern.
        """
        shown: list[str] = []
        waiting = [] if interrupt_at is None else [interrupt_at]

        def show(message: dict[str, Any]) -> None:
            content = message["content"]
            text = content.get("data", {}).get("text/plain", content.get("text", ""))
            shown.append(text)
            if waiting and re.match(waiting[0], text):
                waiting.clear()
                self._manager.interrupt_kernel()

        reply = self._client.execute_interactive(code, output_hook=show, timeout=LIMIT_S)
        return reply["content"], "".join(shown)


@contextmanager
def kernel(folder: Path, **environment: str) -> Iterator[Kernel]:
    """Start a kernel in a folder, with more variables; it is there for the block."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(
        cwd=str(folder), env={**os.environ, "PYTHONPATH": str(ROOT), **environment}
    )
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=LIMIT_S)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
