"""Recorded results that a change of structure must not change; `make.py` records them anew."""
