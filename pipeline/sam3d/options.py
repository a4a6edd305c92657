"""What a user chooses about SAM 3D Body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Reuse = Literal["off", "prompts", "landmarks"]
REUSE = get_args(Reuse)


@dataclass(frozen=True)
class Sam3dOptions:
    """How SAM 3D Body is used.

    Attributes:
        hands: Whether hands are read from crops of their own, at three times the cost.
        reuse: What the frames between key frames get: "off", SAM 3D Body itself; "prompts", its
            decoder on the key frame's features; "landmarks", BlazePose's landmarks.
        every: With "landmarks", the key frame of one in this many windows is measured.

    Raises:
        ValueError: A value is none of these.
    """

    hands: bool = False
    reuse: Reuse = "off"
    every: int = 1

    def __post_init__(self) -> None:
        if self.reuse not in REUSE:
            raise ValueError(f"sam3d reuse is one of {', '.join(REUSE)}, not {self.reuse!r}")
        if self.every < 1:
            raise ValueError(f"sam3d every is 1 or more, not {self.every}")
        if self.hands and self.reuse != "off":
            raise ValueError('sam3d hands need the reuse "off"')
