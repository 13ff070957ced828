"""The process that talks to Ray for `hwnas.searches.falsr.ray_workers`.

Ray ends the process that uses it when a cluster does not come back, blocks for minutes where none answers, prints, and
handles signals. So it is used in a process of its own, the driver, which says each second what the cluster has.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from hwnas.errors import HwnasError
from hwnas.searches.falsr.trial import Answer, TrialData, answer

Node = tuple[float, float]
"""What a node has: CPUs and GPUs."""

_BEAT_SECONDS = 1.0
_LOOK_SECONDS = 0.1


def drive() -> None:
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
                pipe.send(("ended", (running.pop(reference), _result(ray, reference))))
            if time.monotonic() - beat > _BEAT_SECONDS:
                pipe.send(("nodes", _nodes(ray)))
                beat = time.monotonic()
    finally:
        for reference in running:
            with suppress(Exception):
                ray.cancel(reference, force=True)
        ray.shutdown()


def _nodes(ray: Any) -> list[Node]:
    alive = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return [(resources.get("CPU", 0.0), resources.get("GPU", 0.0)) for resources in alive]


def _result(ray: Any, reference: Any) -> Answer:
    """What a task has said, or why it has not."""
    try:
        said: Answer = ray.get(reference)
        return said
    except ray.exceptions.LocalRayletDiedError as error:
        raise HwnasError("this machine is no node of it any more") from error
    except ray.exceptions.OutOfMemoryError:
        return "failed", "its node ran out of memory"
    except ray.exceptions.NodeDiedError:
        return "failed", "its node died"
    except ray.exceptions.WorkerCrashedError:
        return "failed", "its process died; is there enough memory?"
    except Exception as error:
        if "No module named 'hwnas" in str(error):
            return "unable", "its node cannot import hwnas; install it there, in the version that is here"
        if isinstance(error, ConnectionError) and not isinstance(error, ray.exceptions.RayError):
            raise  # the cluster is lost, and not the task
        return "failed", f"{type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    # Ray wraps what went wrong in an exception that says less.
    cause = error.__cause__ or error
    text = " ".join((str(cause).strip() or type(cause).__name__).split())
    if "No node info found" in text:
        return "this machine is no node of it: make it one by `ray start --address`, or give ray://HOST:10001"
    return text if len(text) <= 300 else f"{text[:297]}..."


def _run(plan: str, data: TrialData, cpus: float, gpus: float) -> Answer:
    if not gpus:
        # Ray hides them from tasks that ask for none only until it does not: it says that this will change.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(max(1, int(cpus)))
    return answer(plan, data)
