"""Long work of a browser session that its person may stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """The person pressed Stop."""


class Running:
    """At most one piece of work a session. Safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flags: dict[str, threading.Event] = {}

    @contextmanager
    def work(
        self, session: str, show: Callable[[int, int], None] | None = None
    ) -> Iterator[Callable[[int, int], None]]:
        """A progress callback for the work of the `with` block: it passes on to `show`, or raises `Stopped`."""
        flag = threading.Event()
        with self._lock:
            self._flags[session] = flag

        def progress(done: int, total: int) -> None:
            if flag.is_set():
                raise Stopped
            if show is not None:
                show(done, total)

        try:
            yield progress
        finally:
            with self._lock:
                if self._flags.get(session) is flag:
                    del self._flags[session]

    def stop(self, session: str) -> bool:
        """Ask the session's work to end at its next step; False where none runs."""
        with self._lock:
            flag = self._flags.get(session)
        if flag is None:
            return False
        flag.set()
        return True
