"""Where motions are: shipped ones, those of other packages, and paths."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

MOTIONS = Path(__file__).with_name("motions")
"""The motions shipped: a folder each."""
_PACKAGE = "pipeline.events.motions"
GROUP = "bodystream.motions"
"""The entry points by which other packages add motions. The value of one is a package or a module
beside which ``motion.toml`` lies, or a function that returns the folder's Path."""


class MotionFiles(NamedTuple):
    """A motion's ``toml``, and the dotted name of the ``package`` that its folder is, if any."""

    toml: Path
    package: str = ""

    @property
    def folder(self) -> Path:
        return self.toml.parent


def motion_names() -> list[str]:
    """Return the names that `find_motion` knows, sorted: shipped ones and entry points."""
    shipped = {path.parent.name for path in MOTIONS.glob("*/motion.toml")}
    return sorted(shipped | {entry.name for entry in entry_points(group=GROUP)})


def find_motion(name: str | Path) -> MotionFiles:
    """Return where a motion is.

    Args:
        name: A shipped motion's name, an entry point's of the group ``bodystream.motions``, a TOML
            file or a folder with a ``motion.toml``. A shipped name comes before an entry point's,
            which comes before a folder's.

    Raises:
        ValueError: There is no such motion, or its entry point fails; in one line.
    """
    path = Path(name)
    if path.suffix == ".toml":
        return _at(path)
    # A name has no folder in it; everything else is a path.
    if path.name == str(name):
        if (MOTIONS / path / "motion.toml").is_file():
            return _at(MOTIONS / path / "motion.toml")
        for entry in entry_points(group=GROUP, name=path.name):
            return _from_entry(entry)
    if path.is_dir():
        return _at(path / "motion.toml")
    known = motion_names()
    close = get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    if path.exists():
        raise ValueError(f"{name}: is no TOML file; give one, or a folder with a motion.toml")
    raise ValueError(f"there is no motion {str(name)!r}; there are: {', '.join(known)}, or give a "
                     f"folder or a TOML file{hint}")  # fmt: skip


def _at(toml: Path) -> MotionFiles:
    """A shipped motion is imported under its own name, from a path too."""
    shipped = toml.resolve().parent.parent == MOTIONS.resolve()
    return MotionFiles(toml, f"{_PACKAGE}.{toml.resolve().parent.name}" if shipped else "")


def _from_entry(entry: EntryPoint) -> MotionFiles:
    label = f"motion {entry.name}: entry point {entry.value}"
    try:
        value = entry.load()
        if isinstance(value, ModuleType):
            return _of_module(value)
        return _at(Path(value()) / "motion.toml")
    # The entry point is another package's code, which may fail in any way.
    except Exception as error:
        words = " ".join(str(error).split())
        raise ValueError(f"{label}: {type(error).__name__}: {words}") from error


def _of_module(module: ModuleType) -> MotionFiles:
    if hasattr(module, "__path__"):
        return MotionFiles(Path(next(iter(module.__path__))) / "motion.toml", module.__name__)
    assert module.__file__ is not None, "a module that is no package has a file"
    package = module.__package__ or ""
    if package:
        import_module(package)
    return MotionFiles(Path(module.__file__).with_name("motion.toml"), package)
