"""A search by gradients: a session of alpha and weight steps, then the best that its supernet can be cut down to."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from hwnas.searches.base import Search, SearchResult, SearchTask
from hwnas.searches.differentiable.choices import Choices
from hwnas.searches.differentiable.front import derive_result
from hwnas.searches.differentiable.session import Session


class DifferentiableSearch(Search):
    """What is particular of one: how its session begins, and what there is to choose from in the end."""

    @abstractmethod
    def begin(self, task: SearchTask) -> Session[Any, Any, Any]:
        """A session, which goes on from the task's state where there is one.

        Raises:
            UsageError: if the space is none for this search, or the budgets cannot be met.
        """

    @abstractmethod
    def choices(self, session: Session[Any, Any, Any]) -> Choices:
        """What the supernet of a session that is over can be cut down to."""

    def run(self, task: SearchTask) -> SearchResult:
        session = self.begin(task)
        session.run()
        primary = session.pressures[0].budget
        return derive_result(session.task, session.supernet, self.choices(session), primary, session.settings)
