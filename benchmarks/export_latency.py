"""How fast the integers are: the exported network against its float twin, in ONNX Runtime and OpenVINO on the CPU.

One thread, images of 180x320, all files take turns in one process, so that a machine that is slow for a while is slow
for all; medians and ratios are what counts. The reference is a plain residual network of 36 channels, of 5 GMACs;
others are runs, or names of published networks, whose weights do not matter.

    python benchmarks/export_latency.py [RUN|ARCH.json|NAME ...] [--rounds 20]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Literal

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from hwnas.architecture import Architecture
from hwnas.cost_models import cost_model
from hwnas.data.bundled import bundled_images
from hwnas.data.degradation import downscale
from hwnas.exporters.onnx import export_onnx
from hwnas.exporters.profiles import PROFILES
from hwnas.inference import to_tensor
from hwnas.networks.adadm import Add, freeze_normalisation
from hwnas.networks.wiring import WIRINGS, MakeOperator, Slot, Wiring
from hwnas.operators import OperatorSpec
from hwnas.operators.edge import Edge
from hwnas.operators.layers import FloatLayers
from hwnas.quantization.brevitas_layers import build_quantised, calibrate
from hwnas.spaces.lookup import find_architecture

SIZE = (180, 320)
CPU = PROFILES["onnxruntime-cpu"]


@WIRINGS.register("benchmark-residual")
class ResidualWiring(Wiring):
    """A head, blocks of two convolutions with a residual, and a shuffle."""

    kind: Literal["benchmark-residual"] = "benchmark-residual"
    channels: int = 36
    blocks: int = 3

    @property
    def slots(self) -> tuple[Slot, ...]:
        c = self.channels
        blocks = [Slot(f"block.{i}.{j}", c, c) for i in range(self.blocks) for j in range(2)]
        return (Slot("head", 3, c), *blocks, Slot("pixels", c, 3 * self.scale**2))

    def build(self, make: MakeOperator) -> nn.Module:
        head, *blocks, pixels = (make(slot) for slot in self.slots)
        pairs = [Add(nn.Sequential(a, b, Edge())) for a, b in zip(blocks[::2], blocks[1::2], strict=True)]
        return nn.Sequential(head, Edge(), *pairs, pixels, Edge(), nn.PixelShuffle(self.scale))


def reference(bits: int) -> Architecture:
    """The residual network, all 3x3, with biases."""
    wiring = ResidualWiring()
    operators = {
        slot.name: OperatorSpec(
            kind="conv",
            in_channels=slot.in_channels,
            out_channels=slot.out_channels,
            bias=True,
            weight_bits=bits,
            activation_bits=bits,
        )
        for slot in wiring.slots
    }
    return Architecture(name=f"reference-{bits}bit", wiring=wiring, operators=operators)


def write(architecture: Architecture, folder: Path, image: Tensor) -> dict[str, Path]:
    """The network in integers and in float."""
    torch.manual_seed(0)
    quantised = build_quantised(architecture, placement=CPU.placement)
    calibrate(quantised, [image])
    networks = {"integer": quantised, "float": architecture.with_bits(32).build(FloatLayers()).eval()}
    paths = {}
    for name, network in networks.items():
        freeze_normalisation(network)
        paths[name] = folder / f"{architecture.name}-{name}.onnx"
        export_onnx(network, paths[name], image, {}, CPU)
    return paths


class OnnxRuntime:
    """One thread, and how it computes the network."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        optimised = path.with_suffix(".optimised")
        options.optimized_model_filepath = str(optimised)
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.operations = Counter(node.op_type for node in onnx.load(optimised).graph.node)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self._session.run(None, {"lr": x})[0]


class OpenVino:
    """One thread."""

    def __init__(self, path: Path) -> None:
        import openvino

        model = openvino.Core().read_model(path)
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = openvino.Core().compile_model(model, "CPU", settings)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._compiled(x)[0])


def runtimes() -> dict[str, type]:
    """Those that are installed."""
    found: dict[str, type] = {"ONNX Runtime": OnnxRuntime}
    try:
        import openvino  # noqa: F401
    except ImportError:
        print("OpenVINO is not installed, and left out: pip install 'hwnas[openvino]'")
        return found
    return {**found, "OpenVINO": OpenVino}


def measure(architecture: Architecture, rounds: int) -> None:
    """A row for each runtime."""
    photograph = bundled_images()[1][0][1]
    image = to_tensor(downscale(photograph[:240, :240], 4))
    x = np.random.default_rng(0).integers(0, 256, (1, 3, *SIZE)).astype(np.float32) / 255
    macs = cost_model("flops").architecture_cost(architecture, SIZE).value
    with tempfile.TemporaryDirectory() as folder:
        paths = write(architecture, Path(folder), image)
        run = {(r, n): make(path) for r, make in runtimes().items() for n, path in paths.items()}
        times: dict[tuple[str, str], list[float]] = {key: [] for key in run}
        for _ in range(rounds + 1):
            for key, session in run.items():
                begin = time.perf_counter()
                session(x)
                times[key].append(time.perf_counter() - begin)
    print(f"\n{architecture.name}, {macs / 1e9:.2f} GMACs at {SIZE[0]}x{SIZE[1]}, {rounds} rounds after one")
    for runtime in runtimes():
        integer, real = (sorted(times[runtime, name][1:]) for name in ("integer", "float"))
        ratio = statistics.median(integer) / statistics.median(real)
        spread = [f"{statistics.median(t) * 1e3:.0f} ({t[0] * 1e3:.0f} to {t[-1] * 1e3:.0f})" for t in (integer, real)]
        print(
            f"  {runtime}: integers {spread[0]} ms, float {spread[1]} ms, ratio {ratio:.2f}, of the fastest "
            f"{integer[0] / real[0]:.2f}"
        )
    operations = run["ONNX Runtime", "integer"].operations
    print("  ONNX Runtime computes", ", ".join(f"{count} {name}" for name, count in operations.most_common()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="RUN|ARCH.json|NAME")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    for bits in (8, 4):
        measure(reference(bits), arguments.rounds)
    for name in arguments.networks:
        found = find_architecture(name)
        measure(found if found.is_quantised else found.with_bits(8), arguments.rounds)


if __name__ == "__main__":
    main()
