"""Frames in: clips, network feeds, cameras and FFmpeg's test pictures, behind one interface."""

import os

# cv2 must be imported before av: in the other order OpenCV's windows can hang. A decoder process
# opens no window; without OpenCV it starts in half the time and memory.
if "BODYSTREAM_DECODER" not in os.environ:
    import cv2  # noqa: F401
