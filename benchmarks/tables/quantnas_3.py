"""QuantNAS, table 3: the search with and without its entropy term, in float and without a hardware penalty.

    python benchmarks/tables/quantnas_3.py --data t91-bsd200 --test Set14 --docs

Setting B of the paper: all of appendix D.1, Adam; the entropy term is the preset's, twice the published one. Its A and
C are of a reduced space, which the appendix that it names, C.1, does not tell.
"""

from __future__ import annotations

from driver import main
from published import RUN, Published, Row


def _row(name: str, said: str, gflops: float, psnr: float, *options: str) -> Row:
    search = ("search", "--space", "quantnas-float", "--bicubic", "--penalty", "0", *options)
    published = {"GFLOPs": gflops, "Set14 dB": psnr}
    return Row(name, {"entropy term": said}, (search, ("train", RUN)), published, series=f"{name} entropy")


def rows() -> list[Row]:
    return [_row("without", "no", 30, 28.00, "--set", "search.entropy=0"), _row("with", "yes", 19, 28.12)]


if __name__ == "__main__":
    main(Published("quantnas-3", "QuantNAS, table 3: with and without the entropy term", rows, x="GMACs 256x256"))
