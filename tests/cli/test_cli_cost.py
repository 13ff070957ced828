"""``hwnas cost`` against the numbers that the papers print and against arithmetic done here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

# QuantNAS, Table 1, "Our (body 3)" is 4.6 GBitOps; counted by hand from its figure: this.
BODY3_BITOPS = 4_628_938_752
# SRResNet x4 at 256x256, the 166.2 G multiply-accumulates of the literature.
SRRESNET_MACS = 166_207_684_608


def _conv_macs(side: int, kernel: int, inputs: int, outputs: int) -> int:
    return side * side * kernel * kernel * inputs * outputs


def test_the_published_network_costs_what_the_paper_says(hwnas: Any) -> None:
    answer = hwnas("cost", "quantnas-body3", "--json")
    assert answer.code == 0
    assert answer.err == ""
    found = answer.json
    assert found["value"] == BODY3_BITOPS
    assert (found["metric"], found["unit"], found["input_size"]) == ("bitops", "BitOps", "32x32")
    assert sum(layer["value"] for layer in found["layers"]) == BODY3_BITOPS


def test_srresnet_costs_what_the_literature_says(hwnas: Any) -> None:
    answer = hwnas("cost", "srresnet", "--metric", "flops", "--input-size", "256x256", "--json")
    assert answer.json["value"] == SRRESNET_MACS
    assert answer.json["input_size"] == "256x256"


def test_espcn_costs_what_its_three_convolutions_cost(hwnas: Any) -> None:
    by_hand = _conv_macs(20, 5, 3, 64) + _conv_macs(20, 3, 64, 32) + _conv_macs(20, 3, 32, 3 * 4**2)
    macs = hwnas("cost", "espcn", "--metric", "flops", "--input-size", "20x20", "--json").json
    assert macs["value"] == by_hand
    eight_bits = hwnas("cost", "espcn", "--bits", "8", "--input-size", "20x20", "--json").json
    assert eight_bits["value"] == 64 * by_hand


def test_half_the_bits_cost_a_quarter(hwnas: Any) -> None:
    eight, four = (hwnas("cost", "espcn", "--bits", bits, "--json").json["value"] for bits in ("8", "4"))
    assert eight == 4 * four


def test_scale_changes_the_last_layer_only(hwnas: Any) -> None:
    two, four = (hwnas("cost", "espcn", "--scale", scale, "--json").json["layers"] for scale in ("2", "4"))
    assert two[:-1] == four[:-1]
    assert four[-1]["value"] == 4 * two[-1]["value"]


def test_a_run_and_its_architecture_file_cost_the_same(hwnas: Any, searched: Any) -> None:
    run = hwnas("cost", searched.path, "--json").json
    file = hwnas("cost", searched.path / "architecture.json", "--json").json
    assert run == file
    assert run["value"] == searched.answer.json["costs"]["bitops"]


def test_parameters_are_those_of_the_network(hwnas: Any) -> None:
    by_hand = (5 * 5 * 3 * 64 + 64) + (3 * 3 * 64 * 32 + 32) + (3 * 3 * 32 * 48 + 48)
    assert hwnas("cost", "espcn", "--metric", "params", "--json").json["value"] == by_hand


@pytest.mark.parametrize("metric", ["flops", "bitops", "params", "memory"])
def test_the_table_has_the_unit_and_the_input_size_where_it_matters(hwnas: Any, metric: str) -> None:
    found = hwnas("cost", "quantnas-body3", "--metric", metric, "--input-size", "30x40", "--json").json
    answer = hwnas("cost", "quantnas-body3", "--metric", metric, "--input-size", "30x40")
    assert answer.code == 0
    assert found["unit"] in answer.out
    assert ("30x40" in answer.out) == (metric != "params")
    assert f"{found['value']:,.0f}" in answer.out


def test_front_architectures_cost_what_the_front_says(hwnas: Any, searched: Any) -> None:
    header, *rows = (line.split(",") for line in (searched.path / "front.csv").read_text().splitlines())
    for row in rows:
        point = dict(zip(header, row, strict=True))
        path: Path = searched.path / point["architecture"]
        assert hwnas("cost", path, "--json").json["value"] == float(point["bitops"])
