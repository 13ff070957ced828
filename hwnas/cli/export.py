"""``hwnas export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options


def export(
    network: Annotated[str, typer.Argument(metavar="RUN", help="A run that has been trained.")],
    fp32: Annotated[bool, options.flag("--fp32", "In float.")] = False,
    fp16: Annotated[bool, options.flag("--fp16", "In 16-bit float.")] = False,
    int8: Annotated[bool, options.flag("--int8", "Every convolution in 8-bit integers.")] = False,
    mixed: Annotated[bool, options.flag("--mixed", "Each layer at the bits it was trained at.")] = False,
    target: Annotated[
        str | None,
        typer.Option("--target", help=f"Device the file is for: {options.TARGETS}.", show_default="the run's"),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", help="Kind of file: coreml, onnx, openvino, qnn, tensorrt, tflite.", show_default="the target's"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write.", show_default="RUN/model, and the format's ending"),
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size",
            metavar="HxW",
            help="Take low-resolution images of this size only; tflite, qnn and coreml files have to.",
        ),
    ] = None,
    uint8_io: Annotated[bool, options.flag("--uint8-io", "Images of bytes in and out.")] = False,
    pack_int4: Annotated[bool, options.flag("--pack-int4", "Store weights of 4 bits and fewer two in a byte.")] = False,
    freeze_adadm: Annotated[
        bool, options.flag("--freeze-adadm", "AdaDM takes the statistics of training, and what that costs is measured.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder of images to score on.", show_default="the run's held-out photographs"),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option("--calibration", help="Photographs to calibrate and verify with.", show_default="the run's"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write a file for a target, run it, and hold it against torch; fails if they differ.

    Without --fp32, --fp16, --int8 or --mixed the network is written as it was trained. What was measured on the file
    is left beside it, in FILE.json.

    Examples:

      hwnas export runs/quantnas-cpu-5GBitOps --mixed -o model.onnx --data Set5/

      hwnas export runs/float --int8 --target openvino-cpu

      hwnas export runs/mine --target snapdragon --format onnx --input-size 180x320
    """
    from hwnas import pipeline
    from hwnas.cli.console import progress
    from hwnas.config import load_config
    from hwnas.devices.target import load_target
    from hwnas.errors import UsageError
    from hwnas.exporters import EXPORTERS, ExportOptions
    from hwnas.exporters.base import exporter_of
    from hwnas.run_directory import RunDirectory
    from hwnas.sizes import parse_size

    precisions = {"fp32": fp32, "fp16": fp16, "int8": int8, "mixed": mixed}
    asked = [name for name, wanted in precisions.items() if wanted]
    if len(asked) > 1:
        raise UsageError(f"choose one of --{' and --'.join(asked)}")
    directory = RunDirectory(Path(network))
    if not directory.exists:
        raise UsageError(f"{network} is no run; train one with `hwnas train`")
    settings = load_config(directory.config)
    changes = {"target": target, "data": calibration}
    settings = settings.model_copy(update={key: value for key, value in changes.items() if value is not None})
    chosen = format or load_target(settings.target).artifact
    exporter = EXPORTERS[chosen]
    path = output or directory.path / f"model{exporter.suffix}"
    # What is opened later is told by its name.
    if not path.name.endswith(exporter.suffix) or exporter_of(path) is not exporter:
        other = "; for the graph alone, add --format onnx" if path.suffix == ".onnx" and chosen != "onnx" else ""
        raise UsageError(f"{path}: the name of a file of format {chosen} must end in {exporter.suffix}{other}")
    request = pipeline.ExportRequest(
        path=path,
        format=chosen,
        precision=asked[0] if asked else None,
        options=ExportOptions(
            size=None if input_size is None else parse_size(input_size), takes_bytes=uint8_io, pack_int4=pack_int4
        ),
        freeze_adadm=freeze_adadm,
        benchmark=data,
    )
    with progress() as tell:
        if left := pipeline.epochs_left(settings, directory):
            tell.say(f"{directory.path}: {left} epochs of its training are left; hwnas train {directory.path} --resume")
        photographs = pipeline.load_data(settings, pipeline.trained_scale(directory), tell)
        report = pipeline.export(settings, directory, photographs, request, tell)
    if json:
        import json as encoder

        print(encoder.dumps(report.as_json()))
        return
    scores = report.scores
    unquantised = "" if scores.torch_float is None else f"{scores.torch_float:.2f} dB without quantisers, "
    found = "" if scores.artifact is None else f"{scores.artifact:.2f} dB in {report.runtime}, "
    lines = [
        f"{path}: {report.size_bytes / 1000:.0f} kB, for {report.target}",
        f"  {report.how}",
        *(f"  {note}" for note in report.notes),
        *([] if report.parity is None else [f"  against torch: {report.parity}"]),
        f"  PSNR on {scores.images} images: {unquantised}{scores.torch:.2f} dB in torch, {found}"
        f"bicubic {scores.bicubic:.2f} dB",
    ]
    typer.echo("\n".join(lines))
