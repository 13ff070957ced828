"""``hwnas export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options


def export(
    network: Annotated[str, typer.Argument(metavar="RUN", help="A run that has been trained.")],
    fp32: Annotated[bool, options.flag("--fp32", "In float.")] = False,
    int8: Annotated[bool, options.flag("--int8", "Every convolution in 8-bit integers.")] = False,
    mixed: Annotated[bool, options.flag("--mixed", "Each layer at the bits it was trained at.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write.", show_default="RUN/model.onnx")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Photographs to verify and calibrate with.", show_default="the run's"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Write ONNX, run it in ONNX Runtime on real crops, and hold it against torch; fails if they differ.

    Without --fp32, --int8 or --mixed the network is written as it was trained.

    Examples:

      hwnas export runs/quantnas-cpu-5GBitOps --mixed -o model.onnx

      hwnas export runs/float --int8
    """
    from hwnas import pipeline
    from hwnas.cli.console import progress
    from hwnas.config import load_config
    from hwnas.errors import UsageError
    from hwnas.run_directory import RunDirectory

    asked = [name for name, wanted in (("fp32", fp32), ("int8", int8), ("mixed", mixed)) if wanted]
    if len(asked) > 1:
        raise UsageError(f"choose one of --{' and --'.join(asked)}")
    directory = RunDirectory(Path(network))
    if not directory.exists:
        raise UsageError(f"{network} is no run; train one with `hwnas train`")
    path = output or directory.onnx
    if path.suffix != ".onnx":
        raise UsageError(f"{path}: the file's name must end in .onnx")
    settings = load_config(directory.config)
    if data is not None:
        settings = settings.model_copy(update={"data": data})
    scale = pipeline.trained_scale(directory)
    with progress() as tell:
        if left := pipeline.epochs_left(settings, directory):
            tell.say(f"{directory.path}: {left} epochs of its training are left; hwnas train {directory.path} --resume")
        photographs = pipeline.load_data(settings, scale, tell)
        how, summary, parity = pipeline.export(settings, directory, photographs, asked[0] if asked else None, path)
        result = pipeline.evaluate_validation(path, photographs)
    if json:
        import json as encoder
        from dataclasses import asdict

        print(
            encoder.dumps(
                {
                    "path": str(path),
                    "how": how,
                    **asdict(summary),
                    "parity": asdict(parity),
                    "validation_psnr": result.psnr,
                }
            )
        )
        return
    typer.echo(
        f"{path}: {summary.size_bytes / 1000:.0f} kB, opset {summary.opset}, "
        f"{summary.quantised_convolutions} integer and {summary.float_convolutions} float convolutions\n"
        f"  {how}\n"
        f"  against torch on {parity.crops} real crops: {parity.mean:.2g} grey levels mean, "
        f"{parity.maximum:.2g} at most (allowed {parity.tolerance_mean:.2g} and {parity.tolerance_max:g})\n"
        f"  held-out photographs in ONNX Runtime: {result.psnr:.2f} dB, bicubic {result.bicubic_psnr:.2f} dB"
    )
