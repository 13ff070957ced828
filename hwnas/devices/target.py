"""Targets: what a network is made for, described in TOML."""

from __future__ import annotations

import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hwnas.errors import HwnasError, UsageError, first_problem
from hwnas.files import write_text
from hwnas.user_files import user_folder

if TYPE_CHECKING:
    from hwnas.architecture import Architecture
    from hwnas.operators import OperatorSpec

_WIDTHS = {*range(2, 9), 16, 32}
"""Of convolutions that processors compute."""


class Target(BaseModel):
    """A device with its runtime.

    Attributes:
        name: what users call it.
        description: one line for people.
        connection: how it is reached: it is this machine, by ssh, by adb, or not at all, since a compiler knows it.
            What has a host is not this machine.
        host: where it is, ``user@address``, or the serial number that adb knows it by; None to be told each time.
        python: the interpreter there that has the runtime; None for hwnas's own here, and python3 elsewhere.
        runtime: what runs the artifact; see `hwnas.devices.device.DEVICES`.
        provider: what of the device it computes on: ``cpu``, ``cuda``, ``tensorrt``, ``gpu``, ``npu``, ``qnn``.
        threads: of the processor that an inference may use.
        artifact: format that the runtime reads.
        profile: form of the graph that the runtime wants; see `hwnas.exporters.profiles`.
        accelerator: configuration that its compiler knows it under; None where nothing is compiled.
        compute_bits: widths in which it really computes convolutions, ascending.
        benchmark_binary: for runtime ``benchmark_model``: that program for the device, on this machine; None if it is
            there already, in /data/local/tmp.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    connection: Literal["local", "ssh", "adb", "compiler"] = "local"
    host: str | None = None
    python: str | None = None
    runtime: str
    provider: str = "cpu"
    threads: int = Field(default=1, ge=1, le=1024)
    artifact: str
    profile: str
    compute_bits: tuple[int, ...] = Field(min_length=1)
    accelerator: str | None = None
    benchmark_binary: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_host_is_elsewhere(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("host") and fields.get("connection", "local") == "local":
            return {**fields, "connection": "ssh"}
        return fields

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) is None:
            raise ValueError(f"{name!r} is none; take letters and digits, and then '.', '_' and '-' too, 64 at most")
        return name

    @field_validator("compute_bits")
    @classmethod
    def _ascending(cls, bits: tuple[int, ...]) -> tuple[int, ...]:
        if list(bits) != sorted(set(bits)) or not set(bits) <= _WIDTHS:
            raise ValueError(f"{list(bits)} are no widths in ascending order, such as [8, 32]")
        return bits

    def computes(self, spec: OperatorSpec) -> int:
        """Bits in which its convolutions compute an operator: the next it has, or its widest."""
        needed = max(spec.weight_bits, spec.activation_bits)
        return next((bits for bits in self.compute_bits if bits >= needed), self.compute_bits[-1])

    def effective_bitops(self, spec: OperatorSpec, nominal: float) -> float:
        """BitOps as they are computed, of an operator of ``nominal`` ones: ``b^2 F`` with b of `computes`."""
        return nominal / (spec.weight_bits * spec.activation_bits) * self.computes(spec) ** 2

    def widened_layers(self, architecture: Architecture) -> list[str]:
        """Layers whose bits it cannot compute in, though it can in wider ones, which it takes."""
        return [
            name
            for name, spec in architecture.operators.items()
            if any(
                bits not in self.compute_bits and bits < max(self.compute_bits)
                for bits in (spec.weight_bits, spec.activation_bits)
            )
        ]


def user_targets() -> Path:
    """Folder of the user's own targets; one of a shipped name takes its place."""
    return user_folder() / "targets"


def _shipped() -> dict[str, Any]:
    folder = files("hwnas") / "devices" / "targets"
    return {entry.name.removesuffix(".toml"): entry for entry in folder.iterdir() if entry.name.endswith(".toml")}


def _own() -> dict[str, Path]:
    return {path.stem: path for path in sorted(user_targets().glob("*.toml"))}


def target_names() -> list[str]:
    """Names of the targets that come with hwnas, and of the user's own."""
    return sorted({*_shipped(), *_own()})


def load_target(name: str) -> Target:
    """The target called ``name``.

    Raises:
        UsageError: if there is none.
        HwnasError: if its file is damaged.
    """
    own = _own()
    if name in own:
        return read_target(own[name])
    shipped = _shipped()
    if name not in shipped:
        raise UsageError(
            f"no target is called {name!r}; there are: {', '.join(target_names())}; add yours by `hwnas targets add`"
        )
    return Target(name=name, **tomllib.loads(shipped[name].read_text(encoding="utf-8")))


def read_target(path: Path) -> Target:
    """The target that a TOML file describes, called like the file.

    Raises:
        UsageError: if there is no such file.
        HwnasError: if it is damaged, naming what is wrong.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise HwnasError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HwnasError(f"{path} is not TOML: {error}") from error
    if fields.setdefault("name", path.stem) != path.stem:
        raise HwnasError(f"{path}: name {fields['name']!r} is not the file's; leave it out, or rename the file")
    return make_target(fields, str(path))


def make_target(fields: dict[str, Any], source: str) -> Target:
    """A target of these fields.

    Raises:
        HwnasError: naming ``source`` and what is wrong.
    """
    from hwnas.devices import DEVICES
    from hwnas.exporters import EXPORTERS
    from hwnas.exporters.profiles import PROFILES

    if unknown := set(fields) - set(Target.model_fields):
        settings = ", ".join(Target.model_fields)
        raise HwnasError(f"{source}: {min(unknown)!r} is no setting of a target; there are: {settings}")
    try:
        target = Target.model_validate(fields)
    except ValidationError as error:
        raise HwnasError(f"{source}: {first_problem(error)}") from error
    for field, value, choices in (
        ("runtime", target.runtime, DEVICES),
        ("artifact", target.artifact, EXPORTERS),
        ("profile", target.profile, PROFILES),
    ):
        if value not in choices:
            raise HwnasError(f"{source}: {field} {value!r} is not known; there are: {', '.join(sorted(choices))}")
    return target


def target_as_toml(target: Target) -> str:
    """The content of its file."""
    fields = target.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    # Strings, numbers and lists of numbers are written alike in JSON and TOML.
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in fields.items())


def add_target(target: Target) -> Path:
    """Keep a target as the user's own; returns its file."""
    path = user_targets() / f"{target.name}.toml"
    write_text(path, target_as_toml(target))
    return path


def remove_target(name: str) -> Path:
    """Delete one of the user's own, damaged or not; returns what was its file.

    Raises:
        UsageError: if there is none of that name.
        HwnasError: if it cannot be deleted.
    """
    path = _own().get(name)
    if path is None:
        ours = ", ".join(_own()) or "none yet"
        raise UsageError(f"{name!r} is no target of your own, and only those can be removed; there are: {ours}")
    try:
        path.unlink()
    except OSError as error:
        raise HwnasError(f"cannot remove {path}: {error.strerror}") from error
    return path
