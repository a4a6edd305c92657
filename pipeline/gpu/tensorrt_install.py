"""Which TensorRT is installed, whether it fits this torch, and its import without its noise.

Two packages bring the module ``torch_tensorrt``: torch-tensorrt-rtx for TensorRT for RTX, which
comes as ordinary wheels, and torch-tensorrt for the data-centre edition. Each release is made for
one release of torch and has its number. The import takes the edition from the package's name.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any, cast

import torch

OLDEST_TORCH = (2, 11)
"""The first torch for which there are RTX wheels, and the oldest that this code has been run on."""


@dataclass(frozen=True)
class Edition:
    """One of the two editions.

    Attributes:
        package: The package of the module ``torch_tensorrt``.
        library: The module of TensorRT itself.
        times_kernels: Whether a build times kernels on the GPU. TensorRT for RTX chooses them where
            an engine is loaded.
    """

    package: str
    library: str
    times_kernels: bool


RTX = Edition("torch-tensorrt-rtx", "tensorrt_rtx", times_kernels=False)
DATA_CENTRE = Edition("torch-tensorrt", "tensorrt", times_kernels=True)
EDITIONS = (RTX, DATA_CENTRE)


class TensorrtError(RuntimeError):
    """TensorRT is not installed, does not fit this torch, or cannot be imported."""


def installed() -> Edition:
    """Return the edition that is installed and fits this torch.

    Raises:
        TensorrtError: There is none, there are both, or it is for another torch; in one line with
            the command that installs the right one.
    """
    here = [edition for edition in EDITIONS if version_of(edition.package) is not None]
    if _torch_release() < OLDEST_TORCH:
        raise TensorrtError(f"TensorRT needs torch 2.11 or later, and this is {torch.__version__}")
    if len(here) > 1:
        both = " ".join(edition.package for edition in here)
        raise TensorrtError(
            "both editions of torch_tensorrt are installed and overwrite each other; "
            f"pip uninstall {both}, then {install_command()}"
        )
    if not here:
        raise TensorrtError(f"TensorRT is not installed; {install_command()}")
    (edition,) = here
    version = version_of(edition.package) or ""
    if _release(version) != _torch_release():
        wants = ".".join(version.split(".")[:2])
        raise TensorrtError(
            f"{edition.package} {version} is for torch {wants}, and this is {torch.__version__}; "
            + install_command(edition)
        )
    if edition.library not in sys.modules and importlib.util.find_spec(edition.library) is None:
        raise TensorrtError(
            f"{edition.package} is installed without {edition.library.replace('_', '-')}; "
            + install_command(edition)
        )
    return edition


def install_command(edition: Edition = RTX) -> str:
    """Return the command that installs an edition for this torch."""
    return "pip install " + " ".join(f"'{wanted}'" for wanted in requirements(edition))


def requirements(edition: Edition = RTX) -> list[str]:
    """Return what to install of an edition for this torch, as pip's requirements."""
    major, minor = _torch_release()
    wanted = [f"{edition.package}=={major}.{minor}.*"]
    if edition is RTX and (major, minor) == (2, 11):
        # The only release that accepts any later library, though it was built against an early one.
        wanted.append("tensorrt-rtx==1.4.*")
    return wanted


def versions(edition: Edition) -> dict[str, str | None]:
    """Return the versions of all that an engine of an edition depends on, by package."""
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        edition.package: version_of(edition.package),
        edition.library: version_of(edition.library),
    }


def describe(edition: Edition) -> str:
    """Return the packages of an edition with their versions, in a few words."""
    library = edition.library.replace("_", "-")
    return (
        f"{edition.package} {version_of(edition.package)} with {library} "
        f"{version_of(edition.library) or 'of the system'}, for torch {torch.__version__}"
    )


def version_of(package: str) -> str | None:
    """Return a package's version; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def import_torch_tensorrt() -> Any:
    """Return the module ``torch_tensorrt``, imported without what it and its libraries say.

    Raises:
        TensorrtError: `installed` raises it, or the import fails; what was said is in its notes.
    """
    edition = installed()
    if "torch_tensorrt" in sys.modules:
        return sys.modules["torch_tensorrt"]
    # An import that works still logs errors about parts that are not used here, such as "CUDA 13 is
    # not currently supported for TRT-LLM plugins".
    logging.getLogger("torch_tensorrt").setLevel(logging.CRITICAL)
    said = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(),
            _without_plugin(edition),
        ):
            warnings.simplefilter("ignore")
            import torch_tensorrt
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        wrong = TensorrtError(f"{edition.package} cannot be imported: {lines[0]}")
        wrong.add_note(said.getvalue())
        raise wrong from error
    # The import sends the whole program's warnings to a logger without a handler.
    logging.captureWarnings(False)
    torch_tensorrt.logging.set_level(logging.ERROR)
    return torch_tensorrt


@contextlib.contextmanager
def _without_plugin(edition: Edition) -> Iterator[None]:
    """Hide the package ``tensorrt.plugin`` of TensorRT for RTX.

    It imports ``tensorrt_rtx_bindings.plugin``, which no wheel has. torch-tensorrt-rtx 2.11 imports
    it where it finds it; later releases do not look for it.
    """
    name, modules = "tensorrt.plugin", cast(dict[str, Any], sys.modules)
    if edition is not RTX or name in modules:
        yield
        return
    modules[name] = None  # which the import system takes for "there is no such module"
    try:
        yield
    finally:
        del modules[name]


def _torch_release() -> tuple[int, int]:
    return _release(torch.__version__)


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
