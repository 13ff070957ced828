"""Latency tables: what every operator of a space takes on a device, from networks that were measured there."""
