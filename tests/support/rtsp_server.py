"""An RTSP server on the loopback, for tests. Run it with the system's python3.

Needs Debian's gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-good and -ugly.
Prints its port, then plays until it is killed. The top of every picture shows the monotonic clock
(ms, 32 bits, the highest on the left, white for 1) at which it was made; below is ``--picture``
(raw I420 pictures of ``--size``, repeated), or the picture's number in the same form and grey with
some noise. With --login user:password it requires that login.
"""

import argparse
import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from clock_pictures import Pictures  # noqa: E402
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

TUNED = "tune=zerolatency speed-preset=ultrafast key-int-max={gop}"
# One thread makes one slice a picture: before each further slice of a key frame GStreamer's
# payloader would repeat the parameter sets, which FFmpeg takes for the next picture.
CODECS = {
    "h264": f"x264enc {TUNED} threads=1 ! rtph264pay name=pay0 config-interval=-1",
    "h264-b": "x264enc threads=1 bframes=2 b-adapt=false speed-preset=ultrafast "
    "key-int-max={gop} ! rtph264pay name=pay0 config-interval=-1",
    "h265": f"x265enc {TUNED} ! rtph265pay name=pay0 config-interval=-1",
    "mjpeg": "jpegenc ! rtpjpegpay name=pay0",
}
AUDIO = " audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay1"


class Factory(GstRtspServer.RTSPMediaFactory):
    """Makes each picture when it is due and encodes it as the options say."""

    def __init__(self, options):
        super().__init__()
        self.options = options
        width, height = map(int, options.size.split("x"))
        self.pictures = Pictures(width, height, options.picture)
        self.set_launch(
            "( appsrc name=src is-live=true format=time do-timestamp=true "
            f"caps=video/x-raw,format=I420,width={width},height={height},"
            f"framerate={options.fps}/1 ! {CODECS[options.codec].format(gop=options.gop)} "
            f"{AUDIO if options.audio else ''} )"
        )

    def do_configure(self, media):
        GstRtspServer.RTSPMediaFactory.do_configure(self, media)
        source = media.get_element().get_by_name_recurse_up("src")
        period_s = 1 / (self.options.true_fps or self.options.fps)
        due_s, made, begun = time.monotonic(), 0, False

        def push():
            nonlocal due_s, made, begun
            now_s = time.monotonic()
            if now_s < due_s:
                return True
            # The timer is a little late each time, which must not add up. Missed time is not
            # made up by more than one picture.
            due_s = max(due_s + period_s, now_s - period_s)
            if made == self.options.frames:
                source.emit("end-of-stream")
                return False
            made += 1
            buffer = Gst.Buffer.new_wrapped(self.pictures.next())
            taken = source.emit("push-buffer", buffer) == Gst.FlowReturn.OK
            begun = begun or taken
            # A source that has not started refuses pictures; so does one that has ended.
            return taken or not begun

        GLib.timeout_add(max(1, round(period_s * 250)), push)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--gop", type=int, default=10)
    parser.add_argument("--login", default="")
    parser.add_argument("--frames", type=int, default=-1, help="end after this number of frames")
    parser.add_argument("--codec", choices=sorted(CODECS), default="h264")
    parser.add_argument("--size", default="320x240", help="the width a multiple of 32")
    parser.add_argument("--picture", default="", help="raw I420 pictures")
    parser.add_argument("--audio", action="store_true")
    parser.add_argument("--path", default="test")
    parser.add_argument("--true-fps", type=int, default=0, help="other than the declared --fps")
    options = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    factory = Factory(options)
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
    server.get_mount_points().add_factory(f"/{options.path}", factory)
    if not server.attach(None):
        sys.exit("the port is taken")
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
