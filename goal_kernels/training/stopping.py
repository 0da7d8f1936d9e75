"""Ctrl-C and SIGTERM: finish the step, save, stop; a second one stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """A signal ended the training.

    Attributes:
        signal: which one.
        saved: whether a resume point was saved for it.
    """

    def __init__(self, received: signal.Signals, saved: bool) -> None:
        super().__init__(f"stopped by {received.name}")
        self.signal = received
        self.saved = saved

    @property
    def exit_status(self) -> int:
        """What shells expect after a signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signal


class StopRequest:
    """Remembers the first stopping signal until someone asks; the second raises `Stopped`.

    Args:
        at_once: already the first raises.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Take over the handlers; only the main thread can, elsewhere nothing happens."""
        if threading.current_thread() is threading.main_thread() and not self._before:
            self._before = {number: signal.signal(number, self._receive) for number in STOPPING}

    def ignore(self) -> None:
        """Give the handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.at_once or self.received is not None:
            raise Stopped(signal.Signals(number), saved=False)
        self.received = signal.Signals(number)
        print(
            f"\n{self.received.name}: finishing what is under way, then saving; "
            "once more stops at once",
            flush=True,
        )


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """A stopping signal inside the block raises `Stopped`; there is nothing to finish or save."""
    request = StopRequest(at_once=True)
    request.listen()
    try:
        yield
    finally:
        request.ignore()
