"""Libraries that talk: through warnings, loggers, and the process's own streams."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Nothing that is written in the block, by Python or by what it calls, reaches the terminal."""
    level, saved = logging.root.manager.disable, [os.dup(stream) for stream in (1, 2)]
    for own in (sys.stdout, sys.stderr):
        own.flush()
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)
        try:
            yield
        finally:
            for stream, before in zip((1, 2), saved, strict=True):
                os.dup2(before, stream)
                os.close(before)
            logging.disable(level)
