"""Show addresses without the secrets in them: in messages, on pages, in names of files.

What is shown is built from lists of harmless parts: a scheme, a host, a port, words of the path and
of the query that cameras and media servers use. Anything else may be a secret and becomes ``***``.
"""

from __future__ import annotations

import re
from itertools import groupby

_HIDDEN = "***"
_SCHEMES = (
    "rtsp", "rtsps", "rtspu", "rtmp", "rtmps", "rtmpt", "http", "https", "udp", "tcp", "rtp", "srt",
    "rist", "whep", "webrtc", "ws", "wss", "ndi", "mms", "mmsh", "ftp", "ftps", "sftp", "smb",
    "nfs", "s3", "gs", "file",
)  # fmt: skip
_OPENING = " \t\n\r\f\v\"'(<[{"
# With one slash or none it is no address that anything reads, but what follows may be a login.
# A scheme that was hidden before is one, too.
_START = rf"(?:(?:[a-z0-9][a-z0-9+.-]*|\*\*\*)://|(?:{'|'.join(_SCHEMES)}):(?=\S))"
# A second address begins after a space or an opening sign: a password may hold the rest.
_ADDRESS = re.compile(
    rf"(?<![a-z0-9+.-])({_START})((?:(?!(?<=[{re.escape(_OPENING)}]){_START}).)*)", re.I | re.S
)
# At the last @ that has a host behind it, because passwords hold any sign, also spaces.
_LOGIN = re.compile(r"(.*)@(?=\S)", re.S)
_HOST_PORT = re.compile(
    r"(?:\[[0-9a-f:.]+(?:%[\w.-]+)?\]|[a-z0-9_][a-z0-9_.-]*)(?::[0-9]{1,5})?|:[0-9]{1,5}",
    re.I | re.A,
)
_PUNCTUATION = ":,.;!?)]}'\">"

# Free text: a login without a scheme, and a value that its key calls a secret.
_BARE_LOGIN = re.compile(r"(?<!\S)[^\s:@]*:\S*@(?=\S)")
_SECRET = re.compile(
    r"(?i)((?:^|[?&;#/_\s])[^=&;/?\s]{0,40}(?:pas|pwd|pw|token|key|auth|secret|use?r|login|cred|sess"
    r"|sig)[^=&;/?\s]{0,40}=)[^&\s]+"
)

_PATHS = """
live stream streams streaming channel channels ch chn cam camera cameras video videos media mjpg
mjpeg mpeg mpeg4 h264 h265 hevc av hls dash rtsp rtmp webrtc main sub preview h264preview
h265preview high low hd sd hi lo full feed feeds onvif profile unicast multicast realmonitor axis
bin isapi psia play playlist index manifest master chunklist mediainput vod broadcast app view
snapshot snap still picture image img frame latest videostream output input src source default
primary secondary track test demo sample clip clips page 2160p 1080p 720p 480p 360p 4k
"""
_SUFFIXES = """
mp4 m4v mov mkv webm avi ts mts mpg flv m3u8 m3u mpd sdp jpg jpeg png webp bmp tif tiff smp amp
html cgi fcgi php asp
"""
_PLACES = """
front back rear side left right up down top bottom north south east west inside outside indoor
outdoor in out door doors gate gates garage garden yard drive driveway entrance entry exit hall
hallway lobby stairs kitchen living room bedroom office desk shop store warehouse factory parking
street road roof porch patio deck balcony terrace pool gym studio stage lab court pitch field barn
stable frontdoor backdoor doorbell frontyard backyard livingroom basement cellar attic baby kids
"""
_WORDS = frozenset(f"{_PATHS}{_SUFFIXES}{_PLACES}".split())
"""Words of a path that are no secret: those of cameras and servers, suffixes, places."""
_WORD = re.compile(
    rf"(?:{'|'.join(map(re.escape, sorted(_WORDS)))})[0-9]{{0,3}}|[0-9]{{1,3}}", re.I
)
_LETTER = re.compile(r"[a-z][0-9]{0,2}", re.I)
_MOST_WORDS = 4
_QUERY_KEYS = """
camera cam channel channelid ch chn stream streamid streamtype subtype subchannel profile resolution
res size width height w h fps framerate rate quality compression codec videocodec format type
rotation mirror x action cmd fifo_size buffer_size pkt_size overrun_nonfatal reuse tcp
"""
_KEYS = frozenset(_QUERY_KEYS.split())
_VALUE = re.compile(r"[0-9]{1,5}|[0-9]{1,5}[x*][0-9]{1,5}", re.I)


def without_credentials(text: str) -> str:
    """Return ``text`` with ``***`` for whatever may be a secret in the addresses that it holds.

    Of an address stay the scheme, the host, the port, and the words of path and query that are
    known to be harmless. All up to the last ``@`` counts as a login. Words after an address stay,
    except where the text begins with it and a space follows: then they may be a part of it.
    Applying it twice changes nothing more.

    Args:
        text: An address, or any text that may hold some.
    """
    shown, at = [], 0
    for found in _ADDRESS.finditer(text):
        before = text[at : found.start()]
        # Our messages have a colon behind an address that they begin with.
        alone = at == 0 and not before.strip()
        shown += [_without_pairs(before), _shown(found[1], found[2], alone)]
        at = found.end()
    return "".join([*shown, _without_pairs(text[at:])])


def _without_pairs(text: str) -> str:
    """The text between addresses, without logins and secret values."""
    return _SECRET.sub(rf"\1{_HIDDEN}", _BARE_LOGIN.sub(f"{_HIDDEN}@", text))


def _shown(start: str, rest: str, alone: bool) -> str:
    """An address whose scheme and colon are ``start``, and the words after it, unless it is meant
    to stand ``alone``."""
    scheme = start.partition(":")[0].lower()
    if scheme == "file" and "@" not in rest:
        return start + rest
    login = _LOGIN.match(rest)
    if login is not None:
        rest = rest[login.end() :]
    address, words = re.match(r"(\S*)(.*)", rest, re.S).groups()  # type: ignore[union-attr]
    # A sentence goes on behind an address.
    bare = address.rstrip(_PUNCTUATION)
    address, words = bare, address[len(bare) :] + words
    if alone and words[:1].isspace():
        # The last sign stays: another address may begin behind it.
        words = f" {_HIDDEN}{words[-1] if words[-1] in _OPENING else ''}"
    else:
        words = _without_pairs(words)
    login_shown = "" if login is None else f"{_HIDDEN}@" if login[1] else "@"
    scheme_shown = scheme if scheme in _SCHEMES else _HIDDEN
    slashes = "//" if start.endswith("//") else ""
    place = _place(address) if slashes or login else _HIDDEN
    return f"{scheme_shown}:{slashes}{login_shown}{place}{words}"


def _place(address: str) -> str:
    """Host, port, path and query of an address without its scheme and login."""
    parts = re.match(r"([^/?#]*)([^?#]*)(.*)", address, re.S)
    assert parts is not None, "it matches any text"
    host, path, query = parts.groups()
    if not _HOST_PORT.fullmatch(host):
        return _HIDDEN
    path = "/".join(_segment(segment) for segment in path.split("/"))
    if not query:
        return host + path
    items = (item if item in "?&;#" else _pair(item) for item in re.split("([?&;#])", query))
    return host + path + "".join(items)


def _segment(text: str) -> str:
    """A part of the path between two slashes."""
    if re.search("[=;&,]", text):
        # Logins in the path: /user=admin_password=1234_channel=1.
        items = [_pair(item) if "=" in item else _HIDDEN for item in re.split("[;&,_]", text)]
        # Several that are hidden in a row become one.
        return "_".join(item for item, _ in groupby(items))
    return text if _is_harmless(text) else _HIDDEN


def _pair(text: str) -> str:
    """A key with its value, where both are harmless."""
    key, equals, value = text.partition("=")
    if not text or (key.lower() in _KEYS and (not equals or _VALUE.fullmatch(value))):
        return text
    if key.lower() in _KEYS:
        return f"{key}={value if _is_harmless(value) else _HIDDEN}"
    return _HIDDEN


def _is_harmless(text: str) -> bool:
    """Whether the text is a few known words, with few digits and at most one single letter."""
    if not text or text == _HIDDEN or text.lower() in _WORDS:
        return True
    words = re.split("[-_.]", text)
    letters = [word for word in words if not _WORD.fullmatch(word)]
    return (
        len(words) <= _MOST_WORDS
        and len(letters) <= 1
        and all(_LETTER.fullmatch(word) for word in letters)
        and sum(word.isdigit() for word in words) <= 1
    )
