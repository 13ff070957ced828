"""TensorRT through trtexec, which comes with it and builds the engine on the device itself."""

from __future__ import annotations

import json
import os
import re
import shutil
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .common import LAYER_RUNS, Job, Layer, Model, Refused, Runtime, run

MOST = 200
"""Inferences of one turn that are told; trtexec does as many as a second has."""

PLACES = ("trtexec", "/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")


class TensorRt(Runtime):
    """The program and its version."""

    def __init__(self, job: Job, folder: str) -> None:
        if job["provider"] != "tensorrt":
            raise Refused(f"trtexec computes on provider tensorrt only, not on {job['provider']}")
        self.job, self.folder = job, folder
        found = [path for path in map(shutil.which, PLACES) if path]
        if not found:
            raise Refused("trtexec is not there, neither in PATH nor in /usr/src/tensorrt/bin; install TensorRT")
        self.trtexec = found[0]
        self.version = parse_version(run([self.trtexec, "--help"]))

    def load(self, path: str) -> Model:
        return TensorRtModel(self, path)


class TensorRtModel(Model):
    """An engine, built unless it is given."""

    def __init__(self, runtime: TensorRt, path: str) -> None:
        self.engine = path if path.endswith(".engine") else path + ".engine"
        self.times, self.profile = self.engine + ".times", self.engine + ".profile"
        if self.engine != path and int(runtime.version.split(".")[0]) < 10:
            raise Refused(
                f"TensorRT {runtime.version} there does not keep to the types of a graph, as 10 and later do; install "
                "TensorRT 10, or give an engine"
            )
        height, width = runtime.job["size"]
        name = runtime.job["open_inputs"].get(os.path.basename(path))
        shapes = [] if name is None else [f"--shapes={name}:1x3x{height}x{width}"]
        if self.engine != path:
            cache = os.path.join(runtime.folder, "timing.cache")
            build = ["--stronglyTyped", "--skipInference", f"--saveEngine={self.engine}", f"--timingCacheFile={cache}"]
            run([runtime.trtexec, f"--onnx={path}", *shapes, *build])
        self.size = height, width
        self.command = [runtime.trtexec, f"--loadEngine={self.engine}", *shapes, "--noDataTransfers", "--useSpinWait"]

    def samples(self) -> List[float]:
        said = run([*self.command, f"--exportTimes={self.times}", "--warmUp=200", "--duration=1", "--iterations=10"])
        if (taken := parse_size(said)) not in (None, self.size):
            raise Refused("the file takes images of {0}x{1} only; time it with --input-size {0}x{1}".format(*taken))
        with open(self.times) as file:
            return parse_times(json.load(file))

    def layers(self) -> List[Layer]:
        run([*self.command, "--dumpProfile", f"--exportProfile={self.profile}", f"--iterations={LAYER_RUNS}"])
        with open(self.profile) as file:
            return parse_profile(json.load(file))


def parse_version(text: str) -> str:
    """``10.13.0`` of ``&&&& RUNNING TensorRT.trtexec [TensorRT v101300]``, as it is printed first; 8.6.1 of v8601.

    Raises:
        Refused: if there is no such thing.
    """
    found = re.search(r"\[TensorRT v(\d+)\]", text)
    if found is None:
        raise Refused("trtexec does not say which TensorRT it is of")
    # Two digits each since TensorRT 10; before, one for the first, one for the second, two for the third.
    number = int(found[1])
    first = 10000 if number >= 100000 else 1000
    rest = number % first
    return f"{number // first}.{rest // 100}.{rest % 100}"


def parse_size(text: str) -> Optional[Tuple[int, int]]:
    """Height and width of ``Input binding for lr with dimensions 1x3x180x320 is created.``; None if it is not said."""
    found = re.search(r"Input binding for \S+ with dimensions \d+x\d+x(\d+)x(\d+) is created", text)
    return (int(found[1]), int(found[2])) if found else None


def parse_times(trace: Sequence[Dict[str, Any]]) -> List[float]:
    """Milliseconds on the GPU of the last inferences in ``--exportTimes``, at most `MOST`.

    Raises:
        Refused: if there are none.
    """
    found = [float(row["computeMs"]) for row in trace if "computeMs" in row]
    if not found:
        raise Refused("trtexec has exported no times; this release of it may be too new")
    return found[-MOST:]


def parse_profile(profile: Sequence[Dict[str, Any]]) -> List[Layer]:
    """Layers of ``--exportProfile``, whose first row is a count."""
    return [{"name": row["name"], "kind": "", "ms": float(row["averageMs"])} for row in profile if "name" in row]
