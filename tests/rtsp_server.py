"""An RTSP server of test pictures on the loopback, for tests. Run it with the system's python3.

Needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-good and -ugly.
Prints its port, then plays until it is killed. With --login user:password it asks for that; with
--clock each picture shows the monotonic clock (ms, 32 bits) at which it was made.
"""

import argparse
import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

BITS, WIDTH, HEIGHT = 32, 512, 64
ENCODE = (
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max={gop} ! "
    "rtph264pay name=pay0 config-interval=-1"
)
OTHERS = {
    "h264": ENCODE,
    "h264-b": "x264enc bframes=2 b-adapt=false speed-preset=ultrafast key-int-max={gop} ! "
    "rtph264pay name=pay0 config-interval=-1",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max={gop} ! "
    "rtph265pay name=pay0 config-interval=-1",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0",
}
AUDIO = " audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay1"


def clock_picture():
    """An I420 picture whose bars are the monotonic clock in ms, the highest bit on the left."""
    now_ms = time.monotonic_ns() // 1_000_000
    bar = WIDTH // BITS
    row = b"".join(
        (b"\xeb" if (now_ms >> bit) & 1 else b"\x10") * bar for bit in reversed(range(BITS))
    )
    return row * HEIGHT + b"\x80" * (WIDTH * HEIGHT // 2)


class ClockFactory(GstRtspServer.RTSPMediaFactory):
    """Pictures of the clock, made when they are asked for."""

    def __init__(self, fps, gop):
        super().__init__()
        self.fps = fps
        self.set_launch(
            "( appsrc name=src is-live=true format=time do-timestamp=true "
            f"caps=video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={fps}/1 ! "
            f"{ENCODE.format(gop=gop)} )"
        )

    def do_configure(self, media):
        source = media.get_element().get_by_name_recurse_up("src")

        def push():
            result = source.emit("push-buffer", Gst.Buffer.new_wrapped(clock_picture()))
            return result == Gst.FlowReturn.OK

        GLib.timeout_add(1000 // self.fps, push)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--gop", type=int, default=10)
    parser.add_argument("--login", default="")
    parser.add_argument("--clock", action="store_true")
    parser.add_argument("--frames", type=int, default=-1, help="end after so many")
    parser.add_argument("--codec", choices=sorted(OTHERS), default="h264")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--audio", action="store_true")
    parser.add_argument("--true-fps", type=int, default=0, help="fewer than the declared --fps")
    options = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    if options.clock:
        factory = ClockFactory(options.fps, options.gop)
    else:
        factory = GstRtspServer.RTSPMediaFactory.new()
        width, _, height = options.size.partition("x")
        true = options.true_fps or options.fps
        lie = (
            f"capssetter caps=video/x-raw,framerate={options.fps}/1 ! " if options.true_fps else ""
        )
        factory.set_launch(
            f"( videotestsrc is-live=true num-buffers={options.frames} ! "
            f"video/x-raw,format=I420,width={width},height={height},framerate={true}/1 ! {lie}"
            f"{OTHERS[options.codec].format(gop=options.gop)} "
            f"{AUDIO if options.audio else ''} )"
        )
    if options.login:
        user, _, password = options.login.partition(":")
        auth = GstRtspServer.RTSPAuth.new()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("user", "media.factory.access", True)
        permissions.add_permission_for_role("user", "media.factory.construct", True)
        factory.set_permissions(permissions)
    factory.set_shared(True)
    server.get_mount_points().add_factory("/test", factory)
    if not server.attach(None):
        sys.exit("the port is taken")
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
