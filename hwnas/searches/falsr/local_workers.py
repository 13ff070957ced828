"""Trials in processes of this machine: one process for each trial, so that whatever becomes of it ends with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

import torch

from hwnas.searches.falsr.trial import Answer, Outcome, TrialData, TrialPlan, answer
from hwnas.searches.falsr.workers import Ended, Failure, Workers, result_of


class LocalWorkers(Workers):
    """``count`` processes at a time, each with its share of the processors to itself.

    A server that has loaded torch forks them, which takes milliseconds; starting Python anew would take seconds.

    Args:
        count: trials at once.
        data: folder that `TrialData.save` has written.
        scale: of the images in it.
    """

    def __init__(self, count: int, data: Path, scale: int) -> None:
        self._count, self._data, self._scale = count, data, scale
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload([answer.__module__, __name__])
        self._running: dict[Connection, tuple[TrialPlan, BaseProcess, int]] = {}

    @property
    def capacity(self) -> int:
        return self._count

    def start(self, plan: TrialPlan) -> None:
        taken = {place for _, _, place in self._running.values()}
        place = next(i for i in range(self._count) if i not in taken)
        ours, theirs = self._context.Pipe(duplex=False)
        arguments = (theirs, plan.model_dump_json(), self._data, self._scale, place, self._count)
        process = self._context.Process(target=_run, args=arguments, daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self._running[ours] = plan, process, place

    def wait(self, seconds: float) -> list[Ended]:
        ended: list[Ended] = []
        for connection in wait(list(self._running), seconds):
            assert isinstance(connection, Connection)
            plan, process, _ = self._running.pop(connection)
            ended.append((plan, _received(connection, process)))
            connection.close()
        return ended

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for _, process, _ in self._running.values():
            process.kill()
        for connection, (_, process, _) in self._running.items():
            process.join()
            connection.close()
        self._running.clear()


def _received(connection: Connection, process: BaseProcess) -> Outcome | Failure:
    try:
        said: Answer = connection.recv()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return Failure(f"its process {how}" + ("; is there enough memory?" if code == -signal.SIGKILL else ""))
    process.join()
    return result_of(said)


def _run(tell: Connection, plan: str, data: Path, scale: int, place: int, count: int) -> None:
    # Ctrl-C reaches the whole group: the search decides what becomes of its trials.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _take_share(place, count)
    parent = multiprocessing.parent_process()
    said = answer(plan, TrialData.load(data, scale), lambda: parent is None or parent.is_alive())
    # Where the search has been killed nobody listens.
    with suppress(OSError):
        tell.send(said)


def _take_share(place: int, count: int) -> None:
    """Threads and processors of one of ``count`` workers: sharing them makes each wait for the others. And a GPU."""
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
    if sys.platform == "linux":
        there = sorted(os.sched_getaffinity(0))
        mine = there[place::count] or [there[place % len(there)]]
        os.sched_setaffinity(0, mine)
        torch.set_num_threads(len(mine))
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
