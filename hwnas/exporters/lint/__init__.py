"""The rules of runtimes, checked on the graph itself."""

from hwnas.exporters.lint.base import Finding
from hwnas.exporters.lint.check import RULES, check_model, require_rules

__all__ = ["RULES", "Finding", "check_model", "require_rules"]
