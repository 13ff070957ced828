"""What is asked of workers and devices, and what becomes of their answers; workers and device are the test's own."""

import csv
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.architecture import Architecture
from hwnas.budget import parse_budget
from hwnas.cost_models import cost_model
from hwnas.errors import HwnasError
from hwnas.latency.cost import LatencyCost
from hwnas.searches.falsr.feasibility import cost_range
from hwnas.searches.falsr.log import Log, Trial
from hwnas.searches.falsr.problem import Term
from hwnas.searches.falsr.search import FALSR
from hwnas.searches.falsr.selection import hypervolume
from hwnas.searches.falsr.trial import Outcome, TrialPlan
from hwnas.searches.falsr.workers import Ended, Failure, Workers
from tests.falsr.searching import TINY, small_task
from tests.falsr.test_search import Told, rows

Answer = Callable[[TrialPlan], Outcome | Failure]


def parameters(architecture: Architecture) -> float:
    return cost_model("params").architecture_cost(architecture).value


def by_size(plan: TrialPlan) -> Outcome:
    """The larger the better, but for chance that is the same each time."""
    chance = int(plan.architecture.fingerprint, 16) % 1000 / 2000
    psnr = 20 + math.log(parameters(plan.architecture)) + chance
    return Outcome(psnr=psnr, rung_psnr=psnr - 1, steps=plan.settings.steps, seconds=1.0)


def failing(which: range, failure: Failure) -> Answer:
    """`by_size`, but for these of the trials, in the order that they are started."""
    started = itertools.count()
    return lambda plan: failure if next(started) in which else by_size(plan)


class Instant(Workers):
    """Answers at once, the last that was asked first."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.plans: list[TrialPlan] = []
        self._ended: list[Ended] = []

    @property
    def capacity(self) -> int:
        return 4

    def start(self, plan: TrialPlan) -> None:
        self.plans.append(plan)
        self._ended.append((plan, self.answer(plan)))

    def wait(self, seconds: float) -> list[Ended]:
        return [self._ended.pop()] if self._ended else []

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Instant]:
    """Puts instant workers in the place of real ones."""

    def put(answer: Answer = by_size) -> Instant:
        workers = Instant(answer)

        @contextmanager
        def opened(*_: Any) -> Iterator[Workers]:
            yield workers

        monkeypatch.setattr("hwnas.searches.falsr.search.open_workers", opened)
        return workers

    return put


def test_each_candidate_has_a_seed_of_its_own_that_is_always_the_same(
    instant: Callable[..., Instant], tmp_path: Path
) -> None:
    seeds = []
    for name in "ab":
        workers = instant()
        FALSR().run(small_task(tmp_path / name))
        seeds.append({plan.architecture.fingerprint: plan.seed for plan in workers.plans})
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0].values())) == len(seeds[0]) == 12


def test_results_in_any_order_give_the_same_search(instant: Callable[..., Instant], tmp_path: Path) -> None:
    instant()
    last_first = FALSR().run(small_task(tmp_path / "a"))
    workers = instant()
    workers.wait = lambda seconds: [workers._ended.pop(0)] if workers._ended else []  # type: ignore[method-assign]
    assert FALSR().run(small_task(tmp_path / "b")) == last_first


def test_the_front_is_of_all_who_were_tried_not_of_those_who_survived(
    instant: Callable[..., Instant], tmp_path: Path
) -> None:
    instant()
    result = FALSR().run(small_task(tmp_path, population=2, generations=12))
    points = [(-float(r["psnr_db"]), float(r["flops"]), float(r["params"])) for r in rows(tmp_path)]
    best = [p for p in points if not any(all(a <= b for a, b in zip(q, p, strict=True)) and q != p for q in points)]
    assert len(result.front) == len(best) > 2


@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_hopeless_is_who_is_behind_one_that_costs_no_more_in_anything(
    instant: Callable[..., Instant], tmp_path: Path, margin: float
) -> None:
    workers = instant()
    early = {**TINY, "early_stop": margin}
    FALSR().run(small_task(tmp_path, population=6, generations=4, evaluation=early))
    table = {row["architecture"]: row for row in rows(tmp_path)}

    def costs(row: dict[str, str]) -> tuple[float, float]:
        return float(row["flops"]), float(row["params"])

    bounded = 0
    for plan in workers.plans:
        row = table[plan.architecture.fingerprint]
        before = [other for other in table.values() if int(other["generation"]) < int(row["generation"])]
        cheaper = [o for o in before if all(a <= b for a, b in zip(costs(o), costs(row), strict=True))]
        expected = max((float(o["psnr_db"]) - 1 for o in cheaper), default=None)
        assert plan.stop_below == (None if expected is None else pytest.approx(expected - margin, abs=1e-3))
        bounded += expected is not None
    assert 5 < bounded < len(workers.plans)


def test_who_was_given_up_is_on_no_front(instant: Callable[..., Instant], tmp_path: Path) -> None:
    def answer(plan: TrialPlan) -> Outcome:
        found = by_size(plan)
        # The rung flatters: it is higher than what comes in the end.
        return found.model_copy(update={"psnr": 99.0, "stopped": True}) if plan.stop_below is not None else found

    instant(answer)
    early = {**TINY, "early_stop": 0.1}
    result = FALSR().run(small_task(tmp_path, population=6, generations=3, evaluation=early))
    assert any(row["stopped"] == "1" for row in rows(tmp_path))
    assert all(candidate.psnr < 99 for candidate in result.front)
    assert not any(row["front"] for row in rows(tmp_path) if row["stopped"] == "1")


def test_the_hypervolume_is_within_the_budget_and_what_the_space_has(
    instant: Callable[..., Instant], tmp_path: Path
) -> None:
    instant()
    told = Told()
    task = small_task(tmp_path, ["25KParams"], told)
    FALSR().run(task)
    stated = float(told.lines[-1].split("hypervolume ")[1].split(" dB")[0])
    flops = cost_model("flops")
    least, most = cost_range(task.space, Term(flops, flops.default_input_size))
    smallest, _ = cost_range(task.space, Term(cost_model("params"), (1, 1)))
    found = [(float(r["psnr_db"]), float(r["flops"]), float(r["params"])) for r in rows(tmp_path)]
    shares = [
        [-psnr, math.log(f / least) / math.log(most / least), math.log(p / smallest) / math.log(25_000 / smallest)]
        for psnr, f, p in found
    ]
    from hwnas.inference import Validation

    worst = min(float(r["psnr_db"]) for r in rows(tmp_path) if r["generation"] == "0")
    reference = min(worst, Validation(task.data.validation, 2).bicubic_psnr())
    assert stated == pytest.approx(hypervolume(np.array(shares), np.array([-reference, 1.0, 1.0])), abs=2e-3)


def test_failures_that_are_not_the_candidates_are_tried_again_after_a_resume(
    instant: Callable[..., Instant], tmp_path: Path
) -> None:
    instant(failing(range(4, 100), Failure("its process died")))
    with pytest.raises(HwnasError, match="4 of 4 candidates could not be tried: its process died; mend"):
        FALSR().run(small_task(tmp_path))
    log = Log(tmp_path / "search" / "trials.jsonl")
    assert len(log.trials) == 4 and all(trial.outcome for trial in log.trials.values())
    instant()
    FALSR().run(small_task(tmp_path))
    assert all(trial.outcome for trial in Log(log.path).trials.values())


def always(failures: Mapping[int, Failure]) -> Answer:
    """`by_size`, but for some of the architectures, in the order that they first come; each fails for good."""
    order: dict[str, int] = {}

    def answer(plan: TrialPlan) -> Outcome | Failure:
        place = order.setdefault(plan.architecture.fingerprint, len(order))
        return failures.get(place) or by_size(plan)

    return answer


DIED, DIVERGED, UNABLE = (Failure("it died", fault) for fault in (None, "candidate", "worker"))  # type: ignore[arg-type]


def test_a_search_that_was_killed_before_it_settled_failures_settles_them_as_it_would_have(
    instant: Callable[..., Instant], tmp_path: Path
) -> None:
    instant(always({1: DIED, 3: DIED}))
    whole = FALSR().run(small_task(tmp_path / "a"))
    path = tmp_path / "b" / "search" / "trials.jsonl"
    path.parent.mkdir(parents=True)
    lines = (tmp_path / "a" / "search" / "trials.jsonl").read_text().splitlines(keepends=True)
    # The two that succeeded in the first generation, and nothing of those that failed.
    path.write_text("".join([line for line in lines[:4] if "error" not in line]))
    instant(always({0: DIED, 1: DIED}))
    assert FALSR().run(small_task(tmp_path / "b")) == whole


def test_one_that_diverges_does_not_make_the_others_failures_theirs(
    instant: Callable[..., Instant], tmp_path: Path
) -> None:
    instant(always({0: DIVERGED, 1: DIED, 2: DIED, 3: DIED}))
    with pytest.raises(HwnasError, match="3 of 4 candidates could not be tried: it died; mend that"):
        FALSR().run(small_task(tmp_path))
    assert len(Log(tmp_path / "search" / "trials.jsonl").trials) == 1


def test_a_worker_that_can_train_none_is_no_reason_to_leave_a_candidate_out(
    instant: Callable[..., Instant], tmp_path: Path
) -> None:
    instant(always({5: UNABLE}))
    with pytest.raises(HwnasError, match="1 of 4 candidates could not be tried: it died; mend that"):
        FALSR().run(small_task(tmp_path))
    instant()
    FALSR().run(small_task(tmp_path))
    assert not any(row["error"] for row in rows(tmp_path))


@pytest.mark.parametrize("tried_before", [False, True])
def test_a_failure_that_has_none_beside_it_is_judged_by_those_before(
    instant: Callable[..., Instant], tmp_path: Path, tried_before: bool
) -> None:
    least, _ = cost_range(small_task(tmp_path).space, Term(cost_model("params"), (1, 1)))
    log = Log(tmp_path / "search" / "trials.jsonl")
    if tried_before:
        log.add(Trial(architecture="another", outcome=Outcome(psnr=30.0, steps=4, seconds=1.0)))
    instant(always({0: DIED}))
    expected = "none of 1 candidates could be trained" if tried_before else "1 of 1 candidates could not be tried"
    with pytest.raises(HwnasError, match=expected):
        FALSR().run(small_task(tmp_path, [f"{least:.0f}Params"]))


def test_candidates_that_diverge_are_passed_even_if_it_is_a_whole_generation(
    instant: Callable[..., Instant], tmp_path: Path
) -> None:
    workers = instant(failing(range(4, 12), Failure("the loss became nan in step 2", "candidate")))
    result = FALSR().run(small_task(tmp_path))
    assert result.front
    assert sum(bool(row["error"]) for row in rows(tmp_path)) == 4
    # Each of them was tried twice.
    assert len(workers.plans) == 12 + 4


class Clock:
    """A device of which one knows what each network takes: its parameters over a hundred, and slower every time."""

    def __init__(self) -> None:
        self.speed = 1.0
        self.name = "a board"
        self.asked: list[str] = []

    def measure(self, model: LatencyCost, networks: Any, size: Any, progress: Any) -> list[float]:
        self.speed *= 2
        self.asked += [network.fingerprint for network in networks]
        model.yardstick = self.speed * 10
        return [parameters(network) / 100 * self.speed for network in networks]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    device = Clock()
    monkeypatch.setattr(
        LatencyCost, "measure", lambda self, networks, size, progress: device.measure(self, networks, size, progress)
    )
    monkeypatch.setattr(LatencyCost, "measured_on", property(lambda self: {"hardware": device.name, "cores": "4"}))
    return device


def test_times_are_stated_at_the_speed_that_the_device_had_when_the_search_began(
    instant: Callable[..., Instant], clock: Clock, tmp_path: Path
) -> None:
    instant()
    FALSR().run(small_task(tmp_path, objectives=["latency@cpu", "params"], generations=3))
    for row in rows(tmp_path):
        # The first session's speed is 2, whatever it is by now.
        assert float(row["latency@cpu_measured"]) == pytest.approx(float(row["params"]) / 100 * 2)
    assert clock.speed > 2 and len(clock.asked) == len(set(clock.asked))


def test_measured_candidates_are_not_measured_again(
    instant: Callable[..., Instant], clock: Clock, tmp_path: Path
) -> None:
    instant()
    first = FALSR().run(small_task(tmp_path, objectives=["latency@cpu", "params"]))
    asked = list(clock.asked)
    again = FALSR().run(small_task(tmp_path, objectives=["latency@cpu", "params"]))
    assert clock.asked == asked
    assert [c.measured for c in again.front] == [c.measured for c in first.front]


def test_another_device_is_refused(instant: Callable[..., Instant], clock: Clock, tmp_path: Path) -> None:
    instant()
    FALSR().run(small_task(tmp_path, objectives=["latency@cpu", "params"], generations=1))
    clock.name = "another board"
    with pytest.raises(HwnasError, match="or this one was in another state: hardware a board, now another board;"):
        FALSR().run(small_task(tmp_path, objectives=["latency@cpu", "params"], generations=5))


def test_times_whose_device_is_not_known_any_more_are_measured_again(
    instant: Callable[..., Instant], clock: Clock, tmp_path: Path
) -> None:
    instant()
    FALSR().run(small_task(tmp_path, objectives=["latency@cpu", "params"], generations=1))
    path, asked = tmp_path / "search" / "trials.jsonl", len(clock.asked)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if '"speed"' not in line))
    FALSR().run(small_task(tmp_path, objectives=["latency@cpu", "params"], generations=1))
    assert len(clock.asked) == 2 * asked


def test_a_budget_in_time_that_nothing_meets_ends_with_the_nearest(
    instant: Callable[..., Instant], clock: Clock, tmp_path: Path
) -> None:
    workers = instant()
    task = small_task(tmp_path, ["30ms@24x32"], objectives=["latency@cpu", "params"])
    parse_budget("30ms@24x32").model.yardstick = 20.0
    with pytest.raises(HwnasError, match=r"was found within 30 ms at 24x32; the nearest has .* ms measured of 30 ms"):
        FALSR().run(task)
    assert not workers.plans


def test_the_table_of_candidates_is_plain_csv(instant: Callable[..., Instant], tmp_path: Path) -> None:
    instant()
    FALSR().run(small_task(tmp_path, objectives=["bitops", "params", "flops"]))
    with (tmp_path / "candidates.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert all(row["bitops"].isdecimal() and row["flops"].isdecimal() and row["params"].isdecimal() for row in found)
