"""The token that protects a served page, and the sessions of browsers that logged in with it."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable

LEAST, MOST = 16, 512
"""The length of a token in characters."""
SESSION_S = 30 * 86400
"""How long a session lasts: thirty days, in seconds."""
_TOKEN = re.compile(r"[\x21-\x7e]+")


class TokenAuth:
    """Checks tokens and sessions in constant time.

    A browser's cookie holds a signed session and not the token itself: browsers send cookies to
    every port of a host, and another program that reads one must not learn the token. Sessions are
    stored nowhere; each holds the time of its end and a signature.

    Args:
        token: The token: `LEAST` to `MOST` printable ASCII characters without spaces.
        clock_s: The wall clock in seconds since 1970.

    Raises:
        ValueError: The token is too short, too long, or cannot be sent in a header; the message is
            one line.
    """

    def __init__(self, token: str, clock_s: Callable[[], float] = time.time) -> None:
        if not LEAST <= len(token) <= MOST:
            raise ValueError(f"a token has at least {LEAST} characters, at most {MOST}")
        if not _TOKEN.fullmatch(token):
            raise ValueError("a token has ASCII letters, digits and signs only, without spaces")
        self._token = token.encode()
        self._clock_s = clock_s

    def is_token(self, given: str) -> bool:
        """Return whether the text is the token."""
        # As bytes: `compare_digest` raises an error for text that is not ASCII.
        return hmac.compare_digest(given.encode(errors="replace"), self._token)

    def session(self) -> str:
        """Return a new session for a cookie, valid for `SESSION_S` seconds."""
        return self._signed(str(int(self._clock_s() + SESSION_S)))

    def is_session(self, given: str) -> bool:
        """Return whether the text is a session of this token that has not ended."""
        ends, _, _ = given.partition(".")
        # `int` also takes other alphabets' digits, and is slow for long numbers.
        if not (ends.isascii() and ends.isdecimal() and len(ends) < 16):
            return False
        fits = hmac.compare_digest(given.encode(errors="replace"), self._signed(ends).encode())
        return fits and self._clock_s() < int(ends)

    def _signed(self, ends: str) -> str:
        # The words keep this signature apart from any other use of the token as a key.
        seal = hmac.new(self._token, f"bodystream session {ends}".encode(), "sha256")
        return f"{ends}.{seal.hexdigest()}"
