"""Python's search for garbage, kept away from what a process has loaded."""

from __future__ import annotations

import gc


def leave_out_loaded() -> None:
    """Leave all that there is now out of Python's later searches for garbage.

    A full search looks at every object while all threads wait: a tenth of a second with what the
    networks need, a quarter with what compiles for a GPU. A live source would stand still for so
    long, now and then, for objects that stay to the end anyway. For processes that end with their
    work: objects of a notebook would never be freed.
    """
    gc.collect()
    gc.freeze()


def take_in_loaded() -> None:
    """Search all again, what `leave_out_loaded` left out too."""
    gc.unfreeze()
    gc.collect()
