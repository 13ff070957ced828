"""FALSR, table I: the published networks with their released weights, scored as the paper's figures were made.

python benchmarks/tables/falsr_1.py --weights falsr/ --test Set5 --test Set14 --docs
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from drawing import Figures, draw
from driver import benchmark, output_folder, parsed, parser, require_benchmarks
from rich.console import Console
from rich.progress import track
from running import answer, guarded
from writing import commit, into_results, machine, markdown, write_csv

TITLE = "FALSR, table I: the published networks"
PUBLISHED: dict[str, Figures] = {
    "falsr-a": {"K parameters": 1021, "GMACs 480x480": 234.7, "Set5 dB": 37.82, "Set14 dB": 33.55},
    "falsr-b": {"K parameters": 326, "GMACs 480x480": 74.7, "Set5 dB": 37.61, "Set14 dB": 33.29},
    "falsr-c": {"K parameters": 408, "GMACs 480x480": 93.7, "Set5 dB": 37.66, "Set14 dB": 33.26},
}
"""To 720p, that is of 640x360; as many pixels as 480x480."""

SSIMS = {"falsr-a": (0.9595, 0.9168), "falsr-b": (0.9585, 0.9143), "falsr-c": (0.9586, 0.9140)}
"""On Set5 and Set14."""


def main() -> None:
    options = parser()
    options.add_argument("--weights", type=Path, required=True, help="folder with FALSR-A.safetensors and so on")
    options.add_argument("--test", type=benchmark, action="append", default=[], help="benchmark to score on; repeat")
    asked = parsed(options)
    if not asked.weights.is_dir():
        options.error(f"there is no folder {asked.weights}")
    require_benchmarks(options, asked.test)
    guarded(lambda: make_table(asked))


def make_table(asked: argparse.Namespace) -> None:
    # With --quick the smallest alone.
    names = ["falsr-b"] if asked.quick else list(PUBLISHED)
    out = output_folder(asked, "falsr-1")
    found = {name: measured(name, asked) for name in track(names, "networks", console=Console(stderr=True))}
    lines: list[dict[str, Any]] = []
    for name, figures in found.items():
        published = PUBLISHED[name] | dict(zip(("Set5 SSIM", "Set14 SSIM"), SSIMS[name], strict=True))
        lines.append({"network": name} | figures | {f"published: {key}": published.get(key, "") for key in figures})
    write_csv(out / "table.csv", lines)
    series = {"released weights": found, "published": {name: PUBLISHED[name] for name in names}}
    drawn = {name: [[figures] for figures in rows.values()] for name, rows in series.items()}
    draw(out / "table.png", TITLE, "GMACs 480x480", drawn)
    cells = [list(lines[0]), *([_shown(value, key) for key, value in line.items()] for line in lines)]
    print(markdown(cells))
    if asked.docs:
        tests = "".join(f" --test {test.name}" for test in asked.test)
        command = f"python benchmarks/tables/falsr_1.py --weights falsr/{tests}"
        how = "Weights as released, x2; for B and C the paper prints the costs of other graphs."
        into_results("falsr-1", TITLE, command, cells, how, f"{commit()}; {machine()}")


def measured(name: str, asked: argparse.Namespace) -> dict[str, float]:
    costs = (("K parameters", "params", 1e3), ("GMACs 480x480", "flops", 1e9))
    found = {
        column: answer("cost", name, "--metric", metric, "--input-size", "480x480")["value"] / unit
        for column, metric, unit in costs
    }
    file = asked.weights / f"{name.upper()}.safetensors"
    for test in asked.test:
        scored = answer("evaluate", name, "--weights", file, "--data", test, "--protocol", "falsr")
        found |= {f"{test.name} dB": scored["psnr"], f"{test.name} SSIM": scored["ssim"]}
    return found


def _shown(value: Any, column: str) -> str:
    if isinstance(value, float) and column.endswith("SSIM"):
        return f"{value:.4f}"
    # The paper's others have the digits that it prints.
    return str(value) if column.startswith("published") or not isinstance(value, float) else f"{value:.2f}"


if __name__ == "__main__":
    main()
