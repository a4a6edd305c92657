"""Checks of networks whose files only the user has."""
