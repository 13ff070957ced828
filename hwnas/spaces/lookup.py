"""Networks by what users write: a run, an architecture file, or a published name."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from hwnas.architecture import Architecture, load_architecture
from hwnas.errors import HwnasError, UsageError, first_problem
from hwnas.run_directory import RunDirectory
from hwnas.spaces.named import NAMED, named_architecture


def is_published(name: str) -> bool:
    """Whether the user names a published architecture, and not a file or folder of that name."""
    return name in NAMED and not Path(name).exists()


def find_architecture(
    name: str, scale: int | None = None, bits: int | None = None, bicubic: bool | None = None
) -> Architecture:
    """The architecture of a run, of a JSON file, or a published one.

    Args:
        name: what the user wrote.
        scale: enlargement of a published one, as published unless told; must agree with another's own where given.
        bits: width for all layers; None for its own.
        bicubic: add the bicubic enlargement to a published one; must agree with another's own where given.

    Raises:
        UsageError: if it is none of these, or what was asked for is not what it has.
        HwnasError: if the file is damaged.
    """
    path = Path(name)
    if path.is_dir():
        run = RunDirectory(path)
        if not run.exists:
            raise UsageError(f"{path} is no run of hwnas; name a run, or an architecture file")
        if not run.architecture.is_file():
            raise HwnasError(
                f"{path} holds no architecture; finish its search with `hwnas search --resume --out {path}`"
            )
        architecture = load_architecture(run.architecture)
    elif path.is_file():
        architecture = load_architecture(path)
    elif path.suffix:
        raise UsageError(f"there is no file {path}; check the path")
    elif is_published(name):
        return named_architecture(name, scale, bits, bool(bicubic))
    else:
        raise UsageError(
            f"{name!r} is no run, no architecture file and no published architecture ({', '.join(sorted(NAMED))})"
        )
    if scale is not None and scale != architecture.scale:
        raise UsageError(f"{name} enlarges by {architecture.scale}, not by {scale}; leave --scale out")
    if bicubic is not None and bicubic != getattr(architecture.wiring, "bicubic", False):
        raise UsageError(f"whether {name} adds the bicubic enlargement is part of it; leave --[no-]bicubic out")
    return architecture if bits is None else _with_bits(architecture, bits)


def _with_bits(architecture: Architecture, bits: int) -> Architecture:
    try:
        return architecture.with_bits(bits)
    except ValidationError as error:
        raise UsageError(f"--bits {bits}: {first_problem(error)}") from error
