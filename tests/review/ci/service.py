"""A small server that stands for GitHub's and GitLab's comments."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Service(ThreadingHTTPServer):
    """What it was asked, and the comments that it holds."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.comments: list[dict[str, Any]] = []
        self.head = "a" * 40
        self.redirect_to: str | None = None
        self.user: dict[str, Any] = {"id": 7, "login": "github-actions[bot]"}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, *_arguments: Any) -> None:
        pass

    def answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle_one(self) -> None:
        url = urlsplit(self.path)
        self.server.asked.append((self.command, url.path))
        self.server.tokens.add(self.headers.get("Authorization") or self.headers.get("PRIVATE-TOKEN") or "")
        if self.server.redirect_to is not None:
            self.send_response(302)
            self.send_header("Location", self.server.redirect_to)
            self.end_headers()
            return
        content = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        if self.command in ("PATCH", "PUT"):
            number = int(url.path.rpartition("/")[2])
            (comment,) = [one for one in self.server.comments if one["id"] == number]
            comment["body"] = content["body"]
            self.answer(comment)
        elif self.command == "POST":
            comment = {"id": 1 + max((one["id"] for one in self.server.comments), default=0), **content}
            comment |= {"user": self.server.user, "author": self.server.user}
            self.server.comments.append(comment)
            self.answer(comment, 201)
        elif url.path.endswith(("/comments", "/notes")):
            page = int(parse_qs(url.query)["page"][0])
            self.answer(self.server.comments[(page - 1) * 100 : page * 100])
        elif url.path == "/user":
            self.answer(self.server.user)
        elif "/pulls/" in url.path:
            self.answer({"head": {"sha": self.server.head}})
        else:
            self.answer({"message": "Not Found"}, 404)

    do_GET = do_POST = do_PATCH = do_PUT = handle_one  # noqa: N815 - names of the base class


@contextmanager
def service() -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
