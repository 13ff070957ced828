"""Errors a user can act on: one line that says what happened and what to do next.

The command line prints them without a traceback (``--debug`` shows it) and exits with ``exit_code``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class HwnasError(Exception):
    """The work could not be done: bad data, a corrupted file, a diverged training."""

    exit_code = 1


def not_installed(what: str, extra: str) -> HwnasError:
    """The error for a library that an extra brings."""
    return HwnasError(f"{what} is not installed; pip install 'hwnas[{extra}]', or -e '.[{extra}]' in a clone")


def first_line(error: BaseException) -> str:
    """What another library's exception says, for use within a message of one line."""
    return _lines(error)[0]


def last_line(error: BaseException) -> str:
    """The same of one that says where it happened before it says what."""
    return _lines(error)[-1]


def _lines(error: BaseException) -> list[str]:
    return (str(error).strip() or type(error).__name__).splitlines()


def first_problem(error: ValidationError) -> str:
    """The first problem of a validation error as ``field: message``."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


class UsageError(HwnasError):
    """The command was asked for something that does not exist or cannot be: change the command."""

    exit_code = 2
