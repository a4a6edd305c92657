"""Where the repository's own files are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
SAMPLE = SAMPLES / "pitch.mp4"
TRUTH = SAMPLES / "pitch_truth.npz"
SUPPORT = Path(__file__).parent
