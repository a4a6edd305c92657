"""The default limits of live sources."""

MAX_PIXELS = 36_000_000
"""The largest picture that a live source may send: 8K (8192x4320) and a little."""
MEMORY_MB = 1024
"""What a decoder process may allocate, in MB."""
