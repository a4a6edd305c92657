"""Inputs of live sources: how FFmpeg opens an address or a camera."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from pipeline.capture.errors import (
    SourceError,
    SourceLogin,
    SourceNotFound,
    SourceNotThere,
    SourceNotVideo,
    SourceRefused,
    SourceUnreachable,
    reason,
)
from pipeline.capture.mp4 import MP4, index_is_out_of_order
from pipeline.core.redact import without_credentials

_PYAV = int(av.__version__.partition(".")[0])
ANY_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if _PYAV < 19 else {}
"""PyAV 18 refuses files whose tags are not UTF-8 without this option; PyAV 19 removed it."""

_RAW_PIXELS = 640 * 480
"""Cameras send pictures up to this size uncompressed."""
_MOST_STREAMS = 128
"""The streams that a server may announce. A satellite's multiplex has some tens."""
READ_TIMEOUT_S = 5.0
"""A feed that sends nothing for this long is lost."""

# An HTTP address that ends like a file is a clip. Others (a camera's MJPEG, HLS) are live.
_DOWNLOAD = re.compile(r"(?i)https?://[^?#]+\.(mp4|m4v|mov|mkv|webm|avi|ts|mts|mpe?g)([?#]|$)")

_PROTOCOLS = "rtsp,rtsps,rtmp,rtmps,http,https,tcp,tls,udp,rtp,srtp,crypto,httpproxy,data"
"""The protocols allowed for an address, and for what a playlist behind it names. The server at the
other end must not be able to make this program read local files."""
_FORMATS = (
    "rtsp,hls,dash,mpegts,mpeg,mpegvideo,h261,h263,h264,hevc,vvc,av1,obu,ivf,m4v,mjpeg,mpjpeg,"
    "jpeg_pipe,flv,live_flv,mov,matroska,avi,asf,ogg,nut,mxf,yuv4mpegpipe,aac,mp3,ac3,eac3,webvtt"
)
"""The formats that count as video. FFmpeg also draws text files as pictures, which would show the
pages of an internal network to anyone who may add an address."""

Opener = Callable[..., InputContainer]


@dataclass(frozen=True)
class StreamInput:
    """The input of a live source.

    Attributes:
        name: The source's name, without credentials.
        open: Opens the input once. Raises FFmpeg's error or a SourceError.
        to_error: Converts FFmpeg's error to the SourceError that says what to do.
        download: Whether it is a clip: its end is no loss, and it waits for its consumer.
        track: The video track to read, from 1; None: the one that FFmpeg calls the best.
        order: The arguments of `input_of` that make the same input in another process: "input" and
            "arguments".
    """

    name: str
    open: Callable[[], InputContainer]
    to_error: Callable[[av.error.FFmpegError], SourceError]
    download: bool = False
    track: int | None = None
    order: Mapping[str, Any] | None = None


def input_of(kind: str, arguments: Mapping[str, Any]) -> StreamInput:
    """Return the input of an order: `network` or `camera` with these arguments."""
    makers: dict[str, Callable[..., StreamInput]] = {"network": network, "camera": camera}
    return makers[kind](**arguments)


def acceleration(decode: str) -> HWAccel | None:
    """Return PyAV's option for `SourceOptions.decode`. Decoded pictures come to host memory."""
    return HWAccel("cuda", allow_software_fallback=False) if decode == "nvdec" else None


def network(
    address: str,
    rtsp_transport: str,
    opener: Opener = av.open,
    decode: str = "software",
    track: int | None = None,
) -> StreamInput:
    """Return the input of a network feed.

    Args:
        address: The address, with any credentials.
        rtsp_transport: What carries RTSP's media: "tcp" or "udp".
        opener: Opens a container as ``av.open`` does.
        decode: As `SourceOptions.decode`.
        track: As `SourceOptions.track`.
    """
    scheme = address.partition(":")[0].lower()
    # FFmpeg's own timeouts, in microseconds, because PyAV's takes the GIL at every poll. Estimating
    # the frame rate from two frames instead of twenty opens a feed 0.7 s sooner.
    timeout = "timeout" if scheme in ("rtsp", "rtsps", "udp") else "rw_timeout"
    options = {timeout: str(round(READ_TIMEOUT_S * 1e6)), "fpsprobesize": "2"}
    options |= {"protocol_whitelist": _PROTOCOLS, "format_whitelist": _FORMATS}
    options["max_streams"] = str(_MOST_STREAMS)
    if scheme.startswith("rtsp"):
        options |= {"rtsp_transport": rtsp_transport, "allowed_media_types": "video"}
    name = without_credentials(address)
    hardware = {} if decode == "software" else {"hwaccel": acceleration(decode)}

    def open_address() -> InputContainer:
        container = opener(address, options=options, **hardware, **ANY_TAGS)
        if scheme.startswith("http") and container.format.name == MP4:
            _check_index(address, name, container)
        return container

    return StreamInput(
        name=name,
        open=open_address,
        to_error=lambda error: _network_error(error, name, decode),
        download=_DOWNLOAD.match(address) is not None,
        track=track,
        order={
            "input": "network",
            "arguments": {
                "address": address,
                "rtsp_transport": rtsp_transport,
                "decode": decode,
                "track": track,
            },
        },
    )


def _check_index(address: str, name: str, container: InputContainer) -> None:
    """Raise SourceNotVideo, and close the container, if the pictures cannot be reached."""
    if not index_is_out_of_order(address):
        return
    try:
        first = next(container.demux(video=0), None)
    except av.error.FFmpegError:
        first = None
    if first is None or not first.size:
        container.close()
        raise SourceNotVideo(
            f"{name}: its index (moov) is at its end, and its server sends no parts of files (HTTP "
            "Range): download it first, or write it with -movflags +faststart"
        )
    # FFmpeg's buffer holds a small file as a whole.
    container.seek(0)


def camera(
    spec: str,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    opener: Opener = av.open,
    platform: str = sys.platform,
) -> StreamInput:
    """Return the input of a camera of this machine.

    Args:
        spec: ``0``, ``/dev/video0`` or ``camera:NAME``.
        size: (width, height) in pixels to request; None: the camera's own choice.
        fps: Frames a second to request; None: the camera's own choice.
        opener: Opens a container as ``av.open`` does.
        platform: As ``sys.platform``.
    """
    name = f"camera {spec}" if spec.isdigit() else spec

    def open_camera() -> InputContainer:
        kind, device, options = camera_input(spec, platform)
        if kind == "v4l2" and not Path(device).exists():
            found = sorted(str(path) for path in Path("/dev").glob("video*"))
            raise SourceNotFound(
                f"{name}: there is no {device}; cameras here: {', '.join(found) or 'none'}"
            )
        requested = {"video_size": f"{size[0]}x{size[1]}"} if size else {}
        if fps:
            requested["framerate"] = f"{fps:g}"
        if kind == "v4l2" and size and size[0] * size[1] > _RAW_PIXELS:
            # USB carries large pictures only as JPEG. A camera without JPEG gives its default.
            requested["input_format"] = "mjpeg"
        return _open_camera(opener, device, kind, options | requested, options)

    return StreamInput(
        name=name,
        open=open_camera,
        to_error=lambda error: _camera_error(error, name),
        order={"input": "camera", "arguments": {"spec": spec, "size": size, "fps": fps}},
    )


def _open_camera(
    opener: Opener, device: str, kind: str, requested: dict[str, str], defaults: dict[str, str]
) -> InputContainer:
    """Open the device with the requested options, without JPEG if it has none."""
    try:
        return opener(device, format=kind, options=requested)
    except av.error.FFmpegError:
        if "input_format" not in requested:
            raise
    without_jpeg = {name: value for name, value in requested.items() if name != "input_format"}
    return opener(device, format=kind, options=defaults | without_jpeg)


def camera_input(spec: str, platform: str) -> tuple[str, str, dict[str, str]]:
    """Return FFmpeg's input format, device and options for a camera.

    Raises SourceNotFound when DirectShow has no camera of that number.
    """
    label = spec.removeprefix("camera:")
    if platform == "darwin":
        # AVFoundation needs a rate that the camera has, and its default is an unusual one.
        return "avfoundation", f"{label}:none", {"framerate": "30"}
    if platform == "win32":
        if label.isdigit():
            names = [d.description for d in av.enumerate_input_devices("dshow")
                     if "video" in d.media_types]  # fmt: skip
            if int(label) >= len(names):
                raise SourceNotFound(f"camera {label}: cameras here: {', '.join(names) or 'none'}")
            label = names[int(label)]
        return "dshow", f"video={label}", {}
    return "v4l2", re.sub(r"^(\d+)$", r"/dev/video\1", label), {}


def _network_error(error: av.error.FFmpegError, name: str, decode: str) -> SourceError:
    """The SourceError for FFmpeg's. Only SourceUnreachable may pass with time: try again then."""
    if isinstance(error, av.error.HTTPUnauthorizedError):
        # The name shows a login as ***@, so it tells whether one was given.
        if "***@" in name:
            return SourceLogin(f"{name}: the login is refused: check user and password")
        return SourceLogin(f"{name}: wants a login: put user:password@ before the host")
    if decode == "nvdec" and isinstance(error, PermissionError):  # no CUDA device
        return SourceRefused(f"{name}: NVDEC cannot be used here; leave --decode out")
    if isinstance(error, av.error.HTTPForbiddenError):
        return SourceRefused(f"{name}: forbidden: this login may not watch it")
    if isinstance(error, av.error.LookupError):
        return SourceNotFound(f"{name}: {reason(error)}: FFmpeg here cannot read this kind")
    if isinstance(error, av.error.HTTPNotFoundError):
        return SourceNotThere(f"{name}: no such stream there: check the path")
    if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
        return SourceUnreachable(f"{name}: no video stream comes from there; a web page is not one")
    if getattr(error, "errno", None) == errno.EIO:
        # FFmpeg's word for an unknown host, a silent sender, and data that is none.
        return SourceUnreachable(
            f"{name}: the host is not found, or sends nothing that is video: check the address"
        )
    return SourceUnreachable(f"{name}: {reason(error)}: check the address and that it is on")


def _camera_error(error: av.error.FFmpegError, name: str) -> SourceError:
    if isinstance(error, PermissionError):
        return SourceRefused(f"{name}: no permission: on Linux, add this user to the group video")
    if getattr(error, "errno", None) == 16:  # EBUSY
        return SourceUnreachable(f"{name}: is in use by another program")
    return SourceUnreachable(f"{name}: cannot be read as a camera: {reason(error)}")
