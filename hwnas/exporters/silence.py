"""Libraries that talk: through warnings, loggers, and the process's own streams."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from tempfile import TemporaryFile


@dataclass(slots=True)
class Said:
    """What libraries have written instead of raising it; there once the block is left."""

    text: str = ""


@contextlib.contextmanager
def silenced() -> Iterator[Said]:
    """Nothing that is written in the block, by Python or by what it calls, reaches the terminal."""
    said = Said()
    level, saved = logging.root.manager.disable, [os.dup(stream) for stream in (1, 2)]
    for own in (sys.stdout, sys.stderr):
        own.flush()
    with warnings.catch_warnings(), TemporaryFile("w+", errors="replace") as kept, contextlib.redirect_stdout(kept):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        for stream in (1, 2):
            os.dup2(kept.fileno(), stream)
        try:
            yield said
        finally:
            for stream, before in zip((1, 2), saved, strict=True):
                os.dup2(before, stream)
                os.close(before)
            logging.disable(level)
            kept.flush()
            kept.seek(0)
            said.text = kept.read()
