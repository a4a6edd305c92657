"""Profiles for `--config NAME`: what a run is made of, in TOML."""
