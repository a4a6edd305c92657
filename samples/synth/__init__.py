"""Rendered clips of MakeHuman people with exact truth: person, motion, scene."""
