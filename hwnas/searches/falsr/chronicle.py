"""What a search tells of itself: a line for each generation, tables, pictures, and in the end its front."""

from __future__ import annotations

import math

import numpy as np

from hwnas.budget import format_quantity
from hwnas.files import write_text
from hwnas.reports.search_figures import Generation, Objective, Point
from hwnas.reports.search_report import write_search_report
from hwnas.searches.base import Candidate, SearchResult, SearchTask
from hwnas.searches.falsr.evolution import FREE, Evolution, Individual
from hwnas.searches.falsr.feasibility import cost_range
from hwnas.searches.falsr.judge import TrialJudge
from hwnas.searches.falsr.selection import Floats, fronts, hypervolume
from hwnas.searches.falsr.table import candidates_table, describe
from hwnas.spaces.falsr import FALSRSpace


class Chronicle:
    """Notes what becomes of a search.

    The hypervolume is over the PSNR above bicubic enlargement (or above the worst of the first generation, if that is
    lower), and over each objective as its place between the least that the space has and the most that is allowed, or,
    of those that are measured, that the first generation had; on a logarithmic scale. It is the dB that the best
    network within budgets gains, averaged over all such budgets.

    Args:
        task: the search.
        evolution: what it does.
        bicubic_psnr: what bicubic enlargement scores on the same images, in dB.
    """

    def __init__(self, task: SearchTask[FALSRSpace], evolution: Evolution, bicubic_psnr: float) -> None:
        self.task = task
        self.evolution = evolution
        self.bicubic_psnr = bicubic_psnr
        self.history: list[Generation] = []
        self._scale: tuple[float, Floats, Floats] | None = None
        self._resumed = 0

    def note(self, generation: int, judge: TrialJudge) -> None:
        """A generation is done."""
        best = max(individual.psnr for individual in self.evolution.everyone)
        volume = self.hypervolume()
        costs = [individual.costs for individual in self._within() or self.evolution.everyone]
        least = tuple(min(cost[i] for cost in costs) for i in self.evolution.problem.objectives)
        self.history.append(Generation(generation, len(judge.tried), volume, best, least))
        members = self.front()
        judge.figures.update(
            generation=f"{generation}/{self.evolution.settings.generations}",
            front=str(len(members)),
            hypervolume=f"{volume:.3f} dB",
            best=f"{best:.2f} dB",
        )
        judge.bar.advance(0, **judge.figures)
        if judge.trained == 0:  # all of it was known
            self._resumed = generation + 1
            return
        if self._resumed:
            last = self._resumed - 1
            self.task.progress.say(f"generation{f's 0 to {last} were' if last else ' 0 was'} done before")
            self._resumed = 0
        self.task.progress.say(self._line(generation, members, judge))
        self.write(judge)

    def hypervolume(self) -> float:
        """Of all that were tried and violate no constraint, in dB; see the class."""
        if self._scale is None:
            values = self.evolution.values(self.evolution.everyone)
            self._scale = min(self.bicubic_psnr, float(-values[:, 0].max())), *self._range(values[:, 1:])
        least, low, high = self._scale
        if not (within := self._within()):
            return 0.0
        values = self.evolution.values(within)
        # Nothing is gained by costing less than the least.
        shares = np.maximum((values[:, 1:] - low) / np.where(high > low, high - low, 1.0), 0.0)
        return hypervolume(np.column_stack([values[:, 0], shares]), np.array([-least, *np.ones(len(low))]))

    def _range(self, first: Floats) -> tuple[Floats, Floats]:
        """Logarithms of the least and the most of each objective: of measured ones, in the first generation."""
        low, high = first.min(0), first.max(0)
        problem = self.evolution.problem
        for column, term in enumerate(problem.objectives):
            if problem.terms[term].model.additive and term not in problem.measured:
                least, most = cost_range(self.task.space, problem.terms[term])
                low[column], high[column] = (math.log(max(cost, FREE)) for cost in (least, most))
            if math.isfinite(problem.terms[term].limit):
                high[column] = min(high[column], math.log(problem.terms[term].limit))
        return low, high

    def _within(self) -> list[Individual]:
        """Who violates no constraint."""
        return [individual for individual in self.evolution.everyone if not self.evolution.violation(individual)]

    def front(self) -> list[Individual]:
        """Who is not dominated by anyone tried, among those who violate no constraint; the best if all do."""
        if not (within := self._within()):
            return [max(self.evolution.everyone, key=lambda individual: individual.psnr)]
        first, *_ = fronts(self.evolution.values(within))
        return sorted((within[i] for i in first), key=lambda individual: (individual.costs, -individual.psnr))

    def chosen(self, front: list[Individual]) -> Individual:
        """The best network; where the PSNR alone is bounded, the one that costs least of the first objective."""
        objective = self.evolution.problem.objectives[0]
        if self.evolution.settings.min_psnr is not None and not self.task.budgets:
            return min(front, key=lambda individual: individual.costs[objective])
        return max(front, key=lambda individual: individual.psnr)

    def result(self, judge: TrialJudge) -> SearchResult:
        """The front as a search returns it."""
        self.write(judge)
        members = self.front()
        crowding = self.evolution.ranking(members).crowding
        terms = self.evolution.problem.terms
        candidates = []
        for i, individual in enumerate(members):
            known = {term.model.name: cost for term, cost in zip(terms, individual.costs, strict=True)}
            measured = {terms[j].model.name: individual.costs[j] for j in self.evolution.problem.measured}
            counted = {name: cost for name, cost in known.items() if name not in measured}
            architecture = self.task.space.architecture(individual.genotype, f"{self.task.space.name}-{i:02d}")
            candidates.append(Candidate(architecture, counted, float(crowding[i]), individual.psnr, measured))
        chosen = candidates[members.index(self.chosen(members))]
        return SearchResult(chosen.architecture, tuple(candidates), self._missed())

    def _missed(self) -> str | None:
        """What was asked for and is not met by anybody yet."""
        if self._within():
            return None
        best = max(individual.psnr for individual in self.evolution.everyone)
        return (
            f"no candidate reached {self.evolution.settings.min_psnr:.2f} dB; the best, which is kept, has {best:.2f} "
            "dB: train it, or search with a lower --min-psnr"
        )

    def write(self, judge: TrialJudge) -> None:
        """``candidates.csv`` and ``report.html`` as of now."""
        members = self.front()
        places = {individual.genotype: i for i, individual in enumerate(members)}
        problem = self.evolution.problem
        write_text(self.task.run.candidates, candidates_table(problem, judge.tried, places))
        objectives = [
            Objective(term.model.name, term.model.unit, term.model.at(term.size).removeprefix(" at "))
            for term in (problem.terms[i] for i in problem.objectives)
        ]
        chosen = self.chosen(members)
        points = [
            Point(
                generation=generation,
                psnr=trial.outcome.psnr,
                costs=tuple(proposal.costs[i] for i in problem.objectives),
                front=places.get(genotype),
                chosen=genotype == chosen.genotype,
                stopped=trial.outcome.stopped,
                network=describe(genotype),
            )
            for genotype, (proposal, generation, trial) in judge.tried.items()
            if trial.outcome is not None
        ]
        write_search_report(
            self.task.run.report,
            f"{self.task.run.path.name}: search by FALSR",
            self._subtitle(judge),
            objectives,
            points,
            self.history,
        )

    def _subtitle(self, judge: TrialJudge) -> list[str]:
        stopped = sum(t.outcome is not None and t.outcome.stopped for _, _, t in judge.tried.values())
        rejected = self.evolution.rejected
        bounds = [str(budget) for budget in self.task.budgets]
        evaluation, least = self.evolution.settings.evaluation, self.evolution.settings.min_psnr
        if least is not None:
            bounds.append(f"at least {least:.2f} dB, below which a network is on no front and in no hypervolume")
        middle = f"the middle {evaluation.validation_crop}x{evaluation.validation_crop} low-resolution pixels of "
        scored = f"scored on {middle if evaluation.validation_crop else ''}each validation image"
        missed = [missed] if (missed := self._missed()) is not None else []
        failed = sum(trial.outcome is None for _, _, trial in judge.tried.values())
        return [
            *missed,
            f"{len(judge.tried)} candidates in {len(self.history)} generations, each trained for {evaluation.steps} "
            f"steps and {scored}; bicubic enlargement has {self.bicubic_psnr:.2f} dB there",
            f"constraints: {', '.join(bounds) or 'none'}",
            "a network is written as its cells (kind, filters, kernel, blocks, residual) and its connections, a row of "
            "bits for each node",
            f"not trained: {rejected['over budget']} over a budget, {rejected['duplicate']} duplicates; given up: "
            f"{stopped}; failed: {failed}",
        ]

    def _line(self, generation: int, members: list[Individual], judge: TrialJudge) -> str:
        problem = self.evolution.problem
        units = [problem.terms[t].model.unit for t in problem.objectives]
        least = [format_quantity(cost, unit) for cost, unit in zip(self.history[-1].least, units, strict=True)]
        figures, settings = judge.figures, self.evolution.settings
        # Of generations that are to come some may be in the log.
        to_do = settings.population * (settings.generations + 1) - max(len(judge.tried), len(judge.log.trials))
        left = f", about {math.ceil(to_do / judge.rate)} min left" if to_do > 0 else ""
        return (
            f"generation {figures['generation']}: front {len(members)}, hypervolume {figures['hypervolume']}, "
            f"best {figures['best']}, least {' and '.join(least)}; {figures['trials/min']} trials/min{left}"
        )
