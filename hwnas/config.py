"""The settings of a run: defaults, a preset, a file, the command line, in that order; stored with the run as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, ValidationInfo, field_validator

from hwnas.errors import HwnasError, UsageError, first_line, first_problem
from hwnas.files import write_text
from hwnas.searches import SEARCHES
from hwnas.spaces.space import SpaceOptions
from hwnas.training.settings import TrainSettings

PRESETS = ("tiny", "small", "paper")
DEFAULT_PRESET = "tiny"
DEFAULT_ALGORITHM = "quantnas"


class RunConfig(BaseModel):
    """Everything that decides what a run does.

    Attributes:
        algorithm: the search.
        target: the device it is for.
        budgets: upper bounds as the user wrote them.
        input_size: low-resolution HxW of budgets that do not state one; None for each metric's own.
        data: ``bundled``, ``div2k`` or a folder.
        seed: of everything random.
        space_name: the search space; the algorithm's own unless told.
        space: its options.
        search: settings of the algorithm.
        train: settings of the final training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: str = DEFAULT_ALGORITHM
    target: str = "cpu"
    budgets: tuple[str, ...] = ()
    input_size: str | None = None
    data: str = "bundled"
    seed: int = Field(default=0, ge=0)
    space_name: str = Field(default=None, validate_default=True)  # type: ignore[assignment]  # the validator's to fill
    space: SpaceOptions = SpaceOptions()
    search: SerializeAsAny[BaseModel]
    train: TrainSettings = TrainSettings()

    @field_validator("space_name", mode="before")
    @classmethod
    def _space_of_the_algorithm(cls, value: Any, info: ValidationInfo) -> Any:
        return SEARCHES[info.data.get("algorithm", DEFAULT_ALGORITHM)].default_space if value is None else value

    @field_validator("search", mode="before")
    @classmethod
    def _settings_of_the_algorithm(cls, value: Any, info: ValidationInfo) -> BaseModel:
        return SEARCHES[info.data.get("algorithm", DEFAULT_ALGORITHM)].Settings.model_validate(value)

    def save(self, path: Path) -> None:
        """Write the settings as YAML, atomically."""
        write_text(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def load_preset(name: str) -> dict[str, Any]:
    """The settings of a preset, nested as in `RunConfig`; those of one algorithm under its name in ``algorithms``.

    Raises:
        UsageError: for an unknown name.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset is called {name!r}; there are: {', '.join(PRESETS)}")
    return _mapping((files("hwnas") / "presets" / f"{name}.yaml").read_text(encoding="utf-8"), name)


def read_settings(path: Path) -> dict[str, Any]:
    """Settings from a YAML file.

    Raises:
        UsageError: if there is no such file.
        HwnasError: if it cannot be read or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise HwnasError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    return _mapping(text, str(path))


def _mapping(text: str, source: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2020-13-45, 0x_
        raise HwnasError(f"{source} is not YAML: {first_line(error)}") from error
    if not isinstance(data, dict):
        raise HwnasError(f"{source} holds no settings; expected lines such as 'seed: 1'")
    return data


def parse_assignment(text: str) -> dict[str, Any]:
    """``search.epochs=3`` as ``{"search": {"epochs": 3}}``.

    Raises:
        UsageError: if there is no ``=``.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UsageError(f"--set {text}: write --set name=value, for instance --set search.epochs=3")
    try:
        nested: Any = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"--set {text}: the value is not YAML") from error
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings on top of each other; the later wins."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            both = isinstance(old, Mapping) and isinstance(value, Mapping)
            merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def make_config(layers: Sequence[Mapping[str, Any]]) -> RunConfig:
    """The settings that the layers give together.

    Args:
        layers: nested as in `RunConfig`, the later on top. ``algorithms`` holds what a layer has to say of runs
            of each, and the rest what it says of whichever it is.

    Raises:
        UsageError: naming the setting that is wrong.
    """
    algorithm = str(merge(*layers).get("algorithm", DEFAULT_ALGORITHM))
    try:
        return RunConfig.model_validate(merge({"search": {}}, *(_for_algorithm(layer, algorithm) for layer in layers)))
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "extra_forbidden":
            raise UsageError(_unknown_setting([str(part) for part in problem["loc"]], algorithm)) from error
        raise UsageError(f"settings: {first_problem(error)}") from error


def _for_algorithm(layer: Mapping[str, Any], algorithm: str) -> Mapping[str, Any]:
    """A layer with what its ``algorithms`` says of this one on top of the rest."""
    if "algorithms" not in layer:
        return layer
    each = layer["algorithms"]
    if not isinstance(each, Mapping) or not all(isinstance(of_one, Mapping) for of_one in each.values()):
        raise UsageError("settings: algorithms: expected settings under the name of each")
    if unknown := [name for name in each if name not in SEARCHES]:
        raise UsageError(f"settings: algorithms: there is no {unknown[0]!r}; there are: {', '.join(SEARCHES)}")
    rest = {key: value for key, value in layer.items() if key != "algorithms"}
    return merge(rest, each.get(algorithm, {}))


def _unknown_setting(where: list[str], algorithm: str) -> str:
    """Names the settings there are, and the likeliest one first."""
    *parents, name = where
    there: Any = RunConfig(algorithm=algorithm, search=SEARCHES[algorithm].Settings()).model_dump()
    for part in parents:
        there = there.get(part, {})
    guess = get_close_matches(name, there, n=1)
    meant = f" did you mean {guess[0]}?" if guess else ""
    others = [one for one in SEARCHES if parents == ["search"] and name in SEARCHES[one].Settings.model_fields]
    of_others = f" of algorithm {algorithm}, but of {' and '.join(others)}" if others else ""
    return f"there is no setting {'.'.join(where)}{of_others};{meant} there are: {', '.join(there)}"


def load_config(path: Path) -> RunConfig:
    """The settings that `RunConfig.save` wrote.

    Raises:
        HwnasError: if they cannot be read.
    """
    try:
        return make_config([read_settings(path)])
    except UsageError as error:
        raise HwnasError(f"{path} is damaged, or of another version of hwnas: {error}") from error
