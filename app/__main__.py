"""``python -m app``, the same as ``python -m bodystream``."""

import sys

from app.interrupts import handle_signals


def start() -> None:
    """Run the command line and exit with its code."""
    handle_signals()
    # Imported with the handlers set: it takes a while, and a signal must print no traceback.
    from app.cli import main

    sys.exit(main())


if __name__ == "__main__":
    start()
