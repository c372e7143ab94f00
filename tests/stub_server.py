"""A small server on this machine that stands for one on the network, with the faults that a test orders."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StubServer(ThreadingHTTPServer):
    """Serves in a thread of its own from `with` to its end; `release` lets requests go on that are made to wait."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: type[BaseHTTPRequestHandler]):
        super().__init__(("127.0.0.1", 0), handler)
        self.release = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that goes away is part of the tests."""

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.release.set()
        self.shutdown()
        self.server_close()


class StubHandler(BaseHTTPRequestHandler):
    """Answers without a word in the log."""

    def log_message(self, *_):
        pass

    def send(self, status: int, data: bytes, **headers: str) -> None:
        """An answer with a body, unless only its head is asked for; `Retry_After` is sent as Retry-After."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
