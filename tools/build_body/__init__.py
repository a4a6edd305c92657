"""Build the free body. Nothing here runs in the app."""
