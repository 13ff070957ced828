"""``hwnas compile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options


def compile(
    model: Annotated[Path, typer.Argument(metavar="FILE.tflite", help="What to compile, in int8.")],
    target: Annotated[str, typer.Option("--target", help="ethos-u65 or ethos-u85.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write.", show_default="FILE-TARGET.tflite")
    ] = None,
    json: options.Json = False,
) -> None:
    """Compile for a processor that needs it; fails if an operation would run on the CPU beside it.

    The time is the vendor's estimate, never measured.

    Examples:

      hwnas export runs/mine --target ethos-u65 --input-size 180x320

      hwnas compile runs/mine/model.tflite --target ethos-u65
    """
    from dataclasses import asdict

    from hwnas.devices.target import load_target
    from hwnas.exporters.vela import compile_tflite

    chosen = load_target(target)
    path = output or model.with_name(f"{model.stem}-{chosen.name}.tflite")
    found = compile_tflite(model, chosen, path)
    if json:
        import json as encoder

        print(encoder.dumps({**asdict(found), "path": str(path), "method": "vendor-estimated"}))
        return
    typer.echo(
        f"{path}: {len(found.operations)} operations, all on {found.accelerator}\n"
        f"  {found.estimated_ms:.3g} ms an image (vendor-estimated), {found.macs / 1e6:,.0f} M multiply-accumulates, "
        f"{found.sram_bytes / 1024:.0f} KiB of SRAM"
    )
