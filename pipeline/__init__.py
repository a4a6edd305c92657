"""Frames in, bodies out; knows nothing of screens, files or commands."""
