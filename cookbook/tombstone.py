"""What answers for a dead engine: an HTTP server that says, to every call, that it died and why.

Without it the SDK would retry refused connections for minutes, silently.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BIND_TIMEOUT_S = 10.0


def raise_tombstone(port: int, api_key: str, text: str) -> None:
    """Answer on 127.0.0.1:``port``, in the background, for as long as this process lives.

    Pending futures fail with ``text`` as a server error, new calls with status 400 and ``text``;
    only callers with ``api_key`` get to see it. Gives up quietly if somebody else has the port: the
    SDK then says by itself, later, that it cannot connect.
    """
    handler = type("Handler", (_TombstoneHandler,), {"api_key": api_key, "text": text})
    deadline = time.monotonic() + BIND_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError:
            time.sleep(0.05)
            continue
        threading.Thread(target=server.serve_forever, name="tombstone", daemon=True).start()
        return


class _TombstoneHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api_key = ""
    text = ""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, body = self._answer()
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_DELETE = do_PUT = do_PATCH = do_POST

    def _answer(self) -> tuple[int, dict[str, Any]]:
        if self.headers.get("X-API-Key") != self.api_key:
            return 401, {"detail": "The key does not fit this engine."}
        route = self.path.partition("?")[0].rpartition("/")[2]
        if route == "retrieve_future":
            return 200, {"error": self.text, "category": "server"}
        if route == "telemetry":  # a refused batch would be logged with a traceback
            return 200, {"status": "accepted"}
        if route == "session_heartbeat":  # 410 ends the SDK's heartbeats
            return 410, {"detail": self.text}
        return 400, {"detail": self.text}

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: standard error belongs to the notebook."""
