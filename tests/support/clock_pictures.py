"""Pictures that show the time at which they were made, and their number; in plain Python, for the
system's interpreter too."""

import os
import pathlib
import time

BITS, ROWS = 32, 32
"""The bits of a drawn number, and the pixel rows that it fills."""


class Pictures:
    """Makes I420 pictures of a size with the clock (ms) at the top; grey ones also have their
    number, from 0, below it."""

    def __init__(self, width, height, file):
        self.width, self.height = width, height
        self.size = width * height * 3 // 2
        self.data = pathlib.Path(file).read_bytes() if file else b""
        self.number = 0

    def next(self):
        now_ms = time.monotonic_ns() // 1_000_000
        picture = bytearray(self._below())
        luma, quarter = self.width * self.height, self.width * self.height // 4
        picture[: self.width * ROWS] = self._bars(now_ms)
        if not self.data:
            picture[self.width * ROWS : self.width * 2 * ROWS] = self._bars(self.number)
        grey = b"\x80" * (self.width * ROWS // 4)
        picture[luma : luma + len(grey)] = grey
        picture[luma + quarter : luma + quarter + len(grey)] = grey
        self.number += 1
        return bytes(picture)

    def _bars(self, number):
        bar = self.width // BITS
        bits = [(number >> bit) & 1 for bit in reversed(range(BITS))]
        row = b"".join((b"\xeb" if bit else b"\x10") * bar for bit in bits)
        return row.ljust(self.width, b"\x10") * ROWS

    def _below(self):
        if self.data:
            first = self.number % (len(self.data) // self.size) * self.size
            return self.data[first : first + self.size]
        luma = self.width * self.height
        noise = os.urandom(self.width * self.height // 8)
        return b"\x60" * (luma - len(noise)) + noise + b"\x80" * (luma // 2)
