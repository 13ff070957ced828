"""Searches by name."""

from hwnas.searches.base import SEARCHES, Candidate, Search, SearchResult, SearchTask
from hwnas.searches.quantnas.search import QuantNAS

SEARCHES.register("quantnas")(QuantNAS())

__all__ = ["SEARCHES", "Candidate", "Search", "SearchResult", "SearchTask"]
