"""`python -m app serve`: a web page and an API that show every source live (extra `serve`)."""
