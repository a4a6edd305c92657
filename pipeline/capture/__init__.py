"""Frames in: clips, network feeds, cameras and FFmpeg's test pictures, behind one interface."""

# cv2 must be imported before av: in the other order OpenCV's windows can hang.
import cv2  # noqa: F401
