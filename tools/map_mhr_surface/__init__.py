"""Finds which points of an MHR body's skin are the free body's vertices."""
