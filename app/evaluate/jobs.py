"""Do the same work for many clips, in several processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Item], Result], work: Sequence[Item], jobs: int = 1
) -> list[Result]:
    """Return what a function makes of each item, in their order.

    Args:
        function: A function of a module, which a new process can import.
        work: The items; with several processes they are pickled, and so are the results.
        jobs: The number of processes.

    Raises:
        Exception: As ``function`` raises; the first error ends the work.
    """
    # In this process: no second start-up, and a debugger works.
    if jobs <= 1:
        return [function(item) for item in work]
    # Spawned, not forked: torch and OpenCV have started threads, and a forked process lacks them.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(jobs, len(work)),
        context,
        # Ctrl-C reaches them too: they end without a traceback each.
        initializer=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as pool:
        futures = [pool.submit(function, item) for item in work]
        try:
            return [future.result() for future in futures]
        except BaseException:
            # Items that have not begun need not run: the first error ends the work.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
