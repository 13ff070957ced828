"""``python -m runner FOLDER``, with the job on standard input."""

from __future__ import annotations

import json
import math
import os
import platform
import random
import shutil
import signal
import sys
import threading
import time
from typing import Callable, Dict, List, Sequence

from .common import WARM_UP, Job, Model, Refused, Runtime, kill_child, median_interval, quantile, tell
from .machine import clock_khz, fingerprint, resident_bytes
from .runtimes import LiteRt, OnnxRuntime, OpenVino
from .trtexec import TensorRt

HEARTBEAT = 2.0
"""Seconds between signs of life."""

RUNTIMES: Dict[str, Callable[[Job, str], Runtime]] = {
    "onnxruntime": OnnxRuntime,
    "qnn": OnnxRuntime,
    "openvino": OpenVino,
    "litert": LiteRt,
    "tensorrt": TensorRt,
}


def uncertainty(samples: Sequence[float]) -> float:
    """Half the confidence interval of the median, as a share of it."""
    interval = median_interval(samples)
    return math.inf if interval is None else (interval[1] - interval[0]) / 2 / quantile(samples, 0.5)


def time_all(models: Sequence[Model], job: Job) -> List[List[List[float]]]:
    """Samples of each network in each round.

    All take turns, in another order each time, so that a device that is slow for a while is slow for all: until every
    median is as certain as the job asks for, and it asks for how many rounds at least, or its seconds are over. Of
    several networks it is the ratio to the first that has to be certain.
    """
    for model in models:
        for _ in range(WARM_UP):
            model.samples()
    found: List[List[List[float]]] = [[] for _ in models]
    order, generator = list(range(len(models))), random.Random(0)
    started, rounds = time.monotonic(), 0
    while True:
        generator.shuffle(order)
        for i in order:
            found[i].append(models[i].samples())
        rounds += 1
        spent = time.monotonic() - started
        turns = [[quantile(samples, 0.5) for samples in of_one] for of_one in found]
        ratios = [[own / first for own, first in zip(of_one, turns[0])] for of_one in turns[1:]]
        worst = max(map(uncertainty, ratios or turns))
        if rounds >= job["rounds"] and (worst <= job["precision"] or spent >= job["seconds"]):
            return found
        tell(kind="round", rounds=rounds, spent=spent)


def work(job: Job, folder: str) -> None:
    """Do the job and tell what is found."""
    if job["runtime"] not in RUNTIMES:
        raise Refused(f"the runner knows no runtime {job['runtime']!r}; it knows {', '.join(RUNTIMES)}")
    runtime = RUNTIMES[job["runtime"]](job, folder)
    tell(
        kind="device",
        fingerprint=fingerprint(job, runtime.version),
        clock_khz=clock_khz(),
        python=platform.python_version(),
        free_bytes=shutil.disk_usage(folder).free,
    )
    before = resident_bytes()
    models = [runtime.load(os.path.join(folder, name)) for name in job["models"]]
    samples = time_all(models, job) if models else []
    most = resident_bytes(most=True)
    alone = len(models) == 1 and job["runtime"] != "tensorrt" and most is not None and before is not None
    for i, model in enumerate(models):
        tell(
            kind="model",
            index=i,
            rounds_ms=samples[i],
            peak_bytes=most - before if alone else None,  # type: ignore[operator]
            layers=model.layers() if job["layers"] else [],
        )


def receive(files: Sequence[List], folder: str) -> None:  # type: ignore[type-arg]
    """Write the files that follow the job."""
    for name, size in files:
        with open(os.path.join(folder, os.path.basename(name)), "wb") as file:
            while size:
                part = sys.stdin.buffer.read(min(size, 1 << 20))
                if not part:
                    raise Refused("the connection ended before all files were there")
                file.write(part)
                size -= len(part)


def main(folder: str) -> int:
    """Do the job of standard input in ``folder``, which is removed."""

    def leave() -> None:
        kill_child()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    def watch() -> None:
        sys.stdin.buffer.read(1)
        leave()

    def beat() -> None:
        while True:
            time.sleep(HEARTBEAT)
            try:
                tell(kind="alive")
            except OSError:
                leave()

    # Runtimes have temporary files of their own: ONNX Runtime leaves one that is called .ses.
    os.environ["TMPDIR"] = folder
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: leave())
    # Ctrl-C on this machine reaches all of its processes; whoever waits ends this one by ending its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    last = {"kind": "end"}
    try:
        job = json.loads(sys.stdin.buffer.readline())
        receive(job["files"], folder)
        for task in (watch, beat):
            threading.Thread(target=task, daemon=True).start()
        work(job, folder)
    except Refused as refusal:
        last = {"kind": "error", "message": str(refusal)}
    # Each runtime has exceptions of its own, and whatever they are, somebody is waiting to hear of them.
    except Exception as error:
        last = {"kind": "error", "message": (str(error).strip() or type(error).__name__).splitlines()[-1]}
    # Who hears the last word may rely on nothing being left.
    shutil.rmtree(folder, ignore_errors=True)
    tell(**last)
    return int(last["kind"] == "error")


if __name__ == "__main__":
    # Threads that wait for input are not waited for.
    os._exit(main(sys.argv[1]))
