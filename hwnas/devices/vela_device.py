"""Ethos-U processors, which are not here: their compiler estimates how long they take."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from hwnas.devices.device import DEVICES, Device, Probe, Timing
from hwnas.devices.measurement import Fingerprint, LayerTime, Measurement
from hwnas.errors import not_installed
from hwnas.progress import Progress


@DEVICES.register("vela")
class VelaDevice(Device):
    """What Vela says; it knows no clock, so every number is the vendor's estimate."""

    method = "vendor-estimated"
    connections = ("compiler",)

    def missing(self) -> str | None:
        return None if find_spec("ethosu") else str(not_installed("Vela", "npu"))

    def probe(self) -> Probe:
        if find_spec("ethosu") is None:
            raise not_installed("Vela", "npu")
        accelerator = self.target.accelerator or ""
        fingerprint = Fingerprint(
            hardware=accelerator,
            machine="ethos-u",
            system=platform.system(),
            runtime="vela",
            runtime_version=version("ethos-u-vela"),
            provider=self.target.provider,
            threads=self.target.threads,
        )
        return Probe(fingerprint, None, ("its times are estimates of the vendor's compiler",))

    def measure(self, paths: Sequence[Path], timing: Timing, progress: Progress) -> list[Measurement]:
        from hwnas.exporters.vela import compile_tflite

        fingerprint, found = self.probe().fingerprint, {}
        bar = progress.task("estimate", len(set(paths)))
        for path in dict.fromkeys(paths):
            with TemporaryDirectory(prefix="hwnas-") as folder:
                compiled = compile_tflite(path, self.target, Path(folder) / "compiled.tflite")
            cycles = sum(cycles for *_, cycles in compiled.operations) or 1
            layers = [
                LayerTime(name=name, kind=kind, ms=compiled.estimated_ms * own / cycles)
                for kind, name, own in compiled.operations
            ]
            found[path] = Measurement(
                method=self.method,
                rounds_ms=((compiled.estimated_ms,),),
                layers=tuple(layers) if timing.layers else (),
                peak_bytes=compiled.sram_bytes,
                fingerprint=fingerprint,
            )
            bar.advance()
        return [found[path] for path in paths]

    def close(self) -> None:
        pass
