"""Frames in: clips, network feeds, cameras and FFmpeg's test pictures, behind one interface."""

# Before any av: with av first, OpenCV's windows can hang.
import cv2  # noqa: F401
