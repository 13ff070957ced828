"""Contracts for authors of plugins: subclass one, say what to test, and pytest finds the rest.

Example:
    class TestMyFormat(ExporterContract):
        exporter = MyExporter()
"""

from hwnas.testing.device import DeviceContract
from hwnas.testing.exporter import ExporterContract

__all__ = ["DeviceContract", "ExporterContract"]
