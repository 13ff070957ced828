"""Settings that the options of a command make."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwnas.cli import options

Layers = tuple[dict[str, Any], ...]
"""Settings for `hwnas.config.make_config`: preset, file, command line."""


def search_settings(
    target: options.Target = None,
    budget: options.Budget = None,
    algorithm: options.Algorithm = None,
    data: options.Data = None,
    scale: options.Scale = None,
    preset: options.Preset = None,
    seed: options.Seed = None,
    input_size: options.InputSize = None,
    space: options.Space = None,
    bits: options.Bits = None,
    cells: options.Cells = None,
    channels: options.Channels = None,
    residual: options.Residual = None,
    bicubic: options.Bicubic = None,
    fixed: options.Fixed = None,
    separate: options.Separate = None,
    weights: options.Start = None,
    quantization: options.Quantization = None,
    penalty: options.Penalty = None,
    objective: options.Objective = None,
    min_psnr: options.MinPsnr = None,
    teacher: options.Teacher = None,
    teacher_weights: options.TeacherWeights = None,
    crop: options.Crop = None,
    config: options.ConfigFile = None,
    assignments: options.Set = None,
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
    target: options.Target = None,
    algorithm: options.Algorithm = None,
    preset: options.Preset = None,
    input_size: options.InputSize = None,
    space: options.Space = None,
    scale: options.Scale = None,
    bits: options.Bits = None,
    cells: options.Cells = None,
    channels: options.Channels = None,
    residual: options.Residual = None,
    bicubic: options.Bicubic = None,
    fixed: options.Fixed = None,
    separate: options.Separate = None,
    config: options.ConfigFile = None,
    assignments: options.Set = None,
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
    chosen = {
        "scale": scale,
        "bits": None if bits is None else parse_bits(bits),
        "cells": cells,
        "channels": channels,
        "residual": residual,
        "bicubic": bicubic,
        "fixed": _absolute(fixed),
        "separate": separate,
    }
    return {"space_name": name if fixed is None else "fixed", "space": chosen}


def training_settings(
    target: options.For = None,
    data: options.Data = None,
    scale: options.Scale = None,
    preset: options.Preset = None,
    seed: options.Seed = None,
    bicubic: options.Bicubic = None,
    activations: options.Activations = None,
    teacher: options.Teacher = None,
    teacher_weights: options.TeacherWeights = None,
    crop: options.Crop = None,
    config: options.ConfigFile = None,
    assignments: options.Set = None,
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


def _given(layer: dict[str, Any]) -> dict[str, Any]:
    """Without what the user left out."""
    nested = {key: _given(value) if isinstance(value, dict) else value for key, value in layer.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}
