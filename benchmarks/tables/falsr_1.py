"""FALSR, table I: the published networks with their released weights, scored as the paper's figures were made.

python benchmarks/tables/falsr_1.py --weights falsr/ --test Set5 --test Set14 --docs
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import track
from running import answer
from writing import into_results, markdown, write_csv

PUBLISHED = {
    "falsr-a": (1021, 234.7, {"Set5": 37.82, "Set14": 33.55}),
    "falsr-b": (326, 74.7, {"Set5": 37.61, "Set14": 33.29}),
    "falsr-c": (408, 93.7, {"Set5": 37.66, "Set14": 33.26}),
}
"""Thousands of parameters, GMACs to 720p, PSNR in dB by benchmark."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder with FALSR-A.safetensors and so on")
    parser.add_argument("--test", type=Path, action="append", default=[], help="benchmark to score on; repeat")
    parser.add_argument("--out", type=Path, default=Path("tables/falsr-1"))
    parser.add_argument("--quick", action="store_true", help="the smallest network alone")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/results.md")
    asked = parser.parse_args()
    tests = [test.name for test in asked.test]
    head = ["network", "K parameters", "GMACs 480x480", *(f"{test} dB" for test in tests)]
    cells = [[*head, "published: K parameters", "published: GMACs", *(f"published: {test} dB" for test in tests)]]
    names = ["falsr-b"] if asked.quick else list(PUBLISHED)
    for name in track(names, "networks", console=Console(stderr=True)):
        parameters, macs, psnrs = PUBLISHED[name]
        costs = (("params", 1e3, ()), ("flops", 1e9, ("--input-size", "480x480")))
        found = [answer("cost", name, "--metric", metric, *size)["value"] / unit for metric, unit, size in costs]
        file = asked.weights / f"{name.upper()}.safetensors"
        for test in asked.test:
            scored = answer("evaluate", name, "--weights", file, "--data", test, "--protocol", "falsr")
            found.append(scored["psnr"])
        cells.append([name, *(f"{figure:.2f}" for figure in found), str(parameters), str(macs)])
        cells[-1] += [str(psnrs.get(test, "")) for test in tests]
    write_csv(asked.out / "table.csv", cells)
    print(markdown(cells))
    if asked.docs:
        command = "python benchmarks/tables/falsr_1.py --weights falsr/" + "".join(f" --test {test}" for test in tests)
        how = "Weights as released; for B and C the paper prints the costs of other graphs."
        into_results("falsr-1", "FALSR, table I: the published networks", command, cells, how)


if __name__ == "__main__":
    main()
