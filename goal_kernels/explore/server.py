"""The web server of `goal-kernels explore`: this machine only, reading only."""

from __future__ import annotations

import base64
import errno
import hashlib
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from goal_kernels.explore.pages import EXPLORE_STYLE, Missing, Pages

ADDRESS = "127.0.0.1"
LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
"""What a browser may call this machine. Any other name in `Host` is that of a page elsewhere which
has had its own name resolved to this address (DNS rebinding)."""
FIELDS = 10  # of a query, at most
NUMBERED = re.compile(r"/(image|caption)/(\d{1,9})")
_STYLE_HASH = base64.b64encode(hashlib.sha256(EXPLORE_STYLE.encode()).digest()).decode("ascii")
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; img-src data:; style-src "
    f"'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class LocalServer(ThreadingMixIn, TCPServer):
    """Listens on the loopback address alone; a thread a connection, one page at a time.

    Args: port: 0 for any that is free.
    Raises: ValueError when the port is taken or not to be had.

    Attributes:
        pages: what it serves; set before `serve_forever`.
    """

    daemon_threads = True
    allow_reuse_address = True
    pages: Pages

    def __init__(self, port: int) -> None:
        self.lock = Lock()
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ValueError(
                    f"--port: {port} is taken by another program; give another, or 0 for one that "
                    "is free"
                ) from error
            raise ValueError(f"--port: {port} cannot be had: {error.strerror}") from error

    @property
    def address(self) -> str:
        """Of the first page."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def answer(self, path: str) -> tuple[int, str]:
        """Status and page. Paths name pages, never files."""
        parts = urlsplit(path)
        try:
            query = parse_qs(parts.query, max_num_fields=FIELDS)
            with self.lock:  # the model and what decodes pictures are not made for threads
                return 200, self._page(parts.path, query)()
        except Missing as error:
            return 404, self.pages.error(str(error))
        except (OSError, ValueError) as error:  # a picture that is gone or damaged by now
            return 500, self.pages.error(str(error))

    def _page(self, path: str, query: dict[str, list[str]]) -> Callable[[], str]:
        """What renders the page of a path. Raises: Missing."""
        if path == "/":
            [seed] = query.get("seed", ["0"])[:1]
            return lambda: self.pages.home(int(seed) if re.fullmatch(r"\d{1,9}", seed) else 0)
        if path == "/search":
            return lambda: self.pages.search(query.get("caption", [""])[0])
        if (numbered := NUMBERED.fullmatch(path)) is not None:
            page: Callable[[int], str] = getattr(self.pages, numbered[1])
            return lambda: page(int(numbered[2]))
        raise Missing("There is no such page.")


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of pages on this machine."""

    server: LocalServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may be silent

    def do_GET(self) -> None:
        refusal = self._refusal()
        status, page = self.server.answer(self.path) if refusal is None else (403, refusal)
        body = page.encode()
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def _refusal(self) -> str | None:
        """Why a request is not answered, None when it comes from this machine and these pages."""
        host = self.headers.get("Host", "")
        if re.sub(r":\d*$", "", host.lower()) not in LOCAL_NAMES:
            return f"This page answers to {' and '.join(LOCAL_NAMES)} alone.\n"
        origin = self.headers.get("Origin")
        elsewhere = self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        embedded = self.headers.get("Sec-Fetch-Mode") != "navigate"
        if (origin is not None and origin != f"http://{host}") or (elsewhere and embedded):
            return "This page is not for other sites.\n"
        return None

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: requests are of one person."""
