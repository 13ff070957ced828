"""Targets: what a network is made for, described in TOML."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from pydantic import BaseModel, ConfigDict

from hwnas.architecture import Architecture
from hwnas.errors import UsageError


class Target(BaseModel):
    """A device with its runtime.

    Attributes:
        name: what users call it.
        description: one line for people.
        runtime: what runs the artifact.
        artifact: format that the runtime reads.
        profile: form of the graph that the runtime wants; see `hwnas.exporters.profiles`.
        accelerator: configuration that its compiler knows it under; None where nothing is compiled.
        compute_bits: widths in which it really computes convolutions, ascending.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    runtime: str
    artifact: str
    profile: str
    compute_bits: tuple[int, ...]
    accelerator: str | None = None

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


def target_names() -> list[str]:
    """Names of the targets that come with hwnas."""
    folder = files("hwnas") / "devices" / "targets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_target(name: str) -> Target:
    """The target called ``name``.

    Raises:
        UsageError: if there is none.
    """
    if name not in target_names():
        raise UsageError(f"no target is called {name!r}; there are: {', '.join(target_names())}")
    text = (files("hwnas") / "devices" / "targets" / f"{name}.toml").read_text(encoding="utf-8")
    return Target(name=name, **tomllib.loads(text))
