"""A daemon that speaks adb's protocol over TCP: a phone, as far as adb's server can tell.

It has the two services that are used: ``shell:``, which runs commands by this machine's shell, and ``sync:``, which
takes files. Source: the protocol's description in Android's sources, ``adb/protocol.txt`` and ``adb/SYNC.TXT``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
from pathlib import Path

VERSION, LARGEST = 0x01000001, 256 * 1024


class Phone:
    """Listens on a port of its own until `stop`.

    Args:
        programs: folder that is first in the PATH of its shell.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Go away in the middle of whatever is going on."""
        for each in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        sending = threading.Lock()
        streams: dict[int, _Stream] = {}

        def send(command: bytes, first: int, second: int, data: bytes = b"") -> None:
            number = int.from_bytes(command, "little")
            head = struct.pack("<6I", number, first, second, len(data), sum(data) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
            with sending:
                connection.sendall(head + data)

        try:
            while True:
                number, first, second, length, _, _ = struct.unpack("<6I", _exactly(connection, 24))
                data = _exactly(connection, length)
                command = number.to_bytes(4, "little")
                if command == b"CNXN":
                    send(
                        b"CNXN", VERSION, LARGEST, b"device::ro.product.name=test;ro.product.model=test;features=cmd\0"
                    )
                elif command == b"OPEN":
                    stream = _Stream(len(streams) + 1, first, send, self._programs)
                    streams[stream.identity] = stream
                    send(b"OKAY", stream.identity, first)
                    threading.Thread(target=stream.run, args=(data.rstrip(b"\0").decode(),), daemon=True).start()
                elif command == b"WRTE":
                    send(b"OKAY", second, first)
                    streams[second].received(data)
                elif command == b"OKAY" and second in streams:
                    streams[second].acknowledged.set()
                elif command == b"CLSE" and second in streams:
                    streams[second].received(b"")
        except OSError:
            return


class _Stream:
    def __init__(self, identity: int, remote: int, send: object, programs: Path) -> None:
        self.identity, self._remote, self._send, self._programs = identity, remote, send, programs
        self.acknowledged = threading.Event()
        self._input, self._output = os.pipe()

    def received(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the other side closes what has ended already
            if data:
                os.write(self._output, data)
            else:
                os.close(self._output)

    def run(self, service: str) -> None:
        with contextlib.suppress(OSError):
            self._run(service)

    def _run(self, service: str) -> None:
        if service.startswith("shell:"):
            environment = {**os.environ, "PATH": f"{self._programs}:{os.environ['PATH']}"}
            answer = subprocess.run(
                ["/bin/sh", "-c", service.removeprefix("shell:")],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            self._write(answer.stdout)
        elif service.startswith("sync:"):
            with os.fdopen(self._input, "rb") as requests:
                self._sync(requests)
        self._send(b"CLSE", self.identity, self._remote)  # type: ignore[operator]

    def _sync(self, requests: object) -> None:
        read = requests.read  # type: ignore[attr-defined]
        target, content = Path(), b""
        while len(head := read(8)) == 8:
            request, length = head[:4], int.from_bytes(head[4:], "little")
            if request == b"DONE":  # its length is a time
                target.write_bytes(content)
                target.chmod(0o755)
                self._write(b"OKAY" + bytes(4))
                continue
            data = read(length)
            if request == b"SEND":
                target, content = Path(data.decode().rpartition(",")[0]), b""
            elif request == b"DATA":
                content += data
            elif request == b"STAT":
                path = Path(data.decode())
                found = path.stat() if path.exists() else None
                values = (found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0)
                self._write(b"STAT" + struct.pack("<3I", *values))
            elif request == b"QUIT":
                return

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), LARGEST):
            self.acknowledged.clear()
            self._send(b"WRTE", self.identity, self._remote, data[start : start + LARGEST])  # type: ignore[operator]
            self.acknowledged.wait(10)


def _exactly(connection: socket.socket, length: int) -> bytes:
    parts = b""
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            raise ConnectionError("the other side is gone")
        parts += part
    return parts
