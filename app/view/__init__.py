"""The 3D view: its page's files, and the bodies and recordings that it reads.

`app.serve` shows it; `notebook` puts it into a notebook, without a server.
"""
