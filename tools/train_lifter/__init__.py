"""Train the lifter (see pipeline/fitting/lifter.md). Nothing here runs in the app."""
