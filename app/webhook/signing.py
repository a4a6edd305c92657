"""Headers that name an event and prove its sender: those of Standard Webhooks, and Stripe's."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from contextlib import suppress
from urllib.parse import quote

_PREFIX = "whsec_"


def metadata_headers(key: str, body: bytes, at_s: int, secret: str | None) -> dict[str, str]:
    """Return the headers that go with one try to deliver an event.

    ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature`` are those of Standard Webhooks
    1.0 (standardwebhooks.com), ``X-Bodystream-Signature`` is ``t=UNIX,v1=HEX`` as Stripe has it,
    HEX being the HMAC-SHA256 of UNIX, a dot and the body. Without a secret nothing is signed.

    Args:
        key: The event's key, the same in every try.
        body: The bytes that are sent.
        at_s: The time of the try, UNIX seconds.
        secret: The secret that both sides know; None for no signature.
    """
    headers = {"webhook-id": message_id(key), "webhook-timestamp": str(at_s)}
    if secret is not None:
        signed = f"{headers['webhook-id']}.{at_s}.".encode() + body
        mac = hmac.new(_key_of(secret), signed, hashlib.sha256).digest()
        # The version, so that a receiver can tell this signature from later kinds.
        headers["webhook-signature"] = "v1," + base64.b64encode(mac).decode()
        plain = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256)
        headers["X-Bodystream-Signature"] = f"t={at_s},v1={plain.hexdigest()}"
    return headers


def message_id(key: str) -> str:
    """Return an event's ``webhook-id``: its key, percent-encoded with its dots. The
    signed text is divided by dots, so an id may have none; unquoted it is the key again."""
    return quote(key, safe="").replace(".", "%2E")


def _key_of(secret: str) -> bytes:
    """Return the bytes that a secret stands for: ``whsec_`` and base64, or the text itself."""
    coded = secret.removeprefix(_PREFIX)
    if coded and coded != secret:
        # Receivers' libraries take base64 without its padding too.
        with suppress(binascii.Error):
            return base64.b64decode(coded + "=" * (-len(coded) % 4), validate=True)
    # Also a text that only looks like base64: it was a valid secret before this scheme.
    return secret.encode()
