"""Makes a row of a table: runs its commands, which go on where they were interrupted, and measures what they leave."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from published import ARCHITECTURE, RUN, SEARCHED, Published, Row, Size
from running import run_until
from writing import commit, machine, read_json

from hwnas.architecture import load_architecture
from hwnas.checkpoints import load_network
from hwnas.cost_models import cost_model
from hwnas.files import write_text
from hwnas.run_directory import RunDirectory

COSTS = {"GBitOps 32x32": ("bitops", 1e9), "GMACs 256x256": ("flops", 1e9), "K parameters": ("params", 1e3)}
"""What all rows cost: column to metric, and its unit."""

STARTS = ("search", "train")
"""Commands that take settings and data, and go on by --resume."""


@dataclass(frozen=True)
class Making:
    """One row of one seed, as it is made.

    Attributes:
        table: of which it is one.
        row: what it is.
        folder: of the table.
        size: of searches and trainings.
        seed: of it.
        data: photographs.
        end: when the time is up, by the monotonic clock.
    """

    table: Published
    row: Row
    folder: Path
    size: Size
    seed: int
    data: str
    end: float

    @property
    def place(self) -> Path:
        """Its folder."""
        return self.folder / f"{self.row.name}-{self.seed}"

    @property
    def run(self) -> Path:
        """The run of its commands; trainings at several rates have others beside it."""
        return self.place / "run"

    @property
    def architecture(self) -> Path:
        """Where it is made for the table, once for all seeds."""
        return self.folder / f"{self.row.name}.json"

    @property
    def rate(self) -> Path:
        """Holds the learning rate that was best in the first run, and is that of all others."""
        return self.folder / f"{self.row.name}.rate"

    def make(self) -> bool:
        """Run what it lacks; whether it is there in the end, or its time was up.

        Raises:
            AbsentError: if there cannot be one.
            HwnasError: if a command fails.
        """
        if (self.place / "row.json").exists():
            return True
        if time.monotonic() >= self.end:
            return False
        self.place.mkdir(parents=True, exist_ok=True)
        if self.row.architecture is not None and not self.architecture.exists():
            self.row.architecture().save(self.architecture)
        trained = self.run
        for i, command in enumerate(self.row.commands):
            if command[0] == "train" and self.table.rates:
                runs = self._at_rates(command)
                if runs is None:
                    return False
                trained = max(runs, key=lambda run: load_network(RunDirectory(run).weights)[0].validation_psnr)
                write_text(self.rate, trained.name.removeprefix("rate-"))
            elif not self._is_run(str(i), self._words(command)):
                return False
        self._keep(trained)
        return True

    def _words(self, command: Sequence[str]) -> list[str]:
        if command[0] == "train" and RUN in command:
            # It has the settings of its search, and goes on from whatever is there.
            return ["train", str(self.run), "--resume"]
        words = self._named(command)
        if command[0] not in STARTS:
            return words
        settings = self.size.train if command[0] == "train" else (*self.size.search, *self.size.train)
        return self._start(words, settings, self.run)

    def _named(self, command: Sequence[str]) -> list[str]:
        stands_for = {RUN: str(self.run), ARCHITECTURE: str(self.architecture)}
        if self.row.point is not None:
            stands_for[SEARCHED] = str(self.folder / f"{self.row.point[0]}-{self.seed}" / "run")
        return [stands_for.get(word, word) for word in command]

    def _start(self, words: Sequence[str], settings: Sequence[str], out: Path) -> list[str]:
        """A command that starts a run, or goes on with it."""
        options = [part for setting in settings for part in ("--set", setting)]
        resume = ["--resume"] if (out / "config.yaml").exists() else []
        return [*words, "--data", self.data, "--seed", str(self.seed), *options, "--out", str(out), *resume]

    def _at_rates(self, command: Sequence[str]) -> list[Path] | None:
        """Trainings at all rates, or at the one that was chosen; None if the time was up."""
        found = str(RunDirectory(self.run).architecture)
        words = self._named([found if word == RUN else word for word in command])
        rates = (self._best_rate(),) if self.rate.exists() else self.table.rates
        runs = []
        for rate in rates:
            out = self.place / f"rate-{rate:g}"
            settings = (*self.size.train, f"train.learning_rate={rate:g}")
            if not self._is_run(out.name, self._start(words, settings, out)):
                return None
            runs.append(out)
        return runs

    def _best_rate(self) -> float:
        return float(read_json(self.rate))

    def _is_run(self, name: str, words: Sequence[str]) -> bool:
        """Whether a command is done in the end; its time is counted."""
        done = self.place / f"{name}.done"
        if done.exists():
            return True
        if time.monotonic() >= self.end:
            return False
        print(f"{self.row.name}, seed {self.seed}: hwnas {' '.join(words)}", flush=True)
        started = time.monotonic()
        # Told before it is begun: another call may go on with it by other code.
        self._spend(0)
        try:
            if not run_until(words, self.end):
                return False
        finally:
            self._spend(time.monotonic() - started)
        done.touch()
        return True

    @property
    def _spent(self) -> dict[str, Any]:
        """What its commands took but for those that were killed, and by which code and machines they were run."""
        file = self.place / "spent.json"
        found: dict[str, Any] = read_json(file) if file.exists() else {"seconds": 0, "commits": [], "machines": []}
        return found

    def _spend(self, seconds: float) -> None:
        before = self._spent
        now = {
            "seconds": before["seconds"] + seconds,
            "commits": sorted({*before["commits"], commit()}),
            "machines": sorted({*before["machines"], machine()}),
        }
        write_text(self.place / "spent.json", json.dumps(now, indent=1))

    def _keep(self, run: Path) -> None:
        path = RunDirectory(run).architecture if self.row.commands else self.architecture
        architecture = load_architecture(path)
        figures = {"learning rate": self._best_rate()} if self.row.commands and self.table.rates else {}
        for label, (metric, unit) in COSTS.items():
            figures[label] = cost_model(metric).architecture_cost(architecture).value / unit
        if self.table.measure is not None:
            figures |= self.table.measure(run)
        self._spend(0)
        steps = self.size.train_steps if self.row.commands else 0
        kept = {"figures": figures, **self._spent, "steps": steps, "run": run.name if self.row.commands else None}
        write_text(self.place / "row.json", json.dumps(kept, indent=1))
