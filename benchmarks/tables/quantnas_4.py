"""QuantNAS, table 4: float networks found by hand and by search.

    python benchmarks/tables/quantnas_4.py --data t91-bsd200 --test Set14 --docs

The networks of AGD and TrilevelNAS are the published ones, trained here; ours is searched within the published cost.
"""

from __future__ import annotations

from driver import RUN, Published, Row, main


def _named(name: str, gflops: float, psnr: float) -> Row:
    published = {"GFLOPs": gflops, "Set14 dB": psnr}
    return Row(name, {"network": name}, (("train", name, "--bicubic"),), published)


def rows() -> list[Row]:
    search = ("search", "--space", "quantnas-float", "--bicubic", "--budget", "29.3GFLOPs")
    return [
        Row(
            "ours", {"network": "ours, found within 29.3 GFLOPs"}, (search, ("train", RUN)),
            {"GFLOPs": 29.3, "Set14 dB": 28.22},
        ),
        _named("trilevel-b", 33.3, 28.26),
        _named("agd", 140, 28.40),
        _named("srresnet", 166, 28.49),
    ]  # fmt: skip


if __name__ == "__main__":
    main(Published("quantnas-4", "QuantNAS, table 4: networks in float", rows, x="GMACs 256x256"))
