"""The motions shipped, a folder each.

A motion is a folder: ``motion.toml`` says when its event is and what a report calls it
(`pipeline.events.motion`), ``measures.py`` what is measured (`pipeline.events.measures`), and
``estimator.npz``, if there is one, has learned corrections (`pipeline.events.estimate`). A new one
is a new folder; another package adds one by an entry point of the group ``bodystream.motions``
(`pipeline.events.find`), and ``--motion`` takes a folder's path as well.
"""
