"""One network in every format: size, parity, PSNR on a benchmark, and latency with how it came about.

    python benchmarks/export_formats.py RUN --data Set5/ [--size 128x128] [--rounds 20]

Latencies are of images of `--size`, one thread, all files in turns; what this machine only emulates has none. A
format whose extra is not installed is left out, and said to be.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnxruntime

from hwnas import pipeline
from hwnas.config import load_config
from hwnas.devices.target import load_target
from hwnas.errors import HwnasError
from hwnas.exporters import EXPORTERS, ExportOptions
from hwnas.exporters.artifact import Artifact
from hwnas.exporters.openvino import OpenVinoArtifact
from hwnas.exporters.runtime import OnnxArtifact
from hwnas.exporters.vela import compile_tflite
from hwnas.progress import Silent
from hwnas.run_directory import RunDirectory
from hwnas.sizes import parse_size


@dataclass(frozen=True)
class Row:
    """A format of the table."""

    label: str
    target: str
    format: str
    precision: str | None = None
    pack_int4: bool = False
    measured: bool = True


ROWS = (
    Row("ONNX, float", "cpu", "onnx", "fp32"),
    Row("ONNX, as trained", "cpu", "onnx"),
    Row("ONNX, 4-bit weights packed", "cpu", "onnx", pack_int4=True),
    Row("OpenVINO, float", "openvino-cpu", "openvino", "fp32"),
    Row("OpenVINO, as trained", "openvino-cpu", "openvino"),
    Row("QNN context", "snapdragon", "qnn", measured=False),
    Row("TFLite, float", "android", "tflite", "fp32"),
    Row("TFLite, int8", "android", "tflite"),
)


class OneThread(OnnxArtifact):
    """ONNX Runtime with default options and one thread."""

    def _open(self, path: Path, optimised: bool) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def opened(row: Row, path: Path) -> Artifact:
    """The file on one thread."""
    if row.format == "onnx":
        return OneThread(path)
    return OpenVinoArtifact(path, threads=1) if row.format == "openvino" else EXPORTERS[row.format].open(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--size", type=parse_size, default=(128, 128))
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    run = RunDirectory(arguments.run)
    settings = load_config(run.config)
    photographs = pipeline.load_data(settings, pipeline.trained_scale(run), Silent())
    reports, artifacts, estimates = {}, {}, []
    with tempfile.TemporaryDirectory() as folder:
        for i, row in enumerate(ROWS):
            suffix = EXPORTERS[row.format].suffix
            options = ExportOptions(size=arguments.size, pack_int4=row.pack_int4)
            path = Path(folder) / f"{i}{suffix}"
            request = pipeline.ExportRequest(path, row.format, row.precision, options, benchmark=arguments.data)
            try:
                target = settings.model_copy(update={"target": row.target})
                reports[row] = pipeline.export(target, run, photographs, request, Silent())
            except HwnasError as error:
                print(f"left out: {row.label}: {error}")
                continue
            if row.measured:
                artifacts[row] = opened(row, path)
            if row.label == "TFLite, int8":
                for name in ("ethos-u65", "ethos-u85"):
                    found = compile_tflite(path, load_target(name), Path(folder) / f"{name}.tflite")
                    estimates.append(f"{found.estimated_ms:.1f} ms on {found.accelerator}")
        x = np.random.default_rng(0).integers(0, 256, (1, 3, *arguments.size)).astype(np.float32) / 255
        times: dict[Row, list[float]] = {row: [] for row in artifacts}
        for _ in range(arguments.rounds + 1):
            for row, artifact in artifacts.items():
                begin = time.perf_counter()
                artifact.run(x)
                times[row].append(time.perf_counter() - begin)
    height, width = arguments.size
    print(f"\n| format | kB | parity, mean and most | PSNR dB | ms at {height}x{width}, one thread |")
    print("|---|---|---|---|---|")
    if not reports:
        raise SystemExit("none of the formats could be written")
    for row, report in reports.items():
        parity = f"{report.parity.mean:.2g}, {report.parity.maximum:.2g}"
        latency = "not measured: emulated"
        if row in times:
            kept = sorted(times[row][1:])
            latency = f"{statistics.median(kept) * 1e3:.1f} ({kept[0] * 1e3:.1f} to {kept[-1] * 1e3:.1f}), measured"
        print(f"| {row.label} | {report.size_bytes / 1000:.0f} | {parity} | {report.scores.artifact:.2f} | {latency} |")
    scores = next(iter(reports.values())).scores
    print(
        f"\n{scores.images} images; bicubic {scores.bicubic:.2f} dB, torch "
        + ", ".join(
            f"{row.label} {report.scores.torch:.2f} dB" for row, report in reports.items() if row.format == "onnx"
        )
    )
    if estimates:
        print(f"vendor-estimated by Vela: {', '.join(estimates)}")


if __name__ == "__main__":
    main()
