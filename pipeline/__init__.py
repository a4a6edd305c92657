"""Frames in, bodies out; knows no screen."""

# Before any import of av: the other way round cv2.imshow can hang.
import cv2  # noqa: F401
