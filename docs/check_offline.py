"""Fail where a page of the site would load anything from the network: an MkDocs hook."""

from __future__ import annotations

import re
from typing import Any

_LOADED = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=\"?(https?://[^\s\">]+)"
)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Return a page as it is (called by MkDocs). Raises PluginError, which ends the build."""
    from mkdocs.exceptions import PluginError

    if found := loaded(output):
        raise PluginError(f"{page.file.src_uri}: the site is read offline, but loads {found[0]}")
    return output


def loaded(html: str) -> list[str]:
    """Return the addresses that a page loads from the network by itself; links are not loaded."""
    return _LOADED.findall(html)
