"""What runs trials: processes of this machine, or a cluster. Workers may die; a search does not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from hwnas.searches.falsr.trial import Answer, Outcome, TrialPlan

ATTEMPTS = 2
"""How often a candidate is tried."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial has no outcome.

    Attributes:
        reason: in one line.
        fault: whose: the candidate's own, or the worker's, which can train none; None where nobody can tell.
    """

    reason: str
    fault: Literal["candidate", "worker"] | None = None


def result_of(said: Answer) -> Outcome | Failure:
    """What a worker has said of a trial."""
    kind, text = said
    if kind == "outcome":
        return Outcome.model_validate_json(text)
    return Failure(text, "candidate" if kind == "diverged" else "worker" if kind == "unable" else None)


Ended = tuple[TrialPlan, Outcome | Failure]


class Workers(ABC):
    """Runs trials, several at once; a context manager, and what runs when it is left is ended.

    ``capacity`` is how many trials are worth handing over at once.
    """

    @property
    @abstractmethod
    def capacity(self) -> int: ...

    @abstractmethod
    def start(self, plan: TrialPlan) -> None:
        """Hand over a trial; returns at once."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Ended]:
        """The trials that have ended since it was last asked, in any order; none after so many seconds.

        A trial whose worker died, or raised an error, ends in a `Failure`.

        Raises:
            HwnasError: if there is no worker left that could run what was handed over.
        """

    def __enter__(self) -> Workers:
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def run_trials(workers: Workers, plans: Iterable[TrialPlan], patience: float = 1.0) -> Iterator[Ended | None]:
    """Run all trials, each up to twice; yields those that have ended, in any order, and None while it waits.

    Args:
        workers: entered already.
        plans: the trials.
        patience: seconds between two times that it yields None.

    Raises:
        HwnasError: if no worker is left.
    """
    waiting, attempts, running = deque(plans), Counter[str](), 0
    while waiting or running:
        while waiting and running < workers.capacity:
            plan = waiting.popleft()
            attempts[plan.architecture.fingerprint] += 1
            workers.start(plan)
            running += 1
        ended = workers.wait(patience)
        if not ended:
            yield None
        for plan, result in ended:
            running -= 1
            if isinstance(result, Failure) and attempts[plan.architecture.fingerprint] < ATTEMPTS:
                waiting.append(plan)
            else:
                yield plan, result
