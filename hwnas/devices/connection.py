"""Ways to start a command on a device and to talk with it."""

from __future__ import annotations

import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from hwnas.errors import HwnasError

SILENCE_SECONDS = 30.0
"""After which a command that says nothing is given up; the runner says something every two seconds."""

LONGEST_LINE = 1 << 26
"""Bytes of a line that are borne: a layer takes a hundred, a turn twenty."""

CHUNK = 1 << 18
"""Bytes that are sent at once: each such part may take as long as silence is borne."""


class Channel(ABC):
    """A command that runs on a device, for as long as somebody listens."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Write to its standard input, which stays open.

        Raises:
            HwnasError: if it, or the connection, has ended.
        """

    @abstractmethod
    def lines(self) -> Iterator[bytes]:
        """What it prints, line by line, until it ends.

        Raises:
            HwnasError: if nothing comes for too long, or the connection breaks.
        """

    @abstractmethod
    def complaint(self) -> str:
        """The last line that it wrote on standard error; empty if there is none. Called when it has ended."""


class Connection(ABC):
    """A way to a device. Opened late, by the first command, and closed by `close`."""

    where: str
    """The device, for messages: ``me@board``."""

    attempts: int = 3
    """Of connecting to a device that cannot be reached; one that refuses is not asked again."""

    @abstractmethod
    def start(self, command: Sequence[str]) -> AbstractContextManager[Channel]:
        """A command; leaving the block ends it.

        Raises:
            HwnasError: if the device cannot be reached or refuses.
        """

    @abstractmethod
    def close(self) -> None:
        """End the connection."""


class _LocalChannel(Channel):
    def __init__(self, process: subprocess.Popen[bytes], errors: tempfile._TemporaryFileWrapper[bytes]) -> None:
        self._process, self._errors, self._given_up = process, errors, False

    def send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        for start in range(0, len(data), CHUNK):
            with self._alarm():
                try:
                    self._process.stdin.write(data[start : start + CHUNK])
                    self._process.stdin.flush()
                except OSError as error:
                    if self._given_up:
                        continue
                    complaint = self.complaint() or "it says nothing; check the target's python"
                    raise HwnasError(f"the measuring process ended before its work was sent: {complaint}") from error

    def lines(self) -> Iterator[bytes]:
        assert self._process.stdout is not None
        while True:
            with self._alarm():
                line = self._process.stdout.readline(LONGEST_LINE)
            if not line:
                return
            require_short(line, "the measuring process")
            yield line

    @contextmanager
    def _alarm(self) -> Iterator[None]:
        """Give the process up if the block takes too long; pipes have no limit of their own that all systems know."""
        alarm = threading.Timer(SILENCE_SECONDS, self._give_up)
        alarm.daemon = True
        alarm.start()
        try:
            yield
        finally:
            alarm.cancel()
        if self._given_up:
            raise HwnasError(f"the measuring process has said nothing for {SILENCE_SECONDS:.0f} s; it hangs")

    def _give_up(self) -> None:
        self._given_up = True
        self._process.kill()

    def complaint(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        return last_line(self._errors.read())


class LocalConnection(Connection):
    """This machine: a process of its own, so that nothing that hwnas has loaded or set is in the way."""

    where = "this machine"

    @contextmanager
    def start(self, command: Sequence[str]) -> Iterator[Channel]:
        program, *arguments = command
        if program.startswith("~/"):
            program = str(Path.home() / program.removeprefix("~/"))
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    [program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
                )
            except OSError as error:
                raise HwnasError(f"cannot start {command[0]}: {error.strerror}; check the target's python") from error
            with process:
                try:
                    yield _LocalChannel(process, errors)  # type: ignore[arg-type]
                finally:
                    # It ends when its input does, and removes what it has written.
                    assert process.stdin is not None
                    process.stdin.close()
                    try:
                        process.wait(timeout=10)
                    except subprocess.TimeoutExpired:
                        process.kill()

    def close(self) -> None:
        pass


def require_short(line: bytes, where: str) -> None:
    """Refuse what never ends.

    Raises:
        HwnasError: if it is as long as no line is.
    """
    if len(line) >= LONGEST_LINE:
        raise HwnasError(f"{where} says more in one line than a measurement has; check the target's python")


def last_line(said: bytes) -> str:
    """The last line with something on it."""
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
