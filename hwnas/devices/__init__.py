"""Devices: what networks are made for, how it is reached, and how long they take there."""

import hwnas.devices.adb_device
import hwnas.devices.runner_device
import hwnas.devices.vela_device  # noqa: F401  all register their classes
from hwnas.devices.device import DEVICES, Device, Probe, Timing, open_device
from hwnas.devices.measurement import Fingerprint, LayerTime, Measurement, Method

__all__ = [
    "DEVICES",
    "Device",
    "Fingerprint",
    "LayerTime",
    "Measurement",
    "Method",
    "Probe",
    "Timing",
    "open_device",
]
