"""The file of a latency table: networks of spaces, measured on one device with one runtime. JSON, safe to share."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from hwnas.architecture import Architecture
from hwnas.devices.measurement import Fingerprint, Milliseconds
from hwnas.devices.target import Target
from hwnas.errors import HwnasError, UsageError, first_problem
from hwnas.exporters.untrained import GRAPHS
from hwnas.files import write_text
from hwnas.latency.design import Design
from hwnas.latency.layerwise import LayerwiseDesign
from hwnas.latency.trilevel import TrilevelDesign
from hwnas.sizes import Size, format_size
from hwnas.spaces.space import Choice, LayerwiseSpace, SearchSpace
from hwnas.spaces.trilevel import TrilevelSpace
from hwnas.user_files import user_folder

_IDENTITY = {"target", "artifact", "profile", "accelerator", "graphs"}


Purpose = Literal["operator", "calibration", "search"]

MOST = 100_000.0
"""Times as long as another that a network of the same space may take; of tens of cells, thousands."""


class MeasuredNetwork(BaseModel):
    """One network.

    Attributes:
        choice: its numbers in the space.
        why: it tells an ``operator`` from the reference's; is at random, for ``calibration``; or was proposed by a
            ``search``.
        ratio: its time as a multiple of the reference's, which took turns with it; the median.
        rounds: turns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: Choice
    why: Purpose
    ratio: float = Field(ge=1 / MOST, le=MOST)
    rounds: int = Field(ge=1)


def _has(fields: Any, name: str) -> bool:
    return name in fields if isinstance(fields, dict) else hasattr(fields, name)


SurveyedSpace = LayerwiseSpace | TrilevelSpace
"""Spaces of which there are tables."""


class Survey(BaseModel):
    """What was measured of one space at one input size.

    Attributes:
        size: height and width of the low-resolution image.
        space: the space.
        reference: the network that all are compared with.
        reference_ms: its medians, of each session in which others were compared with it.
        networks: the others.
        seconds: how long measuring has taken so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Size
    space: Annotated[
        Annotated[LayerwiseSpace, Tag("layerwise")] | Annotated[TrilevelSpace, Tag("trilevel")],
        Discriminator(lambda space: "layerwise" if _has(space, "wiring") else "trilevel"),
    ]
    reference: Choice
    reference_ms: tuple[Milliseconds, ...] = ()
    networks: tuple[MeasuredNetwork, ...] = ()
    seconds: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _choices_are_of_the_space(self) -> Survey:
        for choice in (self.reference, *(network.choice for network in self.networks)):
            if not self.space.has(choice):
                raise ValueError(f"{list(choice)} is no network of the space")
        return self

    def __str__(self) -> str:
        bits = ", ".join(map(str, self.space.bits))
        return f"{self.space.name} of {bits} bits at {format_size(self.size)}, {' '.join(self.design.options())}"

    @classmethod
    def begun(cls, space: SurveyedSpace, size: Size, target: Target) -> Survey:
        """The survey in which nothing has been measured yet."""
        return cls(size=size, space=space, reference=design_of(space).reference(target))

    @property
    def design(self) -> Design[Any]:
        """What there is to measure."""
        return design_of(self.space)

    @property
    def ms(self) -> float:
        """Time of the reference: the median of all sessions."""
        return statistics.median(self.reference_ms)

    def covers(self, space: SearchSpace, size: Size) -> bool:
        """Whether it was made for this space at this size."""
        return self.size == size and self.space.has_same_networks(space)

    def can_tell(self, architecture: Architecture, size: Size) -> bool:
        """Whether the network is one of its space, at its size."""
        return self.size == size and self.space.choice_of(architecture) is not None

    @property
    def lacking(self) -> list[Choice]:
        """Networks that operators are told from, and that have not been measured."""
        there = {network.choice for network in self.networks}
        return [choice for choice in self.design.operators(self.reference) if choice not in there]

    @property
    def is_complete(self) -> bool:
        """Whether every operator of the space can be told."""
        return bool(self.reference_ms) and not self.lacking

    def with_networks(self, networks: Iterable[MeasuredNetwork]) -> Survey:
        """The survey with more networks; of one that is there, what it is there for stays, and the most turns count."""
        known = {network.choice: network for network in self.networks}
        for network in networks:
            before = known.get(network.choice, network)
            if network.rounds >= before.rounds:
                known[network.choice] = network.model_copy(update={"why": before.why})
        return self.model_copy(update={"networks": tuple(known.values())})


class LatencyTable(BaseModel):
    """All surveys of one target on one device with one runtime: one fingerprint, never two.

    Attributes:
        schema_version: version of this format.
        target: name of the target.
        fingerprint: what it was measured on.
        artifact: format of the files that were measured.
        profile: form of their graphs.
        accelerator: what they were compiled for; None where nothing is.
        graphs: version of what was written; see `hwnas.exporters.untrained.GRAPHS`.
        surveys: by space and size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    target: str
    fingerprint: Fingerprint
    artifact: str
    profile: str
    accelerator: str | None = None
    graphs: int
    surveys: tuple[Survey, ...] = ()

    @classmethod
    def empty(cls, target: Target, fingerprint: Fingerprint) -> LatencyTable:
        """The table that is begun for a target on a device."""
        return cls(
            target=target.name,
            fingerprint=fingerprint,
            artifact=target.artifact,
            profile=target.profile,
            accelerator=target.accelerator,
            graphs=GRAPHS,
        )

    @property
    def path(self) -> Path:
        """Where it is kept."""
        what = json.dumps(self.model_dump(include={*_IDENTITY, "fingerprint"}), sort_keys=True)
        return tables_folder() / f"{self.target}-{hashlib.sha256(what.encode()).hexdigest()[:12]}.json"

    def fits(self, target: Target, fingerprint: Fingerprint | None = None) -> bool:
        """Whether it tells of what is deployed to a target as it is set now; and, if it is said, of this device."""
        now = {name: getattr(target, name) for name in ("runtime", "provider", "threads")}
        device = fingerprint or self.fingerprint.model_copy(update=now)
        return not self.difference(LatencyTable.empty(target, device))

    def difference(self, other: LatencyTable) -> str:
        """``runtime_version 1.30, now 1.31``: what differs in the other, which is of now; empty if nothing does."""
        ours, theirs = ({**t.fingerprint.model_dump(), **t.model_dump(include=_IDENTITY)} for t in (self, other))
        return "; ".join(f"{name} {value}, now {theirs[name]}" for name, value in ours.items() if value != theirs[name])

    def survey(self, space: SearchSpace, size: Size) -> Survey | None:
        """The survey of a space at a size."""
        return next((survey for survey in self.surveys if survey.covers(space, size)), None)

    def with_survey(self, survey: Survey) -> LatencyTable:
        """The table with this survey in the place of an older one of its space and size."""
        others = [other for other in self.surveys if not other.covers(survey.space, survey.size)]
        return self.model_copy(update={"surveys": (*others, survey)})

    def save(self) -> None:
        """Write it to its place, atomically."""
        write_text(self.path, json.dumps(self.model_dump(mode="json"), separators=(",", ":")) + "\n")

    def record(
        self,
        survey: Survey,
        networks: Iterable[MeasuredNetwork],
        reference_ms: float | None = None,
        seconds: float = 0.0,
    ) -> tuple[LatencyTable, Survey]:
        """Add what was found of a survey to the file, and to whatever others have added to it since.

        Args:
            survey: of the table, or a new one.
            networks: that were measured.
            reference_ms: median of the reference, if it is of the session in which they were compared with it.
            seconds: what that took.

        Returns:
            The table and the survey as they are now.

        Raises:
            HwnasError: if the file cannot be written, or is damaged.
        """
        with self._locked():
            table = read_table(self.path) if self.path.exists() else self
            survey = table.survey(survey.space, survey.size) or survey
            survey = survey.with_networks(networks)
            if reference_ms is not None:
                times = (*survey.reference_ms, reference_ms)
                survey = survey.model_copy(update={"reference_ms": times, "seconds": survey.seconds + seconds})
            table = table.with_survey(survey)
            table.save()
        return table, survey

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = FileLock(self.path.with_suffix(".lock"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            raise HwnasError(f"cannot write {self.path}: {error.strerror}; set HWNAS_HOME to another folder") from error
        try:
            yield
        finally:
            lock.release()


def design_of(space: SurveyedSpace) -> Design[Any]:
    """How networks of the space are measured."""
    return TrilevelDesign(space) if isinstance(space, TrilevelSpace) else LayerwiseDesign(space)


def surveyed(space: SearchSpace) -> SurveyedSpace:
    """The space, if there are tables of its kind.

    Raises:
        UsageError: if there are not.
    """
    if not isinstance(space, SurveyedSpace):
        raise UsageError(
            f"there are latency tables of spaces as those of quantnas and trilevel, which {space.name} is not: its "
            "networks are measured whole"
        )
    return space


def tables_folder() -> Path:
    """Folder of the tables; what somebody else has measured on the same device may be put there."""
    return user_folder() / "tables"


def read_table(path: Path) -> LatencyTable:
    """The table in a file.

    Raises:
        HwnasError: if it cannot be read, is damaged, or of a newer hwnas.
    """
    try:
        data: Any = json.loads(path.read_bytes())
        return LatencyTable.model_validate(data)
    except OSError as error:
        raise HwnasError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise HwnasError(
            f"{path} is no latency table, or is damaged ({first_problem(error)}); delete it, and build it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise HwnasError(
            f"{path} is no latency table, or is damaged ({error}); delete it, and build it again"
        ) from error


def table_files(target: str | None = None) -> list[Path]:
    """Files of the tables of a target, or of all, the one that was written last first."""
    # What follows the name is a key: another target may be called cpu-2.
    name = ".*" if target is None else re.escape(target)
    written = {}
    for path in tables_folder().glob("*.json"):
        with suppress(FileNotFoundError):  # a link to nothing, or one that somebody deletes now
            if re.fullmatch(rf"{name}-[0-9a-f]{{12}}", path.stem):
                written[path] = path.stat().st_mtime
    return sorted(written, key=lambda path: written[path], reverse=True)


def find_tables(target: str) -> list[LatencyTable]:
    """The tables of a target, the one that was written last first; errors as `read_table`."""
    return [table for table in map(read_table, table_files(target)) if table.target == target]
