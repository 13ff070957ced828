"""TrilevelNAS, table 1: the published networks, trained here.

    python benchmarks/tables/trilevel_1.py --data t91-bsd200 --test Set5 --test Set14 --docs

The paper's are trained on DIV2K, towards ESRGAN and then with a perceptual loss; here on those given, with a bicubic
enlargement added. Its AGD is one that its authors searched anew, of 0.56 M parameters and 117.7 GMACs; `agd` here is
that of AGD's own authors, whose figures these are (0.41 M, 108.6 GMACs).
"""

from __future__ import annotations

from driver import main
from published import Published, Row


def _row(name: str, millions: float, gmacs: float, **psnrs: float) -> Row:
    published = {"K parameters": 1000 * millions, "GMACs": gmacs, **{f"{test} dB": x for test, x in psnrs.items()}}
    return Row(name, {"network": name}, (("train", name, "--bicubic"),), published)


def rows() -> list[Row]:
    return [
        _row("trilevel-b", 0.24, 15.4, Set5=29.80, Set14=27.06),
        _row("agd", 0.41, 108.6),
        _row("trilevel-a", 0.34, 117.4, Set5=30.34, Set14=27.29),
    ]


if __name__ == "__main__":
    main(Published("trilevel-1", "TrilevelNAS, table 1: the published networks, trained here", rows, x="GMACs 256x256"))
