"""The runtimes that are Python packages: ONNX Runtime, OpenVINO, LiteRT."""

from __future__ import annotations

import json
import os
import platform
import time
from abc import abstractmethod
from typing import Any, List, Optional, Sequence, Tuple

from .common import LAYER_RUNS, Job, Layer, Model, Refused, Runtime
from .timing import medians

WARM_UP = 3
"""Inferences before any are timed."""


class TimedModel(Model):
    """A network that is run by a call."""

    def warm_up(self) -> None:
        for _ in range(WARM_UP):
            self.infer()

    def samples(self) -> List[float]:
        # In turn with others, what these have left in the caches is not to be timed: it is worth a third of the time.
        self.infer()
        started = time.perf_counter()
        self.infer()
        return [(time.perf_counter() - started) * 1e3]

    @abstractmethod
    def infer(self) -> None:
        """One inference."""


def image(shape: Sequence[Any], kind: str, size: Tuple[int, int]) -> Any:
    """Random pixels; the height and width that are open, and they alone, are those of ``size``."""
    import numpy

    last = (1, 3, size[0], size[1])
    full = [side if isinstance(side, int) and side > 0 else last[i] for i, side in enumerate(shape)]
    if len(full) != 4 or 3 not in (full[1], full[3]):
        raise Refused(f"a network that takes {full} is none of super-resolution")
    height, width = full[2:] if full[1] == 3 else full[1:3]
    if (height, width) != tuple(size):
        raise Refused(f"the file takes images of {height}x{width} only; time it with --input-size {height}x{width}")
    generator = numpy.random.default_rng(0)
    if kind in ("uint8", "int8"):
        return generator.integers(0, 128, full).astype(kind)
    return generator.random(full).astype("float16" if kind == "float16" else "float32")


PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "qnn": "QNNExecutionProvider",
}


class OnnxRuntime(Runtime):
    """ONNX Runtime, on the provider that the target names and on no other."""

    def __init__(self, job: Job, folder: str) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise Refused("ONNX Runtime is not installed there; pip install onnxruntime") from None
        self.onnxruntime, self.job, self.folder = onnxruntime, job, folder
        self.version = onnxruntime.__version__
        self.provider = PROVIDERS.get(job["provider"], job["provider"])
        there = onnxruntime.get_available_providers()
        if self.provider not in there:
            raise Refused(f"the ONNX Runtime there has no {self.provider}; it has {', '.join(there)}")
        if job["provider"] == "qnn" and platform.machine() in ("x86_64", "AMD64"):
            raise Refused("QNN emulates the HTP on this processor: its time says nothing of the device's")

    def session(self, path: str, profile: Optional[str] = None) -> Any:
        """An inference session; ``profile`` is the beginning of the name that a profile gets."""
        options = self.onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.job["threads"]
        options.log_severity_level = 4
        # Threads of the networks whose turn it is not would spin for a while, on the cores of the one whose it is.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Processors without VNNI saturate sums of 8-bit products unless told not to; see hwnas.exporters.runtime.
        options.add_session_config_entry("session.x64quantprecision", "1")
        if self.job["provider"] != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        session = self.onnxruntime.InferenceSession(path, options, providers=[self.provider])
        # One that lacks a library is left out with a warning, and the next one taken.
        if session.get_providers()[0] != self.provider:
            raise Refused(f"{self.provider} cannot be started there; it would compute on {session.get_providers()[0]}")
        return session

    def load(self, path: str) -> Model:
        return OnnxModel(self, path)


class OnnxModel(TimedModel):
    """A session with its input."""

    def __init__(self, runtime: OnnxRuntime, path: str) -> None:
        self.runtime, self.path = runtime, path
        self.session = runtime.session(path)
        self.binding = self.bound(self.session)

    def bound(self, session: Any) -> Any:
        """Input and outputs where they are computed, so that no copy to or from a GPU is timed; nor does trtexec."""
        memory = "cuda" if self.runtime.job["provider"] in ("cuda", "tensorrt") else "cpu"
        (port,) = session.get_inputs()
        pixels = image(port.shape, port.type[len("tensor(") : -1], self.runtime.job["size"])
        binding = session.io_binding()
        value = self.runtime.onnxruntime.OrtValue.ortvalue_from_numpy(pixels, memory, 0)
        binding.bind_ortvalue_input(port.name, value)
        for output in session.get_outputs():
            binding.bind_output(output.name, memory)
        return binding

    def infer(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def layers(self) -> List[Layer]:
        if self.runtime.job["provider"] != "cpu":
            return []  # elsewhere ONNX Runtime tells how long starting a kernel takes
        session = self.runtime.session(self.path, os.path.join(self.runtime.folder, "profile"))
        binding = self.bound(session)
        for _ in range(WARM_UP + LAYER_RUNS):
            session.run_with_iobinding(binding)
        with open(session.end_profiling()) as file:
            events = json.load(file)
        end = "_kernel_time"
        return medians(
            [
                (event["name"][: -len(end)], event["args"].get("op_name", ""), event["dur"] / 1e3)
                for event in events
                if event.get("cat") == "Node" and event["name"].endswith(end)
            ]
        )


class OpenVino(Runtime):
    """OpenVINO, on the device that the target names."""

    def __init__(self, job: Job, folder: str) -> None:
        # It sends statistics from a process that it forks, which never ends where there are threads; but not from CI.
        os.environ["CI"] = "true"
        try:
            import openvino
        except ImportError:
            raise Refused("OpenVINO is not installed there; pip install openvino") from None
        self.core, self.job = openvino.Core(), job
        self.version = openvino.__version__.split("-")[0]
        self.device = job["provider"].upper()
        there = self.core.available_devices
        if self.device not in there:
            raise Refused(f"the OpenVINO there finds no {self.device}; it finds {', '.join(there) or 'nothing'}")

    def load(self, path: str) -> Model:
        return OpenVinoModel(self, path)


class OpenVinoModel(TimedModel):
    """A compiled model with its input."""

    def __init__(self, runtime: OpenVino, path: str) -> None:
        self.runtime, self.model = runtime, runtime.core.read_model(path)
        (port,) = self.model.inputs
        shape = [side.get_length() if side.is_static else None for side in port.partial_shape]
        self.feed = [image(shape, "uint8" if port.element_type.to_string() == "u8" else "f32", runtime.job["size"])]
        # For one size: neural processors take no other, and it is what a camera has.
        self.model.reshape(list(self.feed[0].shape))
        self.request = self._request("NO")

    def _request(self, count: str) -> Any:
        settings = {"PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": count}
        if self.runtime.device == "CPU":
            # Left to itself it computes float layers in bfloat16 where the processor has it.
            settings.update(INFERENCE_NUM_THREADS=self.runtime.job["threads"], INFERENCE_PRECISION_HINT="f32")
        return self.runtime.core.compile_model(self.model, self.runtime.device, settings).create_infer_request()

    def infer(self) -> None:
        self.request.infer(self.feed)

    def layers(self) -> List[Layer]:
        request, rows = self._request("YES"), []
        for _ in range(WARM_UP + LAYER_RUNS):
            request.infer(self.feed)
            rows += [
                (layer.node_name, layer.node_type, layer.real_time.total_seconds() * 1e3)
                for layer in request.profiling_info
                if layer.real_time.total_seconds() > 0
            ]
        return medians(rows)


class LiteRt(Runtime):
    """LiteRT, on the processor."""

    def __init__(self, job: Job, folder: str) -> None:
        if job["provider"] != "cpu":
            raise Refused(f"LiteRT is timed on provider cpu only, not on {job['provider']}")
        try:
            import ai_edge_litert
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise Refused("LiteRT is not installed there; pip install ai-edge-litert") from None
        self.interpreter, self.job, self.version = Interpreter, job, ai_edge_litert.__version__

    def load(self, path: str) -> Model:
        return LiteRtModel(self, path)


class LiteRtModel(TimedModel):
    """An interpreter with its input; it does not tell of its layers."""

    def __init__(self, runtime: LiteRt, path: str) -> None:
        self.interpreter = runtime.interpreter(model_path=path, num_threads=runtime.job["threads"])
        self.interpreter.allocate_tensors()
        (port,) = self.interpreter.get_input_details()
        shape = [int(side) for side in port["shape"]]
        self.interpreter.set_tensor(port["index"], image(shape, port["dtype"].__name__, runtime.job["size"]))

    def infer(self) -> None:
        self.interpreter.invoke()
