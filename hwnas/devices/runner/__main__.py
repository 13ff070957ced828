"""``python -m runner FOLDER``, with the job on standard input."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Callable, Dict, List, Sequence

from .common import Job, Refused, Runtime, expect_within, hangs, kill_child, tell
from .machine import clock_khz, fingerprint, resident_bytes
from .runtimes import LiteRt, OnnxRuntime, OpenVino
from .timing import time_all
from .trtexec import TensorRt

HEARTBEAT = 2.0
"""Seconds between signs of life."""

LOAD_SECONDS, FIRST_SECONDS, ROUND_SECONDS = 1800.0, 600.0, 60.0
"""How long it is waited for a network to be loaded, which TensorRT builds then; for the first round; and for each after
it, unless `LONGER` times as long as the longest so far is more."""

LONGER = 20.0

RUNTIMES: Dict[str, Callable[[Job, str], Runtime]] = {
    "onnxruntime": OnnxRuntime,
    "qnn": OnnxRuntime,
    "openvino": OpenVino,
    "litert": LiteRt,
    "tensorrt": TensorRt,
}


def work(job: Job, folder: str) -> None:
    """Do the job and tell what is found."""
    patience = job["patience"]
    expect_within(patience * FIRST_SECONDS)
    if job["runtime"] not in RUNTIMES:
        raise Refused(f"the runner knows no runtime {job['runtime']!r}; it knows {', '.join(RUNTIMES)}")
    runtime = RUNTIMES[job["runtime"]](job, folder)
    tell(
        kind="device",
        fingerprint=fingerprint(job, runtime.version),
        python=platform.python_version(),
        free_bytes=shutil.disk_usage(folder).free,
    )
    if not job["models"]:
        return
    before, loaded = resident_bytes(), {}
    for name in dict.fromkeys(job["models"]):
        expect_within(patience * LOAD_SECONDS)
        loaded[name] = runtime.load(os.path.join(folder, name))
    models = [loaded[name] for name in job["models"]]
    longest, before_it = 0.0, 0.0

    def told(_: int, spent: float) -> None:
        nonlocal longest, before_it
        longest, before_it = max(longest, spent - before_it), spent
        expect_within(max(patience * ROUND_SECONDS, LONGER * longest))
        tell(kind="round")

    expect_within(patience * FIRST_SECONDS)
    samples = time_all(models, job, told)
    clock, most = clock_khz(), resident_bytes(most=True)
    alone = len(loaded) == 1 and job["runtime"] != "tensorrt" and most is not None and before is not None
    for i, model in enumerate(models):
        expect_within(patience * FIRST_SECONDS)
        tell(
            kind="model",
            rounds_ms=samples[i],
            clock_khz=clock,
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
                with suppress(FileNotFoundError):  # as all is done
                    os.utime(folder)  # so that nobody takes it for one that was left behind
                if hangs():
                    tell(kind="error", message="it hangs: an inference, or what comes before it, does not end")
                    leave()
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
        # Files may take long to come, and it lives meanwhile.
        threading.Thread(target=beat, daemon=True).start()
        job = json.loads(sys.stdin.buffer.readline())
        receive(job["files"], folder)
        threading.Thread(target=watch, daemon=True).start()
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
