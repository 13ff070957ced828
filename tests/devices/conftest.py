"""A real sshd of the test's own, on a high port, with fresh keys; and small networks in files."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from hwnas.exporters.onnx import export_onnx
from hwnas.operators.layers import FloatLayers
from hwnas.spaces import named_architecture

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


@pytest.fixture(scope="session")
def espcn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ESPCN x2 in float, as an ONNX file for images of any size."""
    path = tmp_path_factory.mktemp("networks") / "espcn.onnx"
    torch.manual_seed(0)
    network = named_architecture("espcn", 2).build(FloatLayers()).eval()
    export_onnx(network, path, torch.rand(1, 3, 16, 16), {"scale": "2"})
    return path


@dataclass
class Sshd:
    """A server that lets this user in.

    Attributes:
        host: ``user@address:port``.
        home: to be HOME of who connects; has the key and the known hosts.
        temporary: folder of temporary files of what is run by it.
    """

    host: str
    home: Path
    temporary: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """The server and all its sessions at once, as if the device had lost its power."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        self.drop()
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def drop(self) -> None:
        """Its sessions alone."""
        for pid in reversed(_descendants(self.process.pid)[1:]):
            # What they started has to notice by itself, and some of it ends by now.
            with suppress(FileNotFoundError, ProcessLookupError):
                if "sshd" in Path(f"/proc/{pid}/comm").read_text():
                    os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    found = [pid]
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _descendants(int(child))
    return found


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    if SSHD is None:
        pytest.skip("sshd is not installed (Debian: openssh-server)")
    home, temporary, server = tmp_path / "home", tmp_path / "device-tmp", tmp_path / "server"
    for folder in (home / ".ssh", temporary, server):
        folder.mkdir(parents=True)
    key, host_key = home / ".ssh" / "id_ed25519", server / "host_key"
    for path in (key, host_key):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    authorized = server / "authorized_keys"
    authorized.write_text(key.with_suffix(".pub").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it separates its privileges
    (server / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {host_key}\nAuthorizedKeysFile {authorized}\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv TMPDIR={temporary}\n"
    )
    # A group of its own, so that it can be killed as a whole.
    process = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(server / "config")], stderr=(server / "log").open("wb"), start_new_session=True
    )
    public = host_key.with_suffix(".pub").read_text().split()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n")
    monkeypatch.setenv("HOME", str(home))
    try:
        _wait_for(lambda: _answers(port), "sshd does not start: " + str(server / "log"))
        yield Sshd(f"{getpass.getuser()}@127.0.0.1:{port}", home, temporary, process)
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_for(condition: Callable[[], bool], otherwise: str, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(otherwise)
        time.sleep(0.05)


wait_for = pytest.fixture(scope="session")(lambda: _wait_for)
