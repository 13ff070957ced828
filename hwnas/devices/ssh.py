"""Devices that are reached by ssh, with the keys, hosts and settings of the user's own ~/.ssh."""

from __future__ import annotations

import asyncio
import re
import shlex
import threading
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from hwnas.devices.connection import CHUNK, SILENCE_SECONDS, Channel, Connection, last_line, require_short
from hwnas.errors import HwnasError, UsageError

if TYPE_CHECKING:
    import asyncssh

T = TypeVar("T")

CONNECT_SECONDS = 10.0


class SshConnection(Connection):
    """``user@host:port``; what is left out is what ~/.ssh/config says.

    The host's key has to be in known_hosts, and the user's has to be let in without a password.

    Args:
        host: what the user wrote.

    Raises:
        UsageError: if it is no such thing.
    """

    def __init__(self, host: str) -> None:
        match = re.fullmatch(
            r"(?:(?P<user>[\w.-]+)@)?(?P<host>[\w.-]+|\[[0-9a-fA-F:.%]+\])(?::(?P<port>\d{1,5}))?", host
        )
        if match is None or match["host"].startswith("-") or not 0 < int(match["port"] or 22) < 65536:
            raise UsageError(f"{host!r} is no host; write user@address, or user@address:port")
        self.where = host
        self._address = match["host"].strip("[]")
        self._options: dict[str, Any] = {}
        if match["user"]:
            self._options["username"] = match["user"]
        if match["port"]:
            self._options["port"] = int(match["port"])
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: asyncssh.SSHClientConnection | None = None

    @contextmanager
    def start(self, command: Sequence[str]) -> Iterator[Channel]:
        import asyncssh

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
        process = None
        while process is None:
            is_new = self._connection is None
            if self._connection is None:
                self._connection = self._wait(self._connect())
            try:
                starting = self._connection.create_process(_quoted(command), encoding=None)
                process = self._wait(starting, SILENCE_SECONDS)
            except (asyncssh.Error, OSError, TimeoutError) as error:
                self.give_up()
                # An older one may have broken while nothing was asked of it.
                if is_new:
                    raise HwnasError(f"{self.where} starts no command: {_reason(error)}") from error
        try:
            yield _SshChannel(self, process)
        finally:
            # The runner ends when its input does.
            self._loop.call_soon_threadsafe(process.close)

    async def _connect(self) -> asyncssh.SSHClientConnection:
        import asyncssh

        for attempt in range(1, self.attempts + 1):
            try:
                return await asyncssh.connect(
                    self._address,
                    connect_timeout=CONNECT_SECONDS,
                    login_timeout=CONNECT_SECONDS,
                    keepalive_interval=5,
                    keepalive_count_max=3,
                    **self._options,
                )
            except asyncssh.HostKeyNotVerifiable as error:
                raise HwnasError(
                    f"the key of {self.where} is not in known_hosts, or another one is: {_reason(error)}; connect once "
                    "by `ssh`, and compare the fingerprint that it shows; if the host was set up anew, `ssh-keygen -R` "
                    "forgets the old one"
                ) from error
            except asyncssh.PermissionDenied as error:
                raise HwnasError(
                    f"{self.where} does not let you in: {_reason(error)}; give it your key by `ssh-copy-id`, and "
                    "enter the key's passphrase by `ssh-add`"
                ) from error
            except FileNotFoundError as error:  # of a name in ~/.ssh/config
                raise HwnasError(
                    f"{self.where} cannot be reached: there is no file {error.filename}, which ~/.ssh/config names; "
                    "connect once by `ssh`, which makes known_hosts, or check the name"
                ) from error
            except ValueError as error:  # of a name that is none, or settings that cannot be read
                raise HwnasError(f"{self.where} cannot be reached: {_reason(error)}; check ~/.ssh/config") from error
            except (asyncssh.Error, OSError, TimeoutError) as error:
                if attempt == self.attempts:
                    raise HwnasError(
                        f"{self.where} cannot be reached: {_reason(error)} ({attempt} "
                        f"attempt{'s' * (attempt > 1)}); check the address, and that sshd runs there"
                    ) from error
                await asyncio.sleep(attempt)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, work: Awaitable[T], seconds: float | None = None) -> T:
        async def done() -> T:
            return await work

        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(done(), self._loop)
        try:
            return future.result(seconds)
        except BaseException:
            future.cancel()
            raise

    def give_up(self) -> None:
        """Let a connection go that does not work any more; the next command makes another."""
        connection, self._connection = self._connection, None
        if connection is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(connection.abort)

    def close(self) -> None:
        if self._loop is None or self._thread is None:
            return
        if self._connection is not None:
            self._loop.call_soon_threadsafe(self._connection.close)
            with suppress(TimeoutError):
                self._wait(self._connection.wait_closed(), 5)
            self.give_up()
        with suppress(TimeoutError):
            self._wait(_end_all(), 5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None


class _SshChannel(Channel):
    def __init__(self, connection: SshConnection, process: asyncssh.SSHClientProcess[bytes]) -> None:
        self._connection, self._process = connection, process
        assert connection._loop is not None
        # Read all the time: what nobody reads stops all that the command says.
        self._errors = asyncio.run_coroutine_threadsafe(_last_of(process.stderr), connection._loop)

    def _broken(self, error: BaseException) -> HwnasError:
        self._connection.give_up()
        return HwnasError(f"the connection to {self._connection.where} broke: {_reason(error)}")

    def send(self, data: bytes) -> None:
        import asyncssh

        async def write(part: bytes) -> None:
            self._process.stdin.write(part)
            await self._process.stdin.drain()

        for start in range(0, len(data), CHUNK):
            try:
                self._connection._wait(write(data[start : start + CHUNK]), SILENCE_SECONDS)
            except TimeoutError as error:
                raise self._silent() from error
            except (asyncssh.Error, OSError) as error:
                raise self._broken(error) from error

    def _silent(self) -> HwnasError:
        return HwnasError(f"{self._connection.where} has said nothing for {SILENCE_SECONDS:.0f} s; it may hang")

    def lines(self) -> Iterator[bytes]:
        import asyncssh

        line = b""
        while True:
            try:
                part = self._connection._wait(self._process.stdout.readline(), SILENCE_SECONDS)
            except TimeoutError as error:
                raise self._silent() from error
            except (asyncssh.Error, OSError) as error:
                raise self._broken(error) from error
            line += part
            require_short(line, self._connection.where)
            # A line that is longer than its buffer comes in parts.
            if part and not part.endswith(b"\n"):
                continue
            if line:
                yield line
            if not part:
                return
            line = b""

    def complaint(self) -> str:
        import asyncssh

        try:
            return last_line(self._errors.result(5))
        except (TimeoutError, asyncssh.Error, OSError):
            return ""


async def _last_of(reader: asyncssh.SSHReader[bytes]) -> bytes:
    last = b""
    while part := await reader.read(CHUNK):
        last = (last + part)[-CHUNK:]
    return last


async def _end_all() -> None:
    """Whatever a loop still waits for, and the threads in which it looks names up."""
    waiting = asyncio.all_tasks() - {asyncio.current_task()}
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()


def _quoted(command: Sequence[str]) -> str:
    """For the shell there, which is to know what ``~/`` is at the beginning of a program."""
    if command[0].startswith("~/"):
        return f"~/{shlex.join([command[0].removeprefix('~/'), *command[1:]])}"
    return shlex.join(command)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
