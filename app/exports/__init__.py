"""Recordings of `--poses` as files of other programs."""
