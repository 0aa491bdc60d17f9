"""A stand-in for ``python -m cookbook.engine``: same start-up contract, answers without a model.

Run as a script; ``--model`` chooses the behaviour: ``crash`` and ``garbage`` fail at the start,
any other name serves. Training calls are accepted and never finish.
"""

import argparse
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "tml-fake"
HOLD_S = 20.0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, reply = self.reply(self.path.rsplit("/", 1)[1], body)
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST

    def reply(self, route: str, body: bytes) -> tuple[int, dict]:
        if route == "create_session":
            return 200, {"session_id": "s"}
        if route in ("create_model", "optim_step"):
            return 200, {"request_id": route}
        if route == "get_info":
            name = self.headers["X-API-Key"]  # so that the caller sees which key it used
            return 200, {"model_id": "s:train:0", "model_data": {}, "model_name": name}
        if route == "retrieve_future" and json.loads(body)["request_id"] == "create_model":
            return 200, {"model_id": "s:train:0"}
        if route == "retrieve_future":
            time.sleep(HOLD_S)
            return 408, {}
        return 200, {}

    def log_message(self, format: str, *args: object) -> None:
        print(format % args, file=sys.stderr, flush=True)


def end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--embedded", action="store_true")
    options = parser.parse_args()
    if options.model == "crash":
        print("reading weights\nno weights to be found", file=sys.stderr)
        raise SystemExit(3)
    if options.model == "garbage":
        print("hello", flush=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if options.embedded:
        threading.Thread(target=end_with_stdin, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    print(json.dumps({"base_url": url, "api_key": KEY, "pid": os.getpid()}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
