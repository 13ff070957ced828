"""Trials on a Ray cluster: one task for each trial, wherever there is a node with room for it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from math import inf
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from hwnas.errors import HwnasError, UsageError, first_line, not_installed
from hwnas.searches.falsr.ray_driver import Node, drive
from hwnas.searches.falsr.trial import TrialData, TrialPlan
from hwnas.searches.falsr.workers import Ended, Workers, result_of

PROBE_SECONDS = 3.0
"""After which a port that does not answer is taken for closed."""

CONNECT_SECONDS = 12.0
"""After which what answers is taken for no cluster; Ray itself tries for more than three minutes."""

GONE_SECONDS = 60.0
"""After which a cluster without a node for trials is given up."""

STOP_SECONDS = 5.0
"""After which a driver that should stop is killed."""

_ADDRESS = re.compile(r"(?:ray://)?(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d{1,5})")

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else a machine that is no node of the cluster is told so after a minute.
    "RAY_gcs_server_request_timeout_seconds": str(round(CONNECT_SECONDS / 2)),
}


class RayWorkers(Workers):
    """As many trials at once as the nodes of a Ray cluster have room for, those that join later included.

    A node has to have hwnas installed, and the versions of Python and Ray that are here.

    Args:
        address: HOST:PORT of a cluster that this machine is a node of, ray://HOST:PORT of any, or auto.
        data: goes into the cluster once, and is shared by the trials of a node.
        cpus: that a trial gets.
        gpus: the same; trials share one if it is a fraction.

    Raises:
        HwnasError: when it is entered, if Ray is not installed, the cluster cannot be reached, or no node of it has
            what a trial asks for.
    """

    def __init__(self, address: str, data: TrialData, cpus: float = 1, gpus: float = 0) -> None:
        self._address, self._data, self._wanted = address, data, (cpus, gpus)
        self._running: dict[int, TrialPlan] = {}
        self._tickets = 0
        self._nodes: list[Node] = []
        self._heard = self._capable = time.monotonic()
        self._ended: list[Ended] = []
        self._lost: str | None = None
        self._pipe: Connection | None = None
        self._driver: subprocess.Popen[bytes] | None = None

    @property
    def capacity(self) -> int:
        return max(1, sum(_room(node, self._wanted) for node in self._nodes))

    def __enter__(self) -> Self:
        if find_spec("ray") is None:
            raise not_installed("Ray", "distributed")
        require_reachable(self._address, *self._wanted)
        try:
            with TemporaryDirectory(prefix="hwnas-ray-") as folder:
                images = Path(folder) / "images"
                self._data.save(images)
                self._connect(images)
        except BaseException:
            if self._driver is not None:
                self._driver.kill()
            self._close()
            raise
        return self

    def start(self, plan: TrialPlan) -> None:
        assert self._pipe is not None, "not entered"
        # What the driver has said in the meantime is heard first: it waits for that before it listens.
        self._listen(0)
        self._tickets += 1
        self._running[self._tickets] = plan
        # Where the driver has ended, `wait` says so.
        with suppress(OSError):
            self._pipe.send((self._tickets, plan.model_dump_json()))

    def wait(self, seconds: float) -> list[Ended]:
        if not self._ended:
            self._listen(seconds)
        if self._ended:
            ended, self._ended = self._ended, []
            return ended
        if self._lost is not None:
            raise HwnasError(
                f"the Ray cluster at {self._address} is lost ({self._lost}); start it again, and go on with --resume"
            )
        now = time.monotonic()
        if now - self._heard > GONE_SECONDS:
            self._lost = f"it has not answered for {GONE_SECONDS:.0f} s"
            return self.wait(0)
        if now - self._capable > GONE_SECONDS:
            raise HwnasError(
                f"no worker of the cluster is left that has {_amount(*self._wanted)}; add one, and go on with --resume"
            )
        return []

    def _listen(self, seconds: float) -> None:
        """Hear what the driver says, until a trial has ended or so many seconds are over."""
        assert self._pipe is not None, "not entered"
        until = time.monotonic() + seconds
        while self._lost is None and self._pipe.poll(0 if self._ended else max(0.0, until - time.monotonic())):
            try:
                kind, content = self._pipe.recv()
            except (EOFError, OSError):
                self._lost = "its driver has ended"
                return
            if kind == "nodes":
                self._hear(content)
            elif kind == "ended":
                ticket, said = content
                self._ended.append((self._running.pop(ticket), result_of(said)))
            elif kind == "lost":
                self._lost = content

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _connect(self, images: Path) -> None:
        self._pipe, theirs = Pipe()
        arguments = json.dumps([theirs.fileno(), self._address, str(images), self._data.train.scale, *self._wanted])
        # A session of its own, so that Ctrl-C does not reach it: the search decides what becomes of its trials.
        self._driver = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {drive.__module__} import drive; drive()", arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env=os.environ | _ENVIRONMENT,
        )
        theirs.close()
        self._expect("imported", None)
        self._hear(self._expect("nodes", CONNECT_SECONDS))
        if not any(_room(node, self._wanted) for node in self._nodes):
            largest = max(self._nodes, key=lambda node: (bool(node[1]) >= bool(self._wanted[1]), *node), default=(0, 0))
            raise HwnasError(
                f"a trial wants {_amount(*self._wanted)}, and the largest node of the cluster at {self._address} has "
                f"{_amount(*largest)}; ask for less, or add a node that has them"
            )
        self._expect("ready", None)

    def _expect(self, wanted: str, seconds: float | None) -> Any:
        assert self._pipe is not None
        if not self._pipe.poll(seconds):
            raise _unreachable(self._address, "it does not answer as a cluster of this version of Ray does")
        try:
            kind, content = self._pipe.recv()
        except (EOFError, OSError):
            raise _unreachable(self._address, "Ray has ended its driver") from None
        if kind != wanted and wanted == "ready":
            raise HwnasError(
                f"the images cannot be put into the Ray cluster at {self._address} ({content}); "
                "start it with more --object-store-memory, or give fewer images"
            )
        if kind != wanted:
            raise _unreachable(self._address, content)
        return content

    def _hear(self, nodes: list[Node]) -> None:
        self._nodes, self._heard = nodes, time.monotonic()
        if any(_room(node, self._wanted) for node in nodes):
            self._capable = self._heard

    def _close(self) -> None:
        if self._pipe is not None:
            # The end of the pipe tells the driver to stop.
            self._pipe.close()
            self._pipe = None
        if self._driver is not None:
            try:
                self._driver.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._driver.kill()
                self._driver.wait()
            self._driver = None
        self._running.clear()


def _room(node: Node, wanted: Node) -> int:
    """How many trials a node has room for."""
    return min(int(there / asked + 1e-6) for there, asked in zip(node, wanted, strict=True) if asked)


def _amount(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU{'s' * (cpus != 1)} and {gpus:g} GPU{'s' * (gpus != 1)}"


def require_reachable(address: str, cpus: float, gpus: float) -> None:
    """Find out whether trials can be asked for like that, and anything listens where a cluster is said to be.

    Raises:
        UsageError: if they cannot, or it is no address.
        HwnasError: if nothing does.
    """
    if not (0 < cpus < inf and 0 <= gpus < inf) or (gpus > 1 and gpus % 1):
        raise UsageError(
            f"a trial cannot have {_amount(cpus, gpus)}; give it some of a CPU, and of GPUs a whole number "
            "or a fraction of one"
        )
    if address == "auto":
        return
    match = _ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 1 << 16:
        raise UsageError(f"{address!r} is no address of a Ray cluster; give HOST:PORT, ray://HOST:PORT, or auto")
    try:
        socket.create_connection((match["v6"] or match["host"], int(match["port"])), PROBE_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or first_line(error)) from error


def _unreachable(address: str, reason: str) -> HwnasError:
    return HwnasError(
        f"no Ray cluster can be reached at {address} ({reason}); start one by `ray start --head`, or leave --ray out"
    )
