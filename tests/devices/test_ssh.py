"""Devices behind ssh: a real server, and what can go wrong with one."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hwnas.devices import Device, Timing, open_device
from hwnas.devices import ssh as ssh_module
from hwnas.devices.target import Target, load_target
from hwnas.errors import HwnasError, UsageError
from hwnas.progress import Silent

from .conftest import Sshd

WaitFor = Callable[..., None]


def _device(host: str, python: str = sys.executable, **changes: object) -> Device:
    return open_device(load_target("cpu").model_copy(update={"python": python, **changes}), host)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_module.SshConnection, "attempts", 1)
    monkeypatch.setattr(ssh_module, "CONNECT_SECONDS", 3.0)


def test_a_file_is_measured_and_nothing_is_left_behind(sshd: Sshd, espcn: Path) -> None:
    device = _device(sshd.host)
    try:
        assert device.missing() is None
        (found,) = device.measure([espcn], Timing((24, 32), rounds=7, seconds=0, layers=True), Silent())
        assert found.method == "measured" and len(found.samples_ms) == 7
        assert found.fingerprint == device.probe().fingerprint
        assert "Conv" in {layer.kind.removeprefix("Fused") for layer in found.layers}
        assert list(sshd.temporary.iterdir()) == []
    finally:
        device.close()


def test_a_device_that_dies_leaves_an_error_and_no_process_or_file(sshd: Sshd, espcn: Path, wait_for: WaitFor) -> None:
    device = _device(sshd.host)

    def die() -> None:
        wait_for(lambda: any(sshd.temporary.glob("hwnas-*/0.onnx")), "the runner never got its file")
        time.sleep(0.5)
        sshd.kill()

    killer = threading.Thread(target=die)
    killer.start()
    try:
        with pytest.raises(HwnasError, match=r"127\.0\.0\.1.* (broke|went away)"):
            device.measure([espcn], Timing((180, 320), rounds=1000, seconds=60), Silent())
    finally:
        killer.join()
        device.close()
    wait_for(lambda: list(sshd.temporary.iterdir()) == [], "files are left on the device")
    wait_for(lambda: str(sshd.temporary) not in _commands(), "the runner is still there")


def _commands() -> str:
    return subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout


def test_a_host_whose_key_is_not_known_is_refused(sshd: Sshd, impatient: None) -> None:
    (sshd.home / ".ssh" / "known_hosts").write_text("")
    with pytest.raises(HwnasError, match="known_hosts.*connect once by `ssh`"):
        _device(sshd.host).probe()


def test_a_host_of_another_key_is_refused(sshd: Sshd, impatient: None) -> None:
    hosts = sshd.home / ".ssh" / "known_hosts"
    other = (sshd.home / ".ssh" / "id_ed25519.pub").read_text().split()[:2]
    hosts.write_text(" ".join([hosts.read_text().split()[0], *other]) + "\n")
    with pytest.raises(HwnasError, match="known_hosts"):
        _device(sshd.host).probe()


def test_a_key_that_is_not_let_in_says_what_to_do(sshd: Sshd, impatient: None) -> None:
    key = sshd.home / ".ssh" / "id_ed25519"
    key.unlink()
    key.with_suffix(".pub").unlink()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with pytest.raises(HwnasError, match="does not let you in.*ssh-copy-id"):
        _device(sshd.host).probe()


def test_a_host_that_is_not_there_is_named(impatient: None) -> None:
    with pytest.raises(HwnasError, match=r"nobody@127\.0\.0\.1:1 cannot be reached.*check the address"):
        _device("nobody@127.0.0.1:1").probe()


@pytest.mark.parametrize("patient", [True, False])
def test_a_host_that_does_not_answer_is_asked_again(patient: bool, tmp_path: Path) -> None:
    """Three times, if something is to be measured; once, to tell whether it is usable."""
    asked = 0

    def hang_up() -> None:
        nonlocal asked
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            asked += 1
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=hang_up, daemon=True).start()
        with _device(f"me@127.0.0.1:{listener.getsockname()[1]}") as device:
            if patient:
                with pytest.raises(HwnasError, match=r"cannot be reached: .*\(3 attempts\)"):
                    device.probe()
            else:
                assert "cannot be reached" in str(device.missing())
        listener.shutdown(socket.SHUT_RDWR)
    assert asked == (3 if patient else 1)


@pytest.mark.parametrize("settings", ["Port many", "ConnectTimeout soon", 'IdentityFile "unclosed'])
def test_settings_that_cannot_be_read_are_named(settings: str, sshd: Sshd, impatient: None) -> None:
    (sshd.home / ".ssh" / "config").write_text(settings + "\n")
    with pytest.raises(HwnasError, match=r"check ~/\.ssh/config"):
        _device(sshd.host).probe()


def test_a_host_that_nobody_has_connected_to_yet_is_refused(sshd: Sshd, impatient: None) -> None:
    (sshd.home / ".ssh" / "known_hosts").unlink()
    with pytest.raises(HwnasError, match="known_hosts.*connect once by `ssh`"):
        _device(sshd.host).probe()
    (sshd.home / ".ssh" / "config").write_text("UserKnownHostsFile ~/.ssh/mine\n")
    with pytest.raises(HwnasError, match=r"there is no file .*mine.*connect once by `ssh`"):
        _device(sshd.host).probe()


def test_a_connection_that_broke_between_two_commands_is_made_anew(sshd: Sshd) -> None:
    with _device(sshd.host) as device:
        before = device.probe().fingerprint
        sshd.drop()
        assert device.probe().fingerprint == before


def test_connections_that_are_closed_keep_no_file_and_no_thread(sshd: Sshd, espcn: Path) -> None:
    def used() -> tuple[int, set[threading.Thread]]:
        return len(list(Path("/proc/self/fd").iterdir())), set(threading.enumerate())

    def measure() -> None:
        with _device(sshd.host) as device:
            device.probe()
            device.probe()

    measure()
    before = used()
    for _ in range(3):
        measure()
    files, threads = used()
    assert files <= before[0] and not threads - before[1]


def test_a_command_may_complain_at_length(sshd: Sshd) -> None:
    """More than any buffer on the way holds, and only its end is of interest."""
    connection = ssh_module.SshConnection(sshd.host)
    at_length = "import sys; sys.stderr.write('x\\n' * 4_000_000 + 'the end'); sys.stderr.flush(); print('done')"
    try:
        with connection.start([sys.executable, "-c", at_length]) as channel:
            assert list(channel.lines()) == [b"done\n"]
            assert channel.complaint() == "the end"
    finally:
        connection.close()


def test_a_host_without_python_or_runtime_is_named(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match="no-such-python"):
        _device(sshd.host, python="/no-such-python").probe()
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    with pytest.raises(HwnasError, match="ONNX Runtime is not installed there; pip install onnxruntime"):
        _device(sshd.host, python=str(bare / "bin" / "python")).probe()


@pytest.mark.parametrize(
    "host", ["", "-oProxyCommand=x", "a b", "me@", "me@host;ls", "me@host:port", "me@host:99999", "$(ls)"]
)
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="is no host"):
        _device(host)


def test_a_target_that_does_not_say_where_it_is_asks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="say where, once for all: hwnas targets add jetson --like jetson --set host="):
        open_device(load_target("jetson"))


def test_a_target_by_ssh_needs_a_runtime_that_has_it() -> None:
    vela = Target.model_validate({**load_target("ethos-u85").model_dump(), "connection": "ssh", "host": "me@there"})
    with pytest.raises(UsageError, match="cannot be reached by ssh, only by compiler"):
        open_device(vela)
