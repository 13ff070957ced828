"""The quantised graph of a runtime, from the one that Brevitas writes; every pass computes the same numbers."""

from hwnas.exporters.graph.adapt import adapt

__all__ = ["adapt"]
