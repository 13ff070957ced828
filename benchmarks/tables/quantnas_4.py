"""QuantNAS, table 4: float networks found by hand and by search.

    python benchmarks/tables/quantnas_4.py --data t91-bsd200 --test Set14 --docs

Ours is searched within the published cost. The paper's AGD and TrilevelNAS are PSNR-oriented networks that nobody
published (140 and 33.3 GFLOPs, 28.40 and 28.26 dB); those that were, of a teacher's pictures, stand here without
figures.
"""

from __future__ import annotations

from driver import main
from published import RUN, Published, Row


def _named(name: str, **published: float) -> Row:
    return Row(name, {"network": name}, (("train", name, "--bicubic"),), published)


def rows() -> list[Row]:
    search = ("search", "--space", "quantnas-float", "--bicubic", "--budget", "29.3GFLOPs")
    return [
        Row(
            "ours", {"network": "ours, found within 29.3 GFLOPs"}, (search, ("train", RUN)),
            {"GFLOPs": 29.3, "Set14 dB": 28.22},
        ),
        _named("trilevel-b"),
        _named("agd"),
        _named("srresnet", **{"GFLOPs": 166, "Set14 dB": 28.49}),
    ]  # fmt: skip


if __name__ == "__main__":
    main(Published("quantnas-4", "QuantNAS, table 4: networks in float", rows, x="GMACs 256x256"))
