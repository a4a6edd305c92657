"""A webhook's receiver."""

from __future__ import annotations

import http.server
import json
import threading


class Receiver:
    """A webhook's receiver that answers as told and keeps what came."""

    def __init__(self, port: int = 0) -> None:
        self.came: list[tuple[str, dict]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(handler):  # noqa: N802, N805
                body = handler.rfile.read(int(handler.headers["content-length"]))
                self.came.append((handler.headers["idempotency-key"], json.loads(body)))
                handler.send_response(200)
                handler.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.HTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
