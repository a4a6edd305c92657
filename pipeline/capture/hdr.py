"""Tone-map HDR pictures (ITU-R BT.2100, PQ and HLG) to SDR with BT.709 colours, as players do.

The curve is the EETF of ITU-R BT.2390-11 (5.4.1): what is darker than its knee stays as it is, and
what is brighter is compressed up to the picture's peak. SDR white stands for 203 cd/m2, the
reference white of HDR (ITU-R BT.2408). Light is converted to BT.709 primaries by the matrix of
ITU-R BT.2407, clipped, and coded for an SDR display (ITU-R BT.1886).
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from pipeline.capture.hdr_tags import MOST_NITS, PEAK_NITS, PQ

WHITE_NITS = 203.0
"""Luminance of SDR white, in cd/m2."""
_CODES = np.arange(65536) / 65535
"""The values of 16-bit samples, from 0 to 1."""
_BT709, _P3_D65 = 1, 12
_P3_TO_709 = ((1.224940, -0.224940, 0), (-0.042057, 1.042057, 0), (-0.019638, -0.078636, 1.098274))
_BT2020_TO_709 = (
    (1.660491, -0.587641, -0.072850),
    (-0.124550, 1.132900, -0.008350),
    (-0.018151, -0.100579, 1.118730),
)
_BT2020_LUMINANCE = np.array([[0.2627, 0.6780, 0.0593]], np.float32)
_GAIN_ONE = 16384
"""A gain of 1 as a 16-bit sample; HLG's gains stay below 4."""


def to_sdr(codes: np.ndarray, transfer: int, primaries: int, peak: float = PEAK_NITS) -> np.ndarray:
    """Return the SDR picture (H, W, 3) uint8 of an HDR picture.

    Args:
        codes: (H, W, 3) uint16, coded RGB over the full range.
        transfer: `hdr_tags.PQ` or `hdr_tags.HLG`.
        primaries: The primaries in ITU-T H.273. Others than BT.709 and P3 count as BT.2020.
        peak: The picture's peak in cd/m2. HLG has none of its own and is shown as on its nominal
            display.
    """
    if transfer == PQ:
        light = cv2.LUT(codes, _light_of_pq(peak))
    else:
        scene = cv2.LUT(codes, _light_of_hlg())
        # HLG's display gamma depends on a pixel's luminance, so its colours are scaled together.
        gain = cv2.LUT(cv2.transform(scene, _BT2020_LUMINANCE), _gain_of_hlg())
        light = cv2.multiply(scene, cv2.merge([gain] * 3), scale=1 / _GAIN_ONE)
    if primaries != _BT709:
        light = cv2.transform(light, _to_709(primaries))
    return cv2.LUT(light, _sdr_codes())


def tone_curve(nits: np.ndarray, peak: float) -> np.ndarray:
    """Return the luminance (N,) in cd/m2 at which an SDR display shows a luminance.

    Args:
        nits: (N,) luminances in cd/m2.
        peak: The luminance that becomes SDR white. Up to `WHITE_NITS` nothing is compressed.
    """
    if peak <= WHITE_NITS:
        return np.minimum(nits, WHITE_NITS)
    top = float(pq_code(peak))
    signal = np.minimum(pq_code(nits) / top, 1.0)
    # BT.2390's names: maxLum and KS. Black is 0 on both sides, so its last step changes nothing.
    white = float(pq_code(WHITE_NITS)) / top
    knee = 1.5 * white - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * white
    )
    return np.where(signal < knee, nits, pq_nits(spline * top))


_M1, _M2 = 2610 / 16384, 2523 / 32
_C1, _C2, _C3 = 3424 / 4096, 2413 / 128, 2392 / 128


def pq_nits(code: np.ndarray | float) -> np.ndarray:
    """Return the luminance in cd/m2 of a PQ code in [0, 1] (BT.2100, table 4)."""
    power = np.power(code, 1 / _M2)
    return MOST_NITS * np.power(np.maximum(power - _C1, 0) / (_C2 - _C3 * power), 1 / _M1)


def pq_code(nits: np.ndarray | float) -> np.ndarray:
    """Return the PQ code in [0, 1] of a luminance in cd/m2 (BT.2100, table 4)."""
    power = np.power(np.asarray(nits) / MOST_NITS, _M1)
    return np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)


def hlg_light(code: np.ndarray) -> np.ndarray:
    """Return the light of the scene, in [0, 1], of an HLG code in [0, 1] (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)


@lru_cache(maxsize=4)
def _light_of_pq(peak: float) -> np.ndarray:
    """Table (65536,) from PQ codes to the display's light; 65535 is SDR white."""
    return _samples(tone_curve(pq_nits(_CODES), peak) / WHITE_NITS)


@lru_cache(maxsize=1)
def _light_of_hlg() -> np.ndarray:
    """Table (65536,) from HLG codes to the light of the scene."""
    return _samples(hlg_light(_CODES))


@lru_cache(maxsize=1)
def _gain_of_hlg() -> np.ndarray:
    """Table (65536,) from the scene's luminance to the gain that makes it the display's light."""
    # The opto-optical transfer of a display of 1000 cd/m2: gamma 1.2 (BT.2100, table 5, note 5e).
    shown = tone_curve(PEAK_NITS * _CODES**1.2, PEAK_NITS) / WHITE_NITS
    return _samples(shown / np.maximum(_CODES, _CODES[1]) * (_GAIN_ONE / 65535))


@lru_cache(maxsize=1)
def _sdr_codes() -> np.ndarray:
    """Table (65536,) from the display's light to 8-bit codes (BT.1886: gamma 2.4)."""
    return np.rint(255 * _CODES ** (1 / 2.4)).astype(np.uint8)


@lru_cache(maxsize=4)
def _to_709(primaries: int) -> np.ndarray:
    """The (3, 3) matrix from light in ``primaries`` to BT.709's."""
    matrix = np.array(_P3_TO_709 if primaries == _P3_D65 else _BT2020_TO_709, np.float32)
    # Rows of exactly 1, so that grey stays grey.
    return matrix / matrix.sum(1, keepdims=True)


def _samples(values: np.ndarray) -> np.ndarray:
    return np.rint(65535 * values).astype(np.uint16)
