"""Ctrl-C and a request to terminate, whenever they come.

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
    """Note these signals for the length of a command, unless they are ignored, as in the background of a shell."""
    global _noted
    _noted = False
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, "SIGHUP"):  # of a terminal that is closed
        usual[signal.SIGHUP] = signal.SIG_DFL
    here = threading.current_thread() is threading.main_thread()
    heard = {number: handler for number, handler in usual.items() if here and signal.getsignal(number) is handler}
    for number in heard:
        signal.signal(number, _note)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def was_interrupted() -> bool:
    """Whether one has come since the command began."""
    return _noted


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt if one has come and was swallowed."""
    if _noted:
        raise KeyboardInterrupt
