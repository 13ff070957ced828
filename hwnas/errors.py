"""Errors a user can act on: one line that says what happened and what to do next.

The command line prints them without a traceback (``--debug`` shows it) and exits with ``exit_code``.
"""

from __future__ import annotations


class HwnasError(Exception):
    """The work could not be done: bad data, a corrupted file, a diverged training."""

    exit_code = 1


class UsageError(HwnasError):
    """The command was asked for something that does not exist or cannot be: change the command."""

    exit_code = 2
