"""Addresses of sources: what a source's text means, and a strict parser of network addresses."""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

TEST_PREFIX = "lavfi:"
STANDARD_INPUT = ("-", "/dev/stdin")
NETWORK = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
"""Schemes of addresses that are read as live feeds."""

_CAMERA = re.compile(r"[0-9]+|/dev/video[0-9]+|/dev/v4l/by-(id|path)/.+|camera:.+")

_ANY_SERVER = (
    "is read by a media server; run one that takes it (MediaMTX does) and give its rtsp:// address"
)
_DOWNLOAD_FIRST = "is not read; download the file, or mount its folder, and give the path"
_INSTEAD = {
    **dict.fromkeys(("srt", "rist", "webrtc", "whep", "ws", "wss", "ndi", "rtmps"), _ANY_SERVER),
    "rtp": "needs a session description; send MPEG-TS to udp://, or use an RTSP server",
    "mms": _ANY_SERVER,
    **dict.fromkeys(
        ("ftp", "ftps", "sftp", "scp", "smb", "nfs", "s3", "gs", "dav", "davs"), _DOWNLOAD_FIRST
    ),
}
"""What to do with schemes that people try and that are not read."""

_ADDRESS = re.compile(r"[^/]+://")
_ALMOST = re.compile(rf"\s*(?:{'|'.join((*NETWORK, *_INSTEAD))}):", re.I | re.A)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.I | re.A)
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]{0,252})", re.I | re.A)
_CONTROL = re.compile(r"%(?:[01][0-9a-f]|7f)", re.I)
_LONGEST = 4095
"""FFmpeg cuts a longer address (MAX_URL_SIZE of libavformat/internal.h)."""

_UDP_OPTIONS = {
    "buffer_size": 1 << 26,
    "fifo_size": 300_000,
    "overrun_nonfatal": 1,
    "pkt_size": 65_507,
    "reuse": 1,
}
"""The options of a udp:// address that are passed on, and their greatest values. FFmpeg reads the
query of udp:// and tcp:// as its own options, and others would bind, listen or take memory:
https://ffmpeg.org/ffmpeg-protocols.html, sections udp and tcp."""
_TRANSPORTS = ("udp", "multicast", "filter_src", "http")
"""What FFmpeg takes out of an rtsp:// address's query: other ways to carry it, which open ports."""
_LISTENS = ("listen", "listen_timeout", "localaddr", "local_addr", "localport", "local_port")


@dataclass(frozen=True, slots=True)
class Address:
    """A network address that was checked.

    Attributes:
        scheme: One of `NETWORK`, in lower case.
        login: All before the ``@``, as written; None without one.
        host: A name or an IP address, IPv6 in brackets; "" where udp:// names none.
        port: The port; None for the scheme's own.
        rest: Path and query, as written.
    """

    scheme: str
    login: str | None
    host: str
    port: int | None
    rest: str

    @property
    def url(self) -> str:
        """The address as FFmpeg and HTTP clients take it."""
        login = "" if self.login is None else f"{self.login}@"
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{login}{self.host}{port}{self.rest}"

    @property
    def path(self) -> str:
        """The path, "" or beginning with a slash."""
        return self.rest.partition("?")[0]

    @property
    def opens_port(self) -> bool:
        """Whether reading it opens a port of this machine, as udp:// does on the interface of its
        host, or on every one. A multicast group is bound to alone."""
        if self.scheme != "udp":
            return False
        try:
            return not ipaddress.ip_address(self.host.strip("[]")).is_multicast
        except ValueError:
            return True


def is_address(spec: str) -> bool:
    """Return whether a source is meant as a network address, whether it is a valid one or not.

    Without ``//`` it may also be a file's name.
    """
    if spec.startswith((TEST_PREFIX, "camera:")) or spec.lower().startswith("file://"):
        return False
    if _ADDRESS.match(spec):
        return True
    return _ALMOST.match(spec) is not None and not os.path.isfile(spec)


def parse_address(spec: str) -> Address:
    """Return the parts of a network address.

    Args:
        spec: The address as it was typed.

    Raises:
        ValueError: It is not one that can be read. The message is one line that says what to do
            and shows nothing of ``spec``, which may hold a password anywhere.
    """
    if len(spec) > _LONGEST:
        raise ValueError(f"the address is longer than {_LONGEST} characters")
    if not spec.isprintable() or re.search(r"[\s\\]", spec) or _CONTROL.search(spec):
        raise ValueError(
            "the address holds a space, a backslash or a control character; write %20 or %5C"
        )
    scheme_found = _SCHEME.match(spec)
    scheme = "" if scheme_found is None else scheme_found[1].lower()
    if scheme in _INSTEAD:
        raise ValueError(f"{scheme}:// {_INSTEAD[scheme]}")
    if scheme_found is None or scheme not in NETWORK:
        raise ValueError(f"such an address is not read; these are: {'://, '.join(NETWORK)}://")
    parts = re.match(r"([^/?#]*)(.*)", spec[scheme_found.end() :], re.S)
    assert parts is not None, "it matches any text"
    authority, rest = parts.groups()
    if "@" in rest or "#" in rest:
        # Where FFmpeg ends the login must be where the user ended it.
        raise ValueError(
            "the address holds / ? # in its login, or @ # behind its host; write % and two digits: "
            "%2F %3F %23 %40"
        )
    login, at, place = authority.rpartition("@")
    host, port = _host_and_port(place, scheme)
    _check_query(scheme, rest)
    return Address(scheme, login if at else None, host, port, rest)


def _host_and_port(place: str, scheme: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:]*)(?::([0-9]{1,5}))?", place, re.A)
    if found is None or (found[2] is not None and not 1 <= int(found[2]) <= 65535):
        raise ValueError(
            "the address's port is not a number from 1 to 65535; a : in a login is %3A"
        )
    host, port = found[1], None if found[2] is None else int(found[2])
    if not _is_host(host) and not (scheme == "udp" and not host):
        raise ValueError("the address has no valid host: a name, 192.0.2.1 or [2001:db8::1]")
    if port is None and scheme in ("udp", "tcp"):
        raise ValueError(f"{scheme}:// needs a port: {scheme}://HOST:PORT")
    return host, port


def _is_host(host: str) -> bool:
    if not host.startswith("["):
        return _HOST.fullmatch(host) is not None
    try:
        # The zone of a link-local address is an interface's name.
        zone = ipaddress.IPv6Address(host[1:-1]).scope_id
    except ValueError:
        return False
    return zone is None or _HOST.fullmatch(zone) is not None


def _check_query(scheme: str, rest: str) -> None:
    """Raise ValueError for a query that FFmpeg would take for options of its own."""
    items = re.split("[?&;]", rest)[1:]
    keys = [item.partition("=")[0].lower() for item in items]
    if any(key in _LISTENS for key in keys):
        raise ValueError("an address with listen or local options is not read: it opens a port")
    if scheme == "tcp" and items:
        raise ValueError("tcp:// takes no options: give tcp://HOST:PORT")
    if scheme == "udp" and not all(_is_udp_option(item) for item in items):
        raise ValueError(
            "udp:// takes these options only: "
            + ", ".join(f"{key} (to {most})" for key, most in _UDP_OPTIONS.items())
        )
    if scheme.startswith("rtsp") and any(key in _TRANSPORTS for key in keys):
        raise ValueError("an rtsp:// address takes no transport; use --rtsp-transport udp")


def _is_udp_option(item: str) -> bool:
    key, _, value = item.partition("=")
    if key not in _UDP_OPTIONS or not re.fullmatch("[0-9]{1,9}", value, re.A):
        return False
    return int(value) <= _UDP_OPTIONS[key]


def is_camera(spec: str) -> bool:
    """Return whether a source is a camera of this machine.

    Udev's links under /dev/v4l name a camera for good, whatever number it has this time; any other
    link to a device counts too.
    """
    if _CAMERA.fullmatch(spec):
        return True
    try:
        return stat.S_ISCHR(Path(spec).stat().st_mode)
    except (OSError, ValueError):
        return False
