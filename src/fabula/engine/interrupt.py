"""Ctrl-C between two steps, never inside one: state that a step changes is always whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class DeferredInterrupt:
    """While active, the first Ctrl-C only sets `pending`, and KeyboardInterrupt is raised on leaving; a second at once.

    Does nothing outside the main thread, or where a program has put a handler of its own.
    """

    def __init__(self) -> None:
        self.pending = False
        self._active = False

    def __enter__(self) -> DeferredInterrupt:
        ours = threading.current_thread() is threading.main_thread()
        if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._active = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._active:
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self.pending and kind is None:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            raise KeyboardInterrupt
        self.pending = True
