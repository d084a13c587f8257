"""Ctrl-C: once to stop at the next check, twice to stop at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from easyanimate_core.events import CancelToken

__all__ = ["cancel_on_interrupt"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def cancel_on_interrupt(cancel: CancelToken, say: Callable[[], None]) -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM ask the run to stop; a second one raises `KeyboardInterrupt`.

    Outside the main thread, where Python has no signal handlers, nothing changes.

    Args:
        cancel: what the run checks.
        say: called once, to tell the user that the first one was understood.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if cancel.cancelled:
            raise KeyboardInterrupt
        cancel.cancel()
        say()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
