"""``hwnas train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options
from hwnas.cli.settings import Layers, takes_settings, training_settings

if TYPE_CHECKING:
    from hwnas.architecture import Architecture


@takes_settings(training_settings)
def train(
    layers: Layers,
    network: Annotated[str, typer.Argument(metavar="RUN|ARCH.json|NAME", help="What to train.")],
    candidate: Annotated[
        int | None,
        typer.Option("--candidate", min=0, help="Point of the run's front.csv to train, instead of the chosen one."),
    ] = None,
    bits: Annotated[int | None, typer.Option("--bits", help="Every layer at this width; 32 for float.")] = None,
    out: options.Out = None,
    resume: options.Resume = False,
    json: options.Json = False,
) -> None:
    """Train from scratch, quantisation-aware where the architecture has bits.

    A run is trained with its own settings, in its own folder unless --out names another; anything else in a new one. A
    candidate is trained with the settings of its run, in a folder beside it.

    Examples:

      hwnas train runs/quantnas-cpu-5GBitOps

      hwnas train runs/falsr-cpu-300KParams --candidate 3 --bits 8

      hwnas train espcn --bits 8 --data photos/ --preset small

      hwnas train trilevel-b --teacher esrgan --teacher-weights RRDB_ESRGAN_x4.pth
    """
    from hwnas import pipeline
    from hwnas.cli.console import progress
    from hwnas.cli.resolve import candidate_of, over_run
    from hwnas.cli.runs import new_config, open_run
    from hwnas.config import load_config, make_config, merge
    from hwnas.errors import UsageError
    from hwnas.inference import Validation
    from hwnas.run_directory import RunDirectory
    from hwnas.spaces.lookup import find_architecture, is_published

    if candidate is not None:
        network, out, layers = candidate_of(network, candidate, bits, out, layers)
    if Path(network).is_dir() and (out is None or out == Path(network)):
        directory = RunDirectory(Path(network))
        architecture = find_architecture(network)
        _require_quantisers(architecture, layers)
        saved = load_config(directory.config)
        settings = make_config(over_run(directory, layers))
        # What is not of the training says how it was searched.
        searched_otherwise = settings.model_copy(update={"train": saved.train}) != saved
        if bits is not None or searched_otherwise or (settings != saved and directory.train_state.exists()):
            raise UsageError(f"{network} has settings of its own; train it with another --out")
        if directory.weights.exists() and not resume:
            raise UsageError(f"{network} is trained already, or in part; go on with --resume, or give another --out")
        settings.save(directory.config)
    else:
        if Path(network).is_dir() and RunDirectory(Path(network)).exists:
            layers = over_run(RunDirectory(Path(network)), layers)
        if is_published(network):
            space = new_config(layers).space
            architecture = find_architecture(network, space.scale, bits, space.bicubic)
        else:
            asked = merge({}, *layers[1:]).get("space", {})
            architecture = find_architecture(network, asked.get("scale"), bits, asked.get("bicubic"))
        _require_quantisers(architecture, layers)
        made_for = {"space": {"scale": architecture.scale}}
        place = out or Path("runs") / architecture.name
        directory, settings = open_run(place, resume, (*layers, made_for), searched=False)
        if not directory.architecture.exists():
            architecture.save(directory.architecture)
        elif (there := find_architecture(str(directory.path))).fingerprint != architecture.fingerprint:
            raise UsageError(
                f"{directory.path} is of another architecture ({there.name}); go on with it by `hwnas train "
                f"{directory.path} --resume`, or train {architecture.name} with another --out"
            )
    with directory.worked_on(), progress() as tell:
        photographs = pipeline.load_data(settings, architecture.scale, tell)
        psnr = pipeline.train(settings, directory, photographs, tell)
        bicubic = Validation(photographs.validation, architecture.scale).bicubic_psnr()
    if json:
        import json as encoder

        figures = {"validation_psnr": psnr, "bicubic_psnr": bicubic}
        print(encoder.dumps({"run": str(directory.path), "weights": str(directory.weights), **figures}))
        return
    typer.echo(
        f"{directory.weights}: validation {psnr:.2f} dB, bicubic {bicubic:.2f} dB\nnext: hwnas export {directory.path}"
    )


def _require_quantisers(architecture: Architecture, layers: Layers) -> None:
    """What is said of quantisers for this training, not in a file or preset, is for a network that has them.

    Raises:
        UsageError: if it has none.
    """
    from hwnas.config import merge
    from hwnas.errors import UsageError

    said = merge({}, *layers[2:]).get("train", {})
    if said.get("activations") is not None and not architecture.is_quantised:
        raise UsageError(
            f"--activations is for quantised networks, and {architecture.name} is a float one; give a width by --bits"
        )
