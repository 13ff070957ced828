"""What is best within 20 ms on this CPU, in int8, of 90x160 pixels: found, and made by hand as wide as there is time.

    python benchmarks/tables/comparison_latency.py --data t91-bsd200 --test Set5 --test Set14 --seeds 3 --docs

All are of 8 bits and add a bicubic enlargement; the same photographs, steps and quantisers. What is timed is the int8
file, by ONNX Runtime: leave the machine alone. Ours is found in the space of TrilevelNAS that shuffles pixels last, by a
table that is measured first, and has all four cells: the likeliest path of a short search is of one, and leaves two
thirds of the time. QuantNAS's networks convolve at high resolution: of 18 channels the fastest takes those 20 ms.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import hand_made
from driver import RUN, Published, Row, main
from running import answer

from hwnas.architecture import Architecture

MILLISECONDS, SIZE = 20, "90x160"
SPACE = (
    *("--algorithm", "trilevel", "--space", "trilevel-b", "--channels", "64"),
    *("--set", "space.network=fixed", "--set", "space.path=[0,0,0,0]"),
    *("--target", "cpu", "--bits", "8", "--bicubic"),
)
BUDGET = f"{MILLISECONDS}ms@{SIZE}"


def _milliseconds(what: Path) -> float:
    measured: float = answer("profile", what, "--target", "cpu", "--input-size", SIZE)["p50_ms"]
    return measured


def fits(architecture: Architecture) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.json"
        architecture.save(path)
        return _milliseconds(path) <= MILLISECONDS


def measure(run: Path) -> Mapping[str, float]:
    model = run / "model.onnx"
    answer("export", run, "--int8", "--output", model)
    return {f"ms {SIZE}": _milliseconds(model)}


def rows() -> list[Row]:
    table = ("table", "build", *SPACE, "--input-size", SIZE)
    search = ("search", *SPACE, "--budget", BUDGET)
    return [Row("ours", {"network": "ours"}, (table, search, ("train", RUN))), *hand_made.rows(fits)]


if __name__ == "__main__":
    title = f"Within {BUDGET} in int8: found, and made by hand"
    main(Published("comparison-latency", title, rows, x=f"ms {SIZE}", measure=measure))
