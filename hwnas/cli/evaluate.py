"""``hwnas evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options


def evaluate(
    network: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE|NAME|bicubic", help="A run, a file that was exported, or an architecture with --weights."
        ),
    ],
    data: Annotated[
        Path,
        typer.Option("--data", help="Folder of high-resolution images, or with HR/ and LRx2/, LRx4/ inside."),
    ],
    scale: options.Scale = None,
    weights: options.Weights = None,
    protocol: Annotated[
        str,
        typer.Option("--protocol", help="field, or falsr: colours and bytes as in FALSR's published figures."),
    ] = "field",
    json: options.Json = False,
) -> None:
    """PSNR and SSIM on a folder of images, with bicubic enlargement beside them.

    The field's protocol: luma, borders shaved by the scale, mean over images.

    Examples:

      hwnas evaluate runs/quantnas-cpu-5GBitOps --data Set14/

      hwnas evaluate model.onnx --data photos/ --json

      hwnas evaluate falsr-a --weights FALSR-A.safetensors --data Set5/ --protocol falsr
    """
    from hwnas import evaluation
    from hwnas.cli.console import progress
    from hwnas.cli.resolve import resolve_enlarger
    from hwnas.data.images import high_resolution_images
    from hwnas.errors import UsageError
    from hwnas.inference import PublishedFALSR
    from hwnas.networks.luma import is_of_luma

    if protocol not in ("field", "falsr"):
        raise UsageError(f"no protocol is called {protocol!r}; there are: field, falsr")
    enlarger = resolve_enlarger(network, scale, weights)
    upscaler = enlarger.upscaler
    if protocol == "falsr":
        if enlarger.network is None or not is_of_luma(enlarger.network):
            raise UsageError(f"--protocol falsr is of networks of luma that torch computes, which {network} is not")
        upscaler = PublishedFALSR(enlarger.network, enlarger.scale)
    with progress() as tell:
        bar = tell.task("evaluating", len(high_resolution_images(data)))
        result = evaluation.evaluate(upscaler, data, enlarger.scale, lambda done: bar.advance())
    if json:
        import json as encoder

        print(encoder.dumps(result.as_json()))
        return
    from rich.table import Table

    from hwnas.cli.console import stdout

    how = "" if protocol == "field" else f", protocol {protocol}"
    table = Table(title=f"{network} on {data}, x{enlarger.scale}{how}")
    for column in ("image", "PSNR dB", "SSIM", "bicubic PSNR dB", "bicubic SSIM", "gain dB"):
        table.add_column(column, justify="left" if column == "image" else "right")

    def row(name: str, psnr: float, ssim: float, bicubic_psnr: float, bicubic_ssim: float) -> None:
        numbers = (f"{psnr:.2f}", f"{ssim:.4f}", f"{bicubic_psnr:.2f}", f"{bicubic_ssim:.4f}")
        table.add_row(name, *numbers, f"{psnr - bicubic_psnr:+.2f}")

    for image in result.images:
        row(image.name, image.psnr, image.ssim, image.bicubic_psnr, image.bicubic_ssim)
    table.add_section()
    row("mean", result.psnr, result.ssim, result.bicubic_psnr, result.bicubic_ssim)
    stdout.print(table)
