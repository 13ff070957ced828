"""Ctrl-C, whenever it comes.

Modules written in C swallow the exception while they are imported, turn it into an error of their own, or abort. So it
is noted, raised at once only where nothing is being imported, and raised again where the command next tells of its
progress.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_noted = False


def _note(number: int, frame: FrameType | None) -> None:
    global _noted
    _noted = True
    caller: FrameType | None = frame
    while caller is not None:
        if caller.f_code.co_filename.startswith("<frozen importlib"):
            return
        caller = caller.f_back
    raise KeyboardInterrupt


@contextmanager
def noted_interrupts() -> Iterator[None]:
    """Note Ctrl-C for the length of a command, unless it is ignored, as in the background of a shell."""
    global _noted
    _noted = False
    before = signal.getsignal(signal.SIGINT)
    listens = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if listens:
        signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        if listens:
            signal.signal(signal.SIGINT, before)


def was_interrupted() -> bool:
    """Whether Ctrl-C has come since the command began."""
    return _noted


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt if Ctrl-C has come and was swallowed."""
    if _noted:
        raise KeyboardInterrupt
