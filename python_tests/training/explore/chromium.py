"""A headless Chromium that tests talk to over pipes, by its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"),
    *("--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update"),
)


class Browser:
    """One page. Messages are JSON, each ended by a zero byte."""

    def __init__(self, send: int, receive: int) -> None:
        self.send, self.receive = send, os.fdopen(receive, "rb")
        self.last, self.session = 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.send, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.last:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def loaded(self) -> None:
        """Wait until the page that is being opened is there."""
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.loaded()

    def picture(self, path: Path, width: int = 1100, dark: bool = False, most: int = 6000) -> None:
        """Write the whole page as PNG, as wide as a phone or a desktop, in light or dark."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        tall = min(most, self.call("Page.getLayoutMetrics")["cssContentSize"]["height"])
        size["height"] = int(tall)
        self.call("Emulation.setDeviceMetricsOverride", **size)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _next(self) -> dict[str, Any]:
        message = b""
        while not message.endswith(b"\0"):
            byte = self.receive.read(1)
            assert byte, "the browser has gone"
            message += byte
        return json.loads(message[:-1])


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser that ends with the context."""
    assert PROGRAM is not None
    it_reads, we_write = os.pipe()
    we_read, it_writes = os.pipe()

    # The browser reads from 3 and writes to 4.
    start = f'exec "$0" "$@" 3<&{it_reads} 4>&{it_writes}'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            ["bash", "-c", start, PROGRAM, *OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=(it_reads, it_writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(it_reads)
        os.close(it_writes)
        browser = Browser(we_write, we_read)
        try:
            yield browser
        finally:
            process.kill()
            process.wait()
            os.close(we_write)
            browser.receive.close()
