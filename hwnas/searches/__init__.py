"""Searches by name."""

from hwnas.searches.base import SEARCHES, Candidate, Machines, Search, SearchResult, SearchTask
from hwnas.searches.falsr.search import FALSR
from hwnas.searches.quantnas.search import QuantNAS

SEARCHES.register("quantnas")(QuantNAS())
SEARCHES.register("falsr")(FALSR())

__all__ = ["SEARCHES", "Candidate", "Machines", "Search", "SearchResult", "SearchTask"]
