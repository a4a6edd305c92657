"""The token that opens a served page, and the sessions of browsers that showed it."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable

LEAST, MOST = 16, 512
"""Letters of a token."""
SESSION_S = 30 * 86400
_TOKEN = re.compile(r"[\x21-\x7e]+")


class TokenAuth:
    """Tells who has the ``token``, in constant time. Raises ValueError, in a line, for one that is
    short, long, or can stand in no header.

    A browser is given a session in the token's place: cookies go to every port of a host, and
    whoever reads one must not have what opens other doors.
    """

    def __init__(self, token: str, clock_s: Callable[[], float] = time.time) -> None:
        if not LEAST <= len(token) <= MOST:
            raise ValueError(f"a token has at least {LEAST} characters, at most {MOST}")
        if not _TOKEN.fullmatch(token):
            raise ValueError("a token is of ASCII's letters, digits and signs, without spaces")
        self._token = token.encode()
        self._clock_s = clock_s

    def is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="replace"), self._token)

    def session(self) -> str:
        """What a browser may show for the next thirty days."""
        return self._signed(str(int(self._clock_s() + SESSION_S)))

    def is_session(self, given: str) -> bool:
        ends, _, _ = given.partition(".")
        if not (ends.isascii() and ends.isdecimal() and len(ends) < 16):
            return False
        fits = hmac.compare_digest(given.encode(errors="replace"), self._signed(ends).encode())
        return fits and self._clock_s() < int(ends)

    def _signed(self, ends: str) -> str:
        seal = hmac.new(self._token, f"bodystream session {ends}".encode(), "sha256")
        return f"{ends}.{seal.hexdigest()}"
