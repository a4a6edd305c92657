"""The limits that a child process sets itself before it reads what may be huge or hostile."""

from __future__ import annotations

import contextlib
import resource


def limit_process(memory_mb: int) -> None:
    """Limit what this process may allocate, and let the kernel end it before its parent.

    Args:
        memory_mb: The most that it may allocate, in MB.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = memory_mb << 20 if hard == resource.RLIM_INFINITY else min(memory_mb << 20, hard)
    # Data, not address space: FFmpeg maps far more than it uses, and threads reserve their stacks.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")
