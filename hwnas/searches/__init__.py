"""Searches by name."""

from hwnas.searches.base import SEARCHES, Candidate, Machines, Search, SearchResult, SearchTask
from hwnas.searches.falsr.search import FALSR
from hwnas.searches.quantnas.search import QuantNAS
from hwnas.searches.trilevel.search import Trilevel

SEARCHES.register("quantnas")(QuantNAS())
SEARCHES.register("falsr")(FALSR())
SEARCHES.register("trilevel")(Trilevel())

__all__ = ["SEARCHES", "Candidate", "Machines", "Search", "SearchResult", "SearchTask"]
