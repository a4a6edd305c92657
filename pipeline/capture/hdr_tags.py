"""How a decoded picture states that it is HDR, and how bright it is. Imports FFmpeg only."""

from __future__ import annotations

import struct
from typing import cast

from av.buffer import Buffer
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame

PQ, HLG = 16, 18
"""Transfer characteristics in ITU-T H.273: SMPTE ST 2084 and ARIB STD-B67."""
PEAK_NITS = 1000.0
"""Peak of a picture that states none, in cd/m2. Also the peak of HLG's nominal display."""
MOST_NITS = 10000.0
"""The highest luminance that PQ can code, in cd/m2."""


def is_hdr(frame: VideoFrame) -> bool:
    """Return whether the colours of ``frame`` are coded by PQ or HLG."""
    return frame.color_trc in (PQ, HLG)


def peak_nits(frame: VideoFrame) -> float:
    """Return the peak luminance in cd/m2 that an HDR frame states.

    Its MaxCLL (CTA-861.3), else the peak of its mastering display (SMPTE ST 2086), else
    `PEAK_NITS`. A value that PQ cannot code counts as missing.
    """
    if not is_hdr(frame):
        return PEAK_NITS
    # Not `frame.side_data`: the frame would hold its container, which holds the frame, and such a
    # circle keeps megabytes until the garbage collector comes.
    container = SideDataContainer(frame)  # type: ignore[call-arg]
    light = cast(Buffer | None, container.get("CONTENT_LIGHT_LEVEL"))
    display = cast(Buffer | None, container.get("MASTERING_DISPLAY_METADATA"))
    stated = []
    if light is not None:
        # AVContentLightMetadata begins with MaxCLL.
        stated.append(float(struct.unpack_from("I", bytes(light))[0]))
    if display is not None:
        # AVMasteringDisplayMetadata: eight chromaticities and the luminance of black, each a
        # numerator and a denominator, then the peak; the last number says whether these are known.
        nits, units, _, known = struct.unpack_from("4i", bytes(display), 18 * 4)
        stated.append(nits / units if known and units else 0.0)
    return next((nits for nits in stated if 0 < nits <= MOST_NITS), PEAK_NITS)
