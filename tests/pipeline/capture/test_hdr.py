"""HDR pictures are shown as SDR: the curve by itself, and clips that this file encodes."""

import functools
import http.server
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.capture.hdr import (
    WHITE_NITS,
    hlg_light,
    pq_code,
    pq_nits,
    to_sdr,
    tone_curve,
)
from pipeline.capture.hdr_tags import HLG, PEAK_NITS, PQ, peak_nits
from pipeline.capture.open import open_source
from pipeline.capture.picture import RgbConverter

BT709, BT2020, P3 = 1, 9, 12
peaks = st.floats(100.0, 10000.0)


def hdr_frame(codes: np.ndarray, transfer: int) -> av.VideoFrame:
    """A 10-bit frame of coded RGB (H, W, 3) uint16, tagged as HDR10 or HLG are."""
    frame = av.VideoFrame.from_ndarray(codes, format="rgb48le")
    frame = frame.reformat(
        format="yuv420p10le", dst_colorspace=Colorspace.BT2020, dst_color_range="MPEG"
    )
    frame.color_trc, frame.color_primaries = transfer, BT2020
    return frame


def write_hdr(path: Path, codes: np.ndarray, transfer: int, codec: str, options: dict) -> Path:
    """A clip of three frames of the same coded RGB."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = codes.shape[1::-1]
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries = transfer, BT2020
        context.colorspace, context.color_range = 9, 1
        for number in range(3):
            frame = hdr_frame(codes, transfer)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def flat(code: float, side: int = 64) -> np.ndarray:
    """A grey picture of one code in [0, 1]."""
    return np.full((side, side, 3), round(code * 65535), np.uint16)


def middle(path: Path | str) -> np.ndarray:
    """The middle pixel of a clip's first frame."""
    source = open_source(str(path))
    source.open()
    try:
        image = next(iter(source.frames())).image
    finally:
        source.close()
    return image[image.shape[0] // 2, image.shape[1] // 2]


def test_pq_codes_and_luminances_are_inverse_and_meet_the_standard():
    codes = np.linspace(0, 1, 1024)
    assert np.allclose(pq_code(pq_nits(codes)), codes, atol=1e-6)
    # BT.2408, table 1: the codes of reference white, and of 100, 1000 and 10000 cd/m2.
    assert np.allclose(
        pq_code(np.array([203.0, 100, 1000, 10000])), [0.58, 0.51, 0.75, 1], atol=5e-3
    )


def test_hlg_reference_white_is_75_percent():
    # BT.2408, table 1: on a display of 1000 cd/m2 this code shows 203 cd/m2.
    assert PEAK_NITS * hlg_light(np.array([0.75]))[0] ** 1.2 == pytest.approx(203, abs=1)
    assert np.allclose(hlg_light(np.array([0.0, 0.5, 1.0])), [0, 1 / 12, 1], atol=1e-6)


@given(peaks, st.lists(st.floats(0, 10000), min_size=2, max_size=20))
@settings(max_examples=100, deadline=None)
def test_the_curve_rises_never_brightens_and_ends_at_sdr_white(peak, levels):
    nits = np.sort(np.array(levels))
    shown = tone_curve(nits, peak)
    assert (np.diff(shown) >= -1e-6).all()
    assert (shown <= nits + 1e-6).all()
    assert tone_curve(np.array([0.0, max(peak, WHITE_NITS)]), peak) == pytest.approx(
        [0, WHITE_NITS], abs=1e-3
    )


@given(peaks)
@settings(max_examples=50, deadline=None)
def test_what_is_darker_than_the_knee_stays_as_it_is(peak):
    nits = np.array([0.0, 0.1, 1.0, 10.0, 20.0])
    # Even for the highest peak the knee is above 20 cd/m2.
    assert tone_curve(nits, peak) == pytest.approx(nits)


@given(st.sampled_from([PQ, HLG]), st.sampled_from([BT709, BT2020, P3]), peaks)
@settings(max_examples=30, deadline=None)
def test_grey_stays_grey_black_stays_black_and_nothing_turns_round(transfer, primaries, peak):
    ramp = np.repeat(np.linspace(0, 65535, 1024).astype(np.uint16)[None, :, None], 3, axis=2)
    shown = to_sdr(ramp, transfer, primaries, peak)[0].astype(int)
    assert (shown == shown[:, :1]).all()
    assert (np.diff(shown[:, 0]) >= 0).all()
    assert shown[0, 0] == 0
    assert shown[-1, 0] == 255


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_bt709_colour_in_bt2020_light_comes_back_as_that_colour(transfer):
    # BT.2087: the matrix from BT.709's primaries to BT.2020's.
    to_2020 = np.array(
        [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
    )
    # Below the knee, so that only the primaries change it.
    wanted = np.array([0.30, 0.10, 0.05])
    light = to_2020 @ wanted * WHITE_NITS
    if transfer == PQ:
        code = pq_code(light)
    else:
        luminance = np.array([0.2627, 0.6780, 0.0593]) @ light / PEAK_NITS
        scene = light / PEAK_NITS * luminance ** (1 / 1.2 - 1)
        codes = np.linspace(0, 1, 20001)
        code = np.interp(scene, hlg_light(codes), codes)
    shown = to_sdr(np.rint(code * 65535).astype(np.uint16)[None, None], transfer, BT2020)
    assert shown[0, 0] == pytest.approx(255 * wanted ** (1 / 2.4), abs=1.5)


ENCODERS = [
    ("hevc.mp4", "libx265", {"x265-params": "log-level=none"}),
    ("av1.mkv", "libsvtav1", {"preset": "12"}),
]


@pytest.mark.parametrize(("name", "codec", "options"), ENCODERS)
@pytest.mark.parametrize(("transfer", "white"), [(PQ, float(pq_code(WHITE_NITS))), (HLG, 0.75)])
def test_reference_white_of_a_clip_is_shown_nearly_white(
    tmp_path, name, codec, options, transfer, white
):
    shown = middle(write_hdr(tmp_path / name, flat(white), transfer, codec, options)).astype(int)
    assert np.ptp(shown) <= 2
    assert 222 <= shown.mean() <= 245
    black = middle(write_hdr(tmp_path / f"0{name}", flat(0), transfer, codec, options))
    assert black.max() <= 4


def test_a_clip_that_states_a_low_peak_is_compressed_less(tmp_path):
    white = flat(float(pq_code(WHITE_NITS)))
    stated = {
        "display": "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
        "L(4000000,50)",
        "light": "max-cll=250,100",
    }
    shown = {"neither": middle(write_hdr(
        tmp_path / "neither.mp4", white, PQ, "libx265", {"x265-params": "log-level=none"}
    )).mean()}  # fmt: skip
    for name, text in stated.items():
        options = {"x265-params": f"log-level=none:{text}"}
        path = write_hdr(tmp_path / f"{name}.mp4", white, PQ, "libx265", options)
        with av.open(str(path)) as container:
            peak = peak_nits(next(container.decode(video=0)))
        assert peak == {"display": 400, "light": 250}[name]
        shown[name] = middle(path).mean()
    assert shown["neither"] < shown["display"] < shown["light"]


def test_both_statements_together_give_max_cll(tmp_path):
    options = {
        "x265-params": "log-level=none:max-cll=300,100:master-display=G(13250,34500)B(7500,3000)"
        "R(34000,16000)WP(15635,16450)L(10000000,50)"
    }
    path = write_hdr(tmp_path / "both.mp4", flat(0.5), PQ, "libx265", options)
    with av.open(str(path)) as container:
        assert peak_nits(next(container.decode(video=0))) == 300


@given(st.sampled_from([0, 1, 2, 6, 13, 14]), st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_sdr_pictures_are_what_swscale_makes_of_them(transfer, seed):
    image = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p10le")
    frame.color_trc = transfer
    plain = frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU601).to_ndarray()
    assert (RgbConverter()(frame) == plain).all()


def test_a_1080p_picture_takes_a_few_milliseconds():
    ramp = np.linspace(0, 65535, 1920).astype(np.uint16)
    frame = hdr_frame(np.repeat(np.tile(ramp, (1080, 1))[..., None], 3, axis=2), PQ)
    convert, times_s = RgbConverter(), []
    for _ in range(6):
        begun_s = time.perf_counter()
        convert(frame)
        times_s.append(time.perf_counter() - begun_s)
    print(f"PQ 1080p: {1e3 * min(times_s):.1f} ms a frame")
    # Without tables a power takes 50 ns a sample: 300 ms.
    assert min(times_s) < 0.1


def test_a_clip_from_a_server_is_shown_as_the_same_file(tmp_path):
    """Its pictures come from another process, with their colours and their peak."""
    options = {"x265-params": "log-level=none:max-cll=250,100"}
    path = write_hdr(tmp_path / "a.mp4", flat(0.55), PQ, "libx265", options)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            shown = middle(f"http://127.0.0.1:{server.server_port}/a.mp4")
        finally:
            server.shutdown()
            thread.join()
    assert (shown == middle(path)).all()
