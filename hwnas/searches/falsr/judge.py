"""Finds out what candidates cost on devices and how good they are, each once, with the log as its memory."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hwnas.devices.target import load_target
from hwnas.errors import HwnasError
from hwnas.exporters.profiles import PROFILES
from hwnas.progress import Task
from hwnas.searches.base import SearchTask
from hwnas.searches.falsr.evolution import Proposal
from hwnas.searches.falsr.local_workers import LocalWorkers
from hwnas.searches.falsr.log import Log, Measured, Speed, Trial
from hwnas.searches.falsr.problem import Problem, Term
from hwnas.searches.falsr.settings import EvaluationSettings
from hwnas.searches.falsr.trial import Outcome, TrialData, TrialPlan
from hwnas.searches.falsr.workers import Failure, Workers, run_trials
from hwnas.spaces.falsr import FALSRSpace, Genotype

TOGETHER = 9
"""Networks that are measured before the log is written."""


@dataclass
class TrialJudge:
    """The `Judge` of a real search.

    Attributes:
        task: the search.
        problem: what it seeks.
        settings: how candidates are trained.
        log: what is known already.
        workers: entered.
        images: training images with room for the crops.
        bar: shows trials.
        figures: shown beside the bar.
        trained: trials that this process has run.
        rate: of these in a minute.
        tried: what is known of each candidate that was trained, by genotype, with the proposal it was.
    """

    task: SearchTask[FALSRSpace]
    problem: Problem
    settings: EvaluationSettings
    log: Log
    workers: Workers
    images: tuple[int, ...]
    bar: Task
    figures: dict[str, str] = field(default_factory=dict)
    trained: int = 0
    rate: float = 0.0
    tried: dict[Genotype, tuple[Proposal, int, Trial]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._started = time.monotonic()
        self._placement = PROFILES[load_target(self.task.target).profile].placement
        self._fingerprints: dict[Genotype, str] = {}

    def fingerprint(self, genotype: Genotype) -> str:
        """Of the genotype's architecture."""
        if genotype not in self._fingerprints:
            self._fingerprints[genotype] = self.task.space.architecture(genotype).fingerprint
        return self._fingerprints[genotype]

    def measure(self, genotypes: Sequence[Genotype]) -> list[dict[int, float]]:
        """Costs on devices, all at the speed that these had when the search began."""
        for i in self.problem.measured:
            metric = self.problem.terms[i].model.name
            unknown = [g for g in genotypes if (self.fingerprint(g), metric) not in self.log.ratios]
            for start in range(0, len(unknown), TOGETHER):
                self._measure(self.problem.terms[i], unknown[start : start + TOGETHER])

        def value(genotype: Genotype, metric: str) -> float:
            return self.log.ratios[self.fingerprint(genotype), metric] * self.log.speeds[metric].yardstick

        names = {i: self.problem.terms[i].model.name for i in self.problem.measured}
        return [{i: value(genotype, metric) for i, metric in names.items()} for genotype in genotypes]

    def _measure(self, term: Term, genotypes: Sequence[Genotype]) -> None:
        model = term.model
        architectures = [self.task.space.architecture(genotype) for genotype in genotypes]
        found = model.measure(architectures, term.size, self.task.progress)
        speed = Speed(metric=model.name, yardstick=model.yardstick, device=dict(model.measured_on))
        if (before := self.log.speeds.get(model.name)) is None:
            self.log.add(speed)
        elif before.device != speed.device:
            names = [name for name in before.device | speed.device if before.device.get(name) != speed.device.get(name)]
            different = "; ".join(f"{n} {before.device.get(n)}, now {speed.device.get(n)}" for n in names)
            raise HwnasError(
                f"{model.name} was measured on another device, or this one was in another state: {different}; go on "
                "where the search began, or begin another with --out"
            )
        for genotype, value in zip(genotypes, found, strict=True):
            self.log.add(
                Measured(architecture=self.fingerprint(genotype), metric=model.name, ratio=value / speed.yardstick)
            )

    def train(self, proposals: Sequence[Proposal], generation: int) -> list[float | None]:
        """PSNR after a short training; candidates that the log knows are not trained again."""
        unknown = [p for p in proposals if self.fingerprint(p.genotype) not in self.log.trials]
        failed: list[tuple[str, Failure]] = []
        for ended in run_trials(self.workers, [self._plan(proposal) for proposal in unknown]):
            if ended is None:
                self.bar.advance(0)
                continue
            plan, result = ended
            name = plan.architecture.fingerprint
            if isinstance(result, Outcome):
                self.log.add(Trial(architecture=name, outcome=result))
            else:
                failed.append((name, result))
            self.trained += 1
            self.rate = 60 * self.trained / (time.monotonic() - self._started)
            self.figures["trials/min"] = f"{self.rate:.3g}"
            self.bar.advance(**self.figures)
        self._settle(failed, proposals)
        found: list[float | None] = []
        for proposal in proposals:
            trial = self.log.trials[self.fingerprint(proposal.genotype)]
            self.tried[proposal.genotype] = proposal, generation, trial
            # Who was given up has a PSNR of half the training, which does not compare with that of the others.
            finished = trial.outcome is not None and not trial.outcome.stopped
            found.append(trial.outcome.psnr if finished and trial.outcome is not None else None)
        return found

    def _settle(self, failed: Sequence[tuple[str, Failure]], proposals: Sequence[Proposal]) -> None:
        """Leave out for good whose own fault it is that there is no outcome.

        Where nobody can tell it is taken for theirs, unless none of a generation has an outcome: then it is hardly
        the candidates' fault. Those whose fault it is not are not in the log, and tried again by a resumed search.
        """
        together = [self.fingerprint(proposal.genotype) for proposal in proposals]
        beside = self.log.trials if len(together) == 1 else together
        works = any(trial.outcome for name in beside if (trial := self.log.trials.get(name)) is not None)
        to_mend = []
        for name, failure in failed:
            if failure.fault == "candidate" or (failure.fault is None and works):
                self.log.add(Trial(architecture=name, error=failure.reason))
                self.task.progress.say(f"candidate {name} failed twice, and is left out: {failure.reason}")
            else:
                to_mend.append(failure)
        if to_mend:
            raise HwnasError(
                f"{len(to_mend)} of {len(together)} candidates could not be tried: {to_mend[-1].reason}; mend that, "
                "and go on with --resume"
            )

    def _plan(self, proposal: Proposal) -> TrialPlan:
        architecture = self.task.space.architecture(proposal.genotype)
        digest = hashlib.sha256(f"{self.task.seed}/{architecture.fingerprint}".encode()).digest()
        return TrialPlan(
            architecture=architecture,
            settings=self.settings,
            placement=self._placement,
            images=self.images,
            # The same whoever trains it, and whenever.
            seed=int.from_bytes(digest[:6], "big"),
            stop_below=self._hopeless_below(proposal),
        )

    def _hopeless_below(self, proposal: Proposal) -> float | None:
        """PSNR at the rung that is too low for a network of this cost."""
        if self.settings.early_stop is None:
            return None
        mine = [proposal.costs[i] for i in self.problem.objectives]
        cheaper = [
            trial.outcome.rung_psnr
            for other, _, trial in self.tried.values()
            if trial.outcome is not None
            and trial.outcome.rung_psnr is not None
            and all(other.costs[i] <= cost for i, cost in zip(self.problem.objectives, mine, strict=True))
        ]
        return max(cheaper) - self.settings.early_stop if cheaper else None


@contextmanager
def open_workers(task: SearchTask[FALSRSpace], data: TrialData) -> Iterator[Workers]:
    """Workers where the user wants them."""
    machines = task.machines
    if machines.ray is not None:
        from hwnas.searches.falsr.ray_workers import RayWorkers

        with RayWorkers(machines.ray, data, machines.cpus, machines.gpus) as workers:
            yield workers
        return
    folder = task.run.path / "search" / "images"
    try:
        data.save(folder)
        with LocalWorkers(machines.workers, folder, task.space.scale) as workers:
            yield workers
    finally:
        shutil.rmtree(folder, ignore_errors=True)
