"""``hwnas train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options


def train(
    network: Annotated[str, typer.Argument(metavar="RUN|ARCH.json|NAME", help="What to train.")],
    data: options.Data = None,
    scale: options.Scale = None,
    preset: options.Preset = None,
    out: options.Out = None,
    resume: options.Resume = False,
    seed: options.Seed = None,
    bits: Annotated[int | None, typer.Option("--bits", help="Every layer at this width; 32 for float.")] = None,
    bicubic: options.Bicubic = None,
    activations: Annotated[
        str | None,
        typer.Option("--activations", help="Activation quantiser: learned or hwgq.", show_default="learned"),
    ] = None,
    crop: options.Crop = None,
    config: options.ConfigFile = None,
    assignments: options.Set = None,
    json: options.Json = False,
) -> None:
    """Train from scratch, quantisation-aware where the architecture has bits.

    A run is trained in its own folder and with its own settings; anything else in a new one.

    Examples:

      hwnas train runs/quantnas-cpu-5GBitOps

      hwnas train espcn --bits 8 --data photos/ --preset small
    """
    from hwnas import pipeline
    from hwnas.cli.console import progress
    from hwnas.cli.resolve import resolve_architecture
    from hwnas.cli.runs import open_run
    from hwnas.config import load_config, make_config
    from hwnas.errors import UsageError
    from hwnas.run_directory import RunDirectory

    given = options.training_settings(
        data=data,
        scale=scale,
        preset=preset,
        seed=seed,
        bicubic=bicubic,
        activations=activations,
        crop=crop,
        config=config,
        assignments=assignments,
    )
    if Path(network).is_dir() and (out is None or out == Path(network)):
        directory = RunDirectory(Path(network))
        architecture = resolve_architecture(network)
        saved = load_config(directory.config)
        settings = make_config([saved.model_dump(mode="json"), *given[0 if preset else 1 :]])
        if bits is not None or (settings != saved and directory.weights.exists()):
            raise UsageError(f"{network} has settings of its own; train {directory.architecture} with another --out")
        if directory.weights.exists() and not resume:
            raise UsageError(f"{network} is trained already, or in part; go on with --resume, or give another --out")
        settings.save(directory.config)
    else:
        wanted = make_config(given)
        architecture = resolve_architecture(network, wanted.space.scale, bits, wanted.space.bicubic)
        directory, settings = open_run(out or Path("runs") / architecture.name, resume, given)
        architecture.save(directory.architecture)
    with progress() as tell:
        photographs = pipeline.load_data(settings, architecture.scale, tell)
        psnr = pipeline.train(settings, directory, photographs, tell)
    if json:
        import json as encoder

        print(encoder.dumps({"run": str(directory.path), "weights": str(directory.weights), "validation_psnr": psnr}))
        return
    typer.echo(f"{directory.weights}: validation {psnr:.2f} dB\nnext: hwnas export {directory.path}")
