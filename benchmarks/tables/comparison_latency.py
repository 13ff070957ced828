"""What is best within 20 ms on this CPU, in int8, of 90x160 pixels: found, and made by hand as wide as there is time.

    python benchmarks/tables/comparison_latency.py --data t91-bsd200 --test Set5 --test Set14 --seeds 3 --docs

All are of 8 bits and add a bicubic enlargement; the same photographs, steps and quantisers. What is timed is the int8
file, by ONNX Runtime: leave the machine alone. Ours is found in the space of TrilevelNAS that shuffles pixels last, by
a table that is measured first, and has all four cells: the likeliest path of a short search is of one, and leaves two
thirds of the time. QuantNAS's networks convolve at high resolution: of 18 channels the fastest takes those 20 ms.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import hand_made
from driver import main
from published import RUN, Published, Row
from running import answer

from hwnas.architecture import Architecture
from hwnas.cli.run import SESSIONS_DIFFER
from hwnas.devices import Timing, open_device
from hwnas.devices.target import load_target
from hwnas.errors import HwnasError
from hwnas.exporters.untrained import write_untrained
from hwnas.progress import Silent
from hwnas.sizes import Size, format_size

CPU = load_target("cpu")
SPACE = (
    *("--algorithm", "trilevel", "--space", "trilevel-b", "--channels", "64"),
    *("--set", "space.network=fixed", "--set", "space.path=[0,0,0,0]"),
    *("--target", "cpu", "--bits", "8", "--bicubic"),
)

VECTOR = 4
"""Networks made by hand have a multiple of so many channels: with 74 an ECBSR takes longer than with 76."""

TURNS = 3
"""How often a network is measured at most, where something else was running."""


@dataclass(frozen=True)
class Within:
    """A budget in time.

    Attributes:
        milliseconds: that an image may take.
        size: height and width of the image.
        building: options that the table is built with.
    """

    milliseconds: float
    size: Size
    building: tuple[str, ...] = ()

    def rows(self) -> list[Row]:
        size = format_size(self.size)
        table = ("table", "build", *SPACE, *self.building, "--input-size", size)
        search = ("search", *SPACE, "--budget", f"{self.milliseconds:g}ms@{size}")
        return [
            Row("ours", {"network": "ours (trilevel-b)"}, (table, search, ("train", RUN))),
            *hand_made.rows(self.fits, VECTOR),
        ]

    def fits(self, architecture: Architecture) -> bool:
        # A hundred inferences of what is about to fit, and few of what is far too wide.
        timing = Timing(self.size, rounds=5, seconds=0.1 * self.milliseconds)
        with tempfile.TemporaryDirectory() as folder, open_device(CPU) as device:
            path = Path(folder) / "network.onnx"
            write_untrained(architecture, CPU, self.size, path)
            for _ in range(TURNS):
                (found,) = device.measure([path], timing, Silent())
                if not found.is_noisy:
                    break
            return found.p50 <= self.milliseconds

    def measure(self, run: Path) -> Mapping[str, float]:
        model = run / "model.onnx"
        answer("export", run, "--int8", "--output", model)
        # A thousand inferences at most.
        how = ("--input-size", format_size(self.size), "--seconds", f"{self.milliseconds:g}")
        for _ in range(TURNS):
            found = answer("profile", model, "--target", "cpu", *how)
            if not found["noisy"]:
                break
        taken: float = found["p50_ms"]
        if taken > (1 + SESSIONS_DIFFER) * self.milliseconds:
            raise HwnasError(f"{model} takes {taken:.3g} of {self.milliseconds:g} ms; go on when the machine is quiet")
        return {"ms": taken}

    def published(self) -> Published:
        title = f"Within {self.milliseconds:g} ms at {format_size(self.size)} in int8: found, and made by hand"
        return Published(
            "comparison-latency",
            title,
            self.rows,
            x="ms",
            measure=self.measure,
            note=f"{hand_made.NOTE} Widths are multiples of {VECTOR}.",
            rates=hand_made.RATES,
        )


if __name__ == "__main__":
    quick = Within(2, (24, 40), ("--calibration", "2", "--rounds", "3"))
    main(Within(20, (90, 160)).published(), quick=replace(quick.published(), rates=()))
