"""How the free body is made. Nothing here runs in the app."""
