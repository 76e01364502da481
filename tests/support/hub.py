"""A server on loopback that plays the Hugging Face hub: as much of it as downloading a model asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

__all__ = ["Hub", "playing_hub"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server offers, and what it was asked for."""

    repositories: dict[str, dict[str, bytes]]
    gated: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def fetched(self) -> set[str]:
        """The files that were downloaded, without their repository."""
        return {
            request.split(f"/resolve/{COMMIT}/")[-1].split("/resolve/main/")[-1]
            for request in self.requests
            if request.startswith("GET") and "/resolve/" in request
        }


@contextmanager
def playing_hub(repositories: dict[str, dict[str, bytes]], gated: set[str] | None = None) -> Iterator[Hub]:
    """Serve while the context lasts."""
    hub = Hub(repositories, gated or set())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            owner, name, verb, *rest = [*parts[2:], "revision"] if api else parts
            files = hub.repositories.get(f"{owner}/{name}")
            if files is None:
                self.send(401, b"", {"X-Error-Code": "RepoNotFound"}, with_body)
            elif f"{owner}/{name}" in hub.gated:
                self.send(403, b"", {"X-Error-Code": "GatedRepo"}, with_body)
            elif verb == "tree":
                listing = [
                    {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for path, data in files.items()
                ]
                self.send(200, json.dumps(listing).encode(), {}, with_body)
            elif verb == "revision":
                info = {
                    "id": f"{owner}/{name}",
                    "sha": COMMIT,
                    "siblings": [{"rfilename": path} for path in files],
                }
                self.send(200, json.dumps(info).encode(), {}, with_body)
            elif verb == "resolve" and "/".join(rest[1:]) in files:
                data = files["/".join(rest[1:])]
                headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
                self.send(200, data, headers, with_body)
            else:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)

        def send(self, code: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
            self.send_response(code)
            for key, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
