"""A small Hugging Face hub on this machine, which makes the faults that a test orders."""

from __future__ import annotations

import hashlib
import json
import re
from urllib.parse import unquote, urlsplit

from tests.stub_server import StubHandler, StubServer

COMMIT = "c0ffee" + 34 * "0"


class HubServer(StubServer):
    """Serves the files of one model, as the hub does: large ones by way of another address; use it with `with`.

    Attributes:
        repo_id: the model's name.
        files: content by name.
        faults: pairs of a part of an address and the name of a method of `_Handler` (without `fault_`); each is used
            by the first request whose address holds that part.
        requests: method and path of all requests that came.
        keys: path and Authorization header of those that had one.
        gone: whether every connection is closed at once.
    """

    def __init__(self, repo_id: str, files: dict[str, bytes]):
        super().__init__(_Handler)
        self.repo_id, self.files = repo_id, files
        self.faults: list[tuple[str, str]] = []
        self.requests: list[tuple[str, str]] = []
        self.keys: list[tuple[str, str]] = []
        self.gone = False

    def fetched(self, path: str) -> int:
        """How many requests there were for the content of files whose address holds `path`."""
        return sum(method == "GET" and path in at for method, at in self.requests)


def is_large(name: str) -> bool:
    """Which files are kept apart from the others there."""
    return name.endswith(".safetensors")


def checksum(name: str, content: bytes) -> str:
    """The file's ETag: SHA-256 of a large one, git's SHA-1 of another."""
    if is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Handler(StubHandler):
    server: HubServer
    protocol_version = "HTTP/1.0"

    def do_HEAD(self):
        self.serve()

    def do_GET(self):
        self.serve()

    def serve(self) -> None:
        if self.server.gone:
            return
        path = unquote(urlsplit(self.path).path)
        with self.server.lock:
            self.server.requests.append((self.command, path))
            if self.headers["Authorization"]:
                self.server.keys.append((path, self.headers["Authorization"]))
            fault = next((f for f in self.server.faults if f[0] in path and self.command == "GET"), None)
            if fault:
                self.server.faults.remove(fault)
        if fault and hasattr(self, f"fault_{fault[1]}"):
            getattr(self, f"fault_{fault[1]}")()
        else:
            self.route(path, fault[1] if fault else None)

    def route(self, path: str, fault: str | None) -> None:
        repo = re.escape(self.server.repo_id)
        if re.fullmatch(f"/api/models/{repo}(/revision/[^/]+)?", path):
            self.send_json(self.model_info())
        elif re.fullmatch(f"/api/models/{repo}/tree/[^/]+", path):
            self.send_json([entry(name, content) for name, content in self.server.files.items()])
        elif (found := re.fullmatch(f"/{repo}/resolve/[^/]+/(.+)", path)) and found[1] in self.server.files:
            self.resolve(found[1], fault)
        elif path.startswith("/elsewhere/"):
            name = path.removeprefix("/elsewhere/")
            self.send_file(self.server.files[name], fault)
        else:
            self.fault_no_such_model()

    def model_info(self) -> dict:
        siblings = []
        for name, content in self.server.files.items():
            file = {"rfilename": name, "size": len(content), "blobId": checksum("", content)}
            if is_large(name):
                file["lfs"] = {"sha256": checksum(name, content), "size": len(content), "pointerSize": 134}
            siblings.append(file)
        return {"id": self.server.repo_id, "modelId": self.server.repo_id, "sha": COMMIT, "siblings": siblings}

    def resolve(self, name: str, fault: str | None) -> None:
        """What is small comes from here, what is large from elsewhere."""
        content = self.server.files[name]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{checksum(name, content)}"'}
        if not is_large(name):
            self.send_file(content, fault, **headers)
            return
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{checksum(name, content)}"'}
        self.send(
            302, b"", Location=f"http://localhost:{self.server.server_port}/elsewhere/{name}", **headers, **linked
        )

    def send_file(self, content: bytes, fault: str | None, **headers: str) -> None:
        """All of it, or from where the client wants it; with a fault half of the rest, or other bytes."""
        if fault == "garbled":
            content = content[:-1] + bytes([content[-1] ^ 1])
        found = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        start = int(found[1]) if found else 0
        rest = content[start:]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        sent = rest[: len(rest) // 2] if fault == "cut" else rest
        self.send(206 if start else 200, sent, **headers | {"Content-Length": str(len(rest))})

    def send_json(self, content: object) -> None:
        self.send(200, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    # --- faults -----------------------------------------------------------------------------------------------

    def fault_no_such_model(self):
        self.send(404, b"", **{"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

    def fault_no_key(self):
        self.send(401, b"", **{"X-Error-Message": "Invalid username or password."})

    def fault_gated(self):
        self.send(403, b"", **{"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})

    def fault_broken(self):
        self.send(500, b"oh no")

    def fault_busy(self):
        self.send(503, b"later")

    def fault_login_page(self):
        """What a network that wants a login first puts in place of everything."""
        self.send(200, b"<html>Please log in</html>", **{"Content-Type": "text/html"})


def entry(name: str, content: bytes) -> dict:
    """A file in the listing of a folder."""
    file = {"type": "file", "path": name, "size": len(content), "oid": checksum("", content)}
    if is_large(name):
        file["lfs"] = {"oid": checksum(name, content), "size": len(content), "pointerSize": 134}
    return file
