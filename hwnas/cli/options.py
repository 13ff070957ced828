"""Options that several commands share, and the settings they make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hwnas.config import RunConfig
    from hwnas.devices import target as targets


def flag(name: str, help: str) -> Any:
    """A switch; typer would show ``<bool>`` beside it, as if it took a value."""
    return typer.Option(name, help=help, metavar="")


TARGETS = "android, cpu, cuda, ethos-u65, ethos-u85, jetson, openvino-cpu, openvino-npu, snapdragon, or yours"
Target = Annotated[
    str | None, typer.Option("--target", help=f"Device the network is for: {TARGETS}.", show_default="cpu")
]
For = Annotated[
    str | None,
    typer.Option("--for", help=f"Device whose integers it is trained with: {TARGETS}.", show_default="cpu"),
]
Budget = Annotated[
    list[str] | None,
    typer.Option(
        "--budget", help="Upper bound: 5GBitOps, 30GFLOPs@256x256, 300KParams, 8ms@180x320. Repeat for several."
    ),
]
Algorithm = Annotated[
    str | None, typer.Option("--algorithm", help="Search: falsr, quantnas, trilevel.", show_default="quantnas")
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Photographs: a folder, 'bundled' or 'div2k'.", show_default="bundled"),
]
Scale = Annotated[
    int | None, typer.Option("--scale", help="Enlargement: 2, 3 or 4.", show_default="4; of falsr 2, as published")
]
Preset = Annotated[
    str | None, typer.Option("--preset", help="tiny (minutes on a CPU), small or paper.", show_default="tiny")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run.", show_default="runs/NAME")]
Resume = Annotated[bool, flag("--resume", "Go on with the run in --out from its last epoch.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.", show_default="0")]
InputSize = Annotated[
    str | None,
    typer.Option("--input-size", metavar="HxW", help="Low-resolution size at which costs are counted."),
]
Space = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="Search space: quantnas or quantnas-float; of falsr, falsr or falsr-rgb; of trilevel, trilevel-a, "
        "trilevel-b, autodeeplab or agd.",
        show_default="the search's own",
    ),
]
Bits = Annotated[str | None, typer.Option("--bits", help="Bit widths to choose from: 4,8. Any of 2 to 8, and 32.")]
Cells = Annotated[
    int | None,
    typer.Option(
        "--cells",
        help="How often the cell is repeated; of falsr and trilevel, how many there are.",
        show_default="3, 7 or 5",
    ),
]
Channels = Annotated[int | None, typer.Option("--channels", help="Width of the network.", show_default="36 or 64")]
Residual = Annotated[
    str | None,
    typer.Option("--residual", help="Sums of QuantNAS networks: add, adadm, and original-adadm or batch-norm."),
]
Bicubic = Annotated[bool | None, flag("--bicubic/--no-bicubic", "Add the bicubic enlargement to the output.")]
Fixed = Annotated[
    str | None,
    typer.Option(
        "--fixed", metavar="RUN|ARCH.json|NAME", help="Search the bit widths of this network; its operators stay."
    ),
]
Separate = Annotated[bool | None, flag("--separate", "With --fixed: widths of weights and of activations apart.")]
Start = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="RUN|FILE", help="With --fixed: trained weights to start from, of a run or published."
    ),
]
Quantization = Annotated[
    str | None, typer.Option("--quantization", help="How widths are searched: noise, shared or independent.")
]
Penalty = Annotated[
    float | None, typer.Option("--penalty", help="Constant weight of the hardware term, as in the paper.")
]
Objective = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        help="falsr: a cost to minimise in the place of flops, latency@cpu for one; a second, in the place of params.",
    ),
]
MinPsnr = Annotated[float | None, typer.Option("--min-psnr", help="falsr: least PSNR in dB, after the short training.")]
Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher", metavar="NAME|RUN", help="Whose output is the target instead of the photographs: esrgan."
    ),
]
TeacherWeights = Annotated[
    Path | None,
    typer.Option("--teacher-weights", help="File of a published teacher's weights, .safetensors or .pth."),
]
Crop = Annotated[int | None, typer.Option("--crop", help="Side of the training crops in low-resolution pixels.")]
Activations = Annotated[
    str | None, typer.Option("--activations", help="Activation quantiser: learned or hwgq.", show_default="learned")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Any setting: --set train.epochs=50. Repeat for several.")]
Json = Annotated[bool, flag("--json", "One JSON object on stdout and nothing else there.")]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Safetensors file with the weights of an architecture that is named."),
]


Host = Annotated[
    str | None,
    typer.Option("--host", help="Where the device is: user@address, or its adb serial.", show_default="the target's"),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="Threads of the processor.", min=1, max=1024, show_default="the target's"),
]


Layers = tuple[dict[str, Any], ...]
"""Settings for `hwnas.config.make_config`: preset, file, command line."""


def search_settings(
    target: Target = None,
    budget: Budget = None,
    algorithm: Algorithm = None,
    data: Data = None,
    scale: Scale = None,
    preset: Preset = None,
    seed: Seed = None,
    input_size: InputSize = None,
    space: Space = None,
    bits: Bits = None,
    cells: Cells = None,
    channels: Channels = None,
    residual: Residual = None,
    bicubic: Bicubic = None,
    fixed: Fixed = None,
    separate: Separate = None,
    weights: Start = None,
    quantization: Quantization = None,
    penalty: Penalty = None,
    objective: Objective = None,
    min_psnr: MinPsnr = None,
    teacher: Teacher = None,
    teacher_weights: TeacherWeights = None,
    crop: Crop = None,
    config: ConfigFile = None,
    assignments: Set = None,
) -> Layers:
    """What the options of a search say.

    Raises:
        UsageError: for an unknown preset or an unreadable assignment.
        HwnasError: for an unreadable file.
    """
    given = {
        "target": target,
        "budgets": budget or None,
        "algorithm": algorithm,
        "data": _absolute(data),
        "seed": seed,
        "input_size": input_size,
        **_space(algorithm, space, fixed, separate, scale, bits, cells, channels, residual, bicubic),
        "search": {
            "weights": _weights(weights),
            "quantization": quantization,
            "penalty": penalty,
            "objectives": _objectives(objective),
            "min_psnr": min_psnr,
            "teacher": _teacher(teacher, teacher_weights),
        },
        "algorithms": {} if crop is None else _of_crops(crop),
        "train": {"crop": crop, "weights": _weights(weights)},
    }
    return _layers(preset, config, given, assignments)


def _of_crops(crop: int) -> dict[str, Any]:
    """Of each algorithm that crops, where it has the side of them."""
    from hwnas.searches import SEARCHES

    given: dict[str, Any] = {}
    for name in SEARCHES:
        fields = SEARCHES[name].Settings.model_fields
        if "crop" in fields:
            given[name] = {"search": {"crop": crop}}
        elif "evaluation" in fields:
            given[name] = {"search": {"evaluation": {"crop": crop}}}
    return given


def _objectives(given: list[str] | None) -> list[str] | None:
    """The costs to minimise: each that is not a usual one takes the place of the first of these that is not given."""
    if not given:
        return None
    from hwnas.searches.falsr.settings import OBJECTIVES

    others = [usual for usual in OBJECTIVES if usual not in given]
    return given + others[len(set(given) - set(OBJECTIVES)) :]


def space_settings(
    target: Target = None,
    algorithm: Algorithm = None,
    preset: Preset = None,
    input_size: InputSize = None,
    space: Space = None,
    scale: Scale = None,
    bits: Bits = None,
    cells: Cells = None,
    channels: Channels = None,
    residual: Residual = None,
    bicubic: Bicubic = None,
    fixed: Fixed = None,
    separate: Separate = None,
    config: ConfigFile = None,
    assignments: Set = None,
) -> Layers:
    """What options say of a space and of the target that it is for; errors as `search_settings`."""
    given = {
        "target": target,
        "algorithm": algorithm,
        "input_size": input_size,
        **_space(algorithm, space, fixed, separate, scale, bits, cells, channels, residual, bicubic),
    }
    return _layers(preset, config, given, assignments)


def _space(
    algorithm: str | None,
    name: str | None,
    fixed: str | None,
    separate: bool | None,
    scale: int | None,
    bits: str | None,
    cells: int | None,
    channels: int | None,
    residual: str | None,
    bicubic: bool | None,
) -> dict[str, Any]:
    """Settings of a space; that of a network has no other name, and one algorithm.

    Raises:
        UsageError: if another is given.
    """
    from hwnas.errors import UsageError

    if fixed is not None and name not in (None, "fixed"):
        raise UsageError(
            f"--fixed is a network whose widths are searched, and --space {name} a space; give one of them"
        )
    if fixed is not None and algorithm not in (None, "quantnas"):
        raise UsageError(f"--fixed is searched by quantnas, and not by {algorithm}; leave --algorithm out")
    if fixed is not None and bicubic is not None:
        from hwnas.spaces.lookup import find_architecture

        # A preset may say it of published ones, and the user not of others.
        find_architecture(fixed, bicubic=bicubic)
    options = {
        "scale": scale,
        "bits": None if bits is None else parse_bits(bits),
        "cells": cells,
        "channels": channels,
        "residual": residual,
        "bicubic": bicubic,
        "fixed": _absolute(fixed),
        "separate": separate,
    }
    return {"space_name": name if fixed is None else "fixed", "space": options}


def training_settings(
    target: For = None,
    data: Data = None,
    scale: Scale = None,
    preset: Preset = None,
    seed: Seed = None,
    bicubic: Bicubic = None,
    activations: Activations = None,
    teacher: Teacher = None,
    teacher_weights: TeacherWeights = None,
    crop: Crop = None,
    config: ConfigFile = None,
    assignments: Set = None,
) -> Layers:
    """What the options of a training without a search say; errors as `search_settings`."""
    given = {
        "target": target,
        "data": _absolute(data),
        "seed": seed,
        "space": {"scale": scale, "bicubic": bicubic},
        "train": {"crop": crop, "activations": activations, "teacher": _teacher(teacher, teacher_weights)},
    }
    return _layers(preset, config, given, assignments)


def takes_settings(read: Callable[..., Layers]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator that gives a command the options of ``read``, and hands it what they say as ``layers``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "layers"]
        read_parameters = list(inspect.signature(read, eval_str=True).parameters.values())

        @functools.wraps(command)
        def with_options(**given: Any) -> None:
            mine = {p.name: given.pop(p.name) for p in own}
            command(layers=read(**given), **mine)

        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *read_parameters)]
        with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in parameters}
        return with_options

    return decorate


def _teacher(network: str | None, weights: Path | None) -> dict[str, Any]:
    """Settings of a teacher.

    Raises:
        UsageError: if there are weights, and nothing that they are of.
    """
    from hwnas.errors import UsageError

    if weights is not None and network is None:
        raise UsageError("--teacher-weights are of a published teacher; name it by --teacher")
    return {"network": _absolute(network), "weights": _path(weights)}


def _path(file: Path | None) -> str | None:
    return None if file is None else str(file.resolve())


def _weights(place: Path | None) -> str | None:
    """The file of weights that the user names, or that a run has."""
    from hwnas.run_directory import RunDirectory

    return _path(RunDirectory(place).weights if place is not None and place.is_dir() else place)


def _absolute(name: str | None) -> str | None:
    """Files and folders in full: a run is resumed from wherever the user happens to be."""
    return str(Path(name).resolve()) if name is not None and Path(name).exists() else name


def parse_bits(text: str) -> list[int]:
    """``4,8`` as ``[4, 8]``.

    Raises:
        UsageError: if it is anything else.
    """
    from hwnas.errors import UsageError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--bits {text}: write widths with commas between, for instance 4,8") from error


def _layers(preset: str | None, config: Path | None, given: dict[str, Any], assignments: list[str] | None) -> Layers:
    from hwnas.config import load_preset, parse_assignment, read_settings

    return (
        {} if preset is None else load_preset(preset),
        {} if config is None else read_settings(config),
        _given(given),
        *(parse_assignment(text) for text in assignments or ()),
    )


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Without what the user left out."""
    nested = {key: _given(value) if isinstance(value, dict) else value for key, value in options.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}


def with_threads(target: targets.Target, threads: int | None) -> targets.Target:
    """A target that uses so many; its own number where nothing is said."""
    return target if threads is None else target.model_copy(update={"threads": threads})


def default_out(config: RunConfig) -> Path:
    """``runs/quantnas-cpu-5GBitOps``: what was asked for, so that asking the same again finds it."""
    return Path("runs") / "-".join([config.algorithm, config.target, *config.budgets]).replace("@", "_")
