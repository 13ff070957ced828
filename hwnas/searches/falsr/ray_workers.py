"""Trials on a Ray cluster: one task for each trial, wherever there is a node with room for it.

Ray ends the process that uses it when a cluster does not come back, blocks for minutes where none answers, prints, and
handles signals. So it is used in a process of its own, the driver, which says each second what the cluster has.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import torch

from hwnas.errors import HwnasError, UsageError, first_line, not_installed
from hwnas.searches.falsr.trial import Outcome, TrialData, TrialPlan, run_trial
from hwnas.searches.falsr.workers import Ended, Failure, Workers

PROBE_SECONDS = 3.0
"""After which a port that does not answer is taken for closed."""

CONNECT_SECONDS = 12.0
"""After which what answers is taken for no cluster; Ray itself tries for more than three minutes."""

GONE_SECONDS = 60.0
"""After which a cluster without a node for trials is given up."""

STOP_SECONDS = 5.0
"""After which a driver that should stop is killed."""

_BEAT_SECONDS = 1.0
_LOOK_SECONDS = 0.1
_ADDRESS = re.compile(r"(?:ray://)?(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s:/\[\]]+)):(?P<port>\d{1,5})")

# What a node has: CPUs and GPUs.
_Node = tuple[float, float]


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
        if cpus <= 0 or gpus < 0 or (gpus > 1 and gpus % 1):
            raise UsageError(
                f"a trial cannot have {_amount(cpus, gpus)}; give it some of a CPU, and of GPUs a whole number "
                "or a fraction of one"
            )
        self._address, self._data, self._wanted = address, data, (cpus, gpus)
        self._running: dict[int, TrialPlan] = {}
        self._tickets = 0
        self._nodes: list[_Node] = []
        self._heard = self._capable = time.monotonic()
        self._pipe: Connection | None = None
        self._driver: subprocess.Popen[bytes] | None = None
        self._folder: TemporaryDirectory[str] | None = None

    @property
    def capacity(self) -> int:
        return max(1, sum(_room(node, self._wanted) for node in self._nodes))

    def __enter__(self) -> RayWorkers:
        if find_spec("ray") is None:
            raise not_installed("Ray", "distributed")
        self._probe()
        try:
            self._connect()
        except BaseException:
            if self._driver is not None:
                self._driver.kill()
            self._close()
            raise
        return self

    def start(self, plan: TrialPlan) -> None:
        assert self._pipe is not None, "not entered"
        self._tickets += 1
        self._running[self._tickets] = plan
        # Where the driver has ended, `wait` says so.
        with suppress(OSError):
            self._pipe.send((self._tickets, plan.model_dump_json()))

    def wait(self, seconds: float) -> list[Ended]:
        assert self._pipe is not None, "not entered"
        until, ended = time.monotonic() + seconds, list[Ended]()
        while self._pipe.poll(0 if ended else max(0.0, until - time.monotonic())):
            try:
                kind, content = self._pipe.recv()
            except (EOFError, OSError):
                if ended:
                    break
                raise self._lost("its driver has ended") from None
            if kind == "nodes":
                self._hear(content)
            elif kind == "ended":
                ticket, succeeded, text = content
                result = Outcome.model_validate_json(text) if succeeded else Failure(text)
                ended.append((self._running.pop(ticket), result))
            elif kind == "lost":
                raise self._lost(content)
        now = time.monotonic()
        if not ended and now - self._heard > GONE_SECONDS:
            raise self._lost(f"it has not answered for {GONE_SECONDS:.0f} s")
        if not ended and now - self._capable > GONE_SECONDS:
            raise HwnasError(
                f"no worker of the cluster is left that has {_amount(*self._wanted)}; add one, and go on with --resume"
            )
        return ended

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _probe(self) -> None:
        if self._address == "auto":
            return
        match = _ADDRESS.fullmatch(self._address)
        if match is None or not 0 < int(match["port"]) < 1 << 16:
            raise UsageError(
                f"{self._address!r} is no address of a Ray cluster; give HOST:PORT, ray://HOST:PORT, or auto"
            )
        try:
            socket.create_connection((match["v6"] or match["host"], int(match["port"])), PROBE_SECONDS).close()
        except (OSError, UnicodeError) as error:
            raise self._unreachable(getattr(error, "strerror", None) or first_line(error)) from error

    def _connect(self) -> None:
        self._folder = TemporaryDirectory(prefix="hwnas-ray-")
        data = Path(self._folder.name)
        self._data.save(data)
        self._pipe, theirs = Pipe()
        arguments = json.dumps([theirs.fileno(), self._address, str(data), self._data.train.scale, *self._wanted])
        # A session of its own, so that Ctrl-C does not reach it: the search decides what becomes of its trials.
        self._driver = subprocess.Popen(
            [sys.executable, "-P", "-c", f"from {__name__} import _drive; _drive()", arguments],
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
            raise self._unreachable("it does not answer as a cluster of this version of Ray does")
        try:
            kind, content = self._pipe.recv()
        except (EOFError, OSError):
            raise self._unreachable("Ray has ended its driver") from None
        if kind != wanted:
            raise self._unreachable(content)
        return content

    def _hear(self, nodes: list[_Node]) -> None:
        self._nodes, self._heard = nodes, time.monotonic()
        if any(_room(node, self._wanted) for node in nodes):
            self._capable = self._heard

    def _unreachable(self, reason: str) -> HwnasError:
        return HwnasError(
            f"no Ray cluster can be reached at {self._address} ({reason}); start one by `ray start --head`, "
            "or leave --ray out"
        )

    def _lost(self, reason: str) -> HwnasError:
        return HwnasError(
            f"the Ray cluster at {self._address} is lost ({reason}); start it again, and go on with --resume"
        )

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
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        self._running.clear()


def _room(node: _Node, wanted: _Node) -> int:
    """How many trials a node has room for."""
    return min(int(there / asked + 1e-6) for there, asked in zip(node, wanted, strict=True) if asked)


def _amount(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPUs and {gpus:g} GPUs"


# Of the driver.

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else a machine that is no node of the cluster is told so after a minute.
    "RAY_gcs_server_request_timeout_seconds": str(round(CONNECT_SECONDS / 2)),
}


def _drive() -> None:
    """Serve `RayWorkers` until its end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fd, address, folder, scale, cpus, gpus = json.loads(sys.argv[1])
    with Connection(fd) as pipe, suppress(EOFError, OSError):
        try:
            _serve(pipe, address, Path(folder), scale, cpus, gpus)
        except Exception as error:
            # If it is that the pipe has ended, this fails too, and there is nobody to tell.
            pipe.send(("lost", _one_line(error)))


def _serve(pipe: Connection, address: str, folder: Path, scale: int, cpus: float, gpus: float) -> None:
    import ray

    pipe.send(("imported", None))
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    running: dict[Any, int] = {}
    try:
        pipe.send(("nodes", _nodes(ray)))
        data = ray.put(TrialData.load(folder, scale))
        pipe.send(("ready", None))
        # Whether to try again is for `run_trials` to say.
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_run)
        beat = time.monotonic()
        while True:
            while pipe.poll(0 if running else _LOOK_SECONDS):
                ticket, plan = pipe.recv()
                running[task.remote(plan, data, cpus, gpus)] = ticket
            ended, _ = ray.wait(list(running), timeout=_LOOK_SECONDS) if running else ([], [])
            for reference in ended:
                pipe.send(("ended", (running.pop(reference), *_result(ray, reference))))
            if time.monotonic() - beat > _BEAT_SECONDS:
                pipe.send(("nodes", _nodes(ray)))
                beat = time.monotonic()
    finally:
        for reference in running:
            with suppress(Exception):
                ray.cancel(reference, force=True)
        ray.shutdown()


def _nodes(ray: Any) -> list[_Node]:
    alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return [(resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in alive]


def _result(ray: Any, reference: Any) -> tuple[bool, str]:
    """Whether a task succeeded, and its outcome, or why not in one line."""
    try:
        succeeded, text = ray.get(reference)
        return succeeded, text
    except ray.exceptions.LocalRayletDiedError as error:
        raise HwnasError("this machine is no node of it any more") from error
    except ray.exceptions.OutOfMemoryError:
        return False, "its node ran out of memory"
    except ray.exceptions.NodeDiedError:
        return False, "its node died"
    except ray.exceptions.WorkerCrashedError:
        return False, "its process died; is there enough memory?"
    except Exception as error:
        if "No module named 'hwnas" in str(error):
            return False, "its node cannot import hwnas; install it there, in the version that is here"
        return False, f"{type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    # Ray wraps what went wrong in an exception that says less.
    cause = error.__cause__ or error
    text = " ".join((str(cause).strip() or type(cause).__name__).split())
    if "No node info found" in text:
        return "this machine is no node of it: make it one by `ray start --address`, or give ray://HOST:10001"
    return text if len(text) <= 300 else f"{text[:297]}..."


def _run(plan: str, data: TrialData, cpus: float, gpus: float) -> tuple[bool, str]:
    if not gpus:
        # Ray hides them from tasks that ask for none only until it does not: it says that this will change.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(max(1, int(cpus)))
    try:
        return True, run_trial(TrialPlan.model_validate_json(plan), data).model_dump_json()
    except Exception as error:
        return False, f"{type(error).__name__}: {first_line(error)}"
