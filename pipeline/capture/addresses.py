"""Which spellings of a source are addresses, and which FFmpeg's test pictures."""

TEST_PREFIX = "lavfi:"
NETWORK = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")
"""Schemes of addresses that are read as live feeds."""
