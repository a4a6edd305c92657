"""The spellings of a source that mean an address or FFmpeg's test pictures."""

TEST_PREFIX = "lavfi:"
NETWORK = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
"""Schemes of addresses that are read as live feeds."""
