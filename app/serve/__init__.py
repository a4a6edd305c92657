"""`bodystream serve`: every source live on a page, with an API under it (extra `serve`)."""
