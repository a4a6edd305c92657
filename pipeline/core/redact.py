"""Remove the credentials from addresses, for messages, pages and file names."""

from __future__ import annotations

import re

# A login ends at the last @ before the path. An address with a slash in the password is not valid,
# but that password must not be shown either.
_LOGIN = re.compile(r"(?<=://)(?:[^/\s:@]+:(?!\d+/)\S*@|[^/?#\s]*@)")
# Some cameras take the login in the path: /user=admin_password=1234_channel=1.
_SECRET = re.compile(
    r"(?i)([?&;#/_][^=&;/?\s]*(?:pas|pwd|pw|token|key|auth|secret|use?r|login|cred|sess|sig)"
    r"[^=&;/?\s]*=)[^&\s]+"
)


def without_credentials(address: str) -> str:
    """Return ``address`` with ``***`` in place of its user, password and tokens.

    Args:
        address: A URL, or any text that may hold one.
    """
    return _SECRET.sub(r"\1***", _LOGIN.sub("***@", address))
