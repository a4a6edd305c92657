"""Addresses without their logins, fit for messages, pages and file names."""

from __future__ import annotations

import re

# A login ends at the last @ before the path; one with a slash in its password is no valid address
# but must not be shown either.
_LOGIN = re.compile(r"(?<=://)(?:[^/\s:@]+:(?!\d+/)\S*@|[^/?#\s]*@)")
# Some cameras take logins in the path: /user=admin_password=1234_channel=1.
_SECRET = re.compile(
    r"(?i)([?&;#/_][^=&;/?\s]*(?:pas|pwd|pw|token|key|auth|secret|use?r|login|cred|sess|sig)"
    r"[^=&;/?\s]*=)[^&\s]+"
)


def without_credentials(address: str) -> str:
    """``address`` without its user, password and tokens, fit for messages and file names."""
    return _SECRET.sub(r"\1***", _LOGIN.sub("***@", address))
