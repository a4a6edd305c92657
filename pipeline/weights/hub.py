"""Bring model files from gated repositories of the Hugging Face Hub, with the user's own token."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.problem import one_line
from pipeline.weights.catalog import Weights, WeightsFile
from pipeline.weights.download import WeightsError, sha256_of

_SHA256 = re.compile("[0-9a-f]{64}")
_TOKENS = "https://huggingface.co/settings/tokens"


def from_hub(weights: Weights, files: Sequence[WeightsFile], target: Path) -> None:
    """Put files of a model from its repository on the hub into the folder ``target``.

    Args:
        weights: The model.
        files: Those of its files to fetch.
        target: The folder; each file gets there complete or not at all.

    Raises:
        WeightsError: huggingface_hub is not installed, there is no token, access is not granted,
            or a file cannot be downloaded. The message is one line.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise WeightsError(
            "huggingface_hub is not installed; pip install 'bodystream[sam3d]'"
        ) from error
    token = huggingface_hub.get_token()
    if token is None:
        raise WeightsError(
            f"{weights.name} needs a token of the account that {weights.hub_page} granted access: "
            f"make one at {_TOKENS}, and set HF_TOKEN to it or run: hf auth login"
        )
    with _explained(weights):
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".part-") as folder:
            for file in files:
                part = _download(weights.hub, file.name, Path(folder), token)
                (target / file.name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(part, target / file.name)


def _download(repository: str, name: str, folder: Path, token: str) -> Path:
    """Download a file into a folder and return its path. Its client continues where it is cut off.

    Raises:
        OSError: It is not what the hub states, or cannot be downloaded.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    stated = get_hf_file_metadata(hf_hub_url(repository, name), token=token)
    path = Path(
        hf_hub_download(
            repository, name, revision=stated.commit_hash, local_dir=folder, token=token
        )
    )
    # The tag of a large file is its sha256, that of a small one git's hash.
    damaged = _SHA256.fullmatch(stated.etag or "") and sha256_of(path) != stated.etag
    if damaged or path.stat().st_size != stated.size:
        raise OSError(f"{name} came damaged; fetch it again")
    return path


@contextmanager
def _explained(weights: Weights) -> Iterator[None]:
    """Raise what goes wrong with the hub as one line that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    # `HTTPError` is that of the HTTP client of this version; hf_xet raises RuntimeError.
    except (OSError, errors.HTTPError, RuntimeError) as error:
        answer = getattr(error, "response", None)
        if answer is not None and answer.status_code == 401:
            line = (
                f"the hub does not accept your token: make one at {_TOKENS}, "
                "and set HF_TOKEN to it or run: hf auth login"
            )
        elif isinstance(error, errors.GatedRepoError):
            line = (
                f"access to {weights.name} is not granted to your account: ask for it on "
                f"{weights.hub_page}, and fetch again once it is"
            )
        else:
            line = f"{weights.name} could not be fetched from {weights.hub_page}: {one_line(error)}"
        raise WeightsError(line) from error
