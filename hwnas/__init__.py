"""hwnas: the best super-resolution network for a device and a budget, searched, trained, quantised, exported."""

__version__ = "0.1.0"
