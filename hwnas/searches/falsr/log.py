"""All that a search has found out, line by line, as it found it: what is there is never done again.

A search is a function of its settings and of what is in its log, so the log is all that it takes to go on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hwnas.errors import HwnasError, first_problem
from hwnas.searches.falsr.trial import Outcome


class Trial(BaseModel):
    """A candidate that was trained, or could not be.

    Attributes:
        architecture: its fingerprint.
        outcome: None if it failed.
        error: why, if so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["trial"] = "trial"
    architecture: str
    outcome: Outcome | None = None
    error: str | None = None


class Measured(BaseModel):
    """A cost that a device was asked for.

    Attributes:
        architecture: fingerprint of the candidate.
        metric: name of the cost model.
        ratio: to what the device's reference took beside it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["measured"] = "measured"
    architecture: str
    metric: str
    ratio: float = Field(gt=0)


class Speed(BaseModel):
    """What a device's reference took when the search began.

    Attributes:
        metric: name of the cost model.
        yardstick: of it.
        device: what is known of the one that was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["speed"] = "speed"
    metric: str
    yardstick: float = Field(gt=0)
    device: dict[str, str] = {}


Entry = Annotated[Trial | Measured | Speed, Field(discriminator="kind")]
_ENTRY: TypeAdapter[Trial | Measured | Speed] = TypeAdapter(Entry)


class Log:
    """The file and what is in it.

    Args:
        path: JSON lines; read if it is there.

    Attributes:
        trials: by fingerprint.
        ratios: what was measured, by fingerprint and metric.
        speeds: by metric; the first of each counts.
        broken: what is wrong with lines that were skipped, each with its number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials: dict[str, Trial] = {}
        self.ratios: dict[tuple[str, str], float] = {}
        self.speeds: dict[str, Speed] = {}
        self.broken: list[str] = []
        self._ends_a_line = True
        if path.exists():
            self._read()

    def add(self, entry: Trial | Measured | Speed) -> None:
        """Keep an entry, on disk before this returns.

        Raises:
            HwnasError: if the file cannot be written.
        """
        line = entry.model_dump_json(exclude_none=True) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                # What was being written when the last search was killed is a line by itself.
                file.write(line if self._ends_a_line else f"\n{line}")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise HwnasError(
                f"cannot write {self.path}: {error.strerror}; free some space, and go on with --resume"
            ) from error
        self._ends_a_line = True
        self._remember(entry)

    def _read(self) -> None:
        try:
            lines = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise HwnasError(f"cannot read {self.path}: {error.strerror}; restore it") from error
        self._ends_a_line = not lines[-1]
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                self._remember(_ENTRY.validate_json(line))
            except ValidationError as error:
                self.broken.append(f"line {number} ({first_problem(error)})")
        # Ratios alone are no times: they are measured again.
        self.ratios = {key: ratio for key, ratio in self.ratios.items() if key[1] in self.speeds}

    def _remember(self, entry: Trial | Measured | Speed) -> None:
        if isinstance(entry, Trial):
            self.trials[entry.architecture] = entry
        elif isinstance(entry, Measured):
            self.ratios[entry.architecture, entry.metric] = entry.ratio
        else:
            self.speeds.setdefault(entry.metric, entry)
