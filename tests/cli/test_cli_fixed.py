"""The bits of a network that is there, from the command line: search, training from its weights, and what cannot be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import TINY_TRAINING, Hwnas

USAGE = 2
SETTINGS = ("epochs=3", "warmup_epochs=1", "steps_per_epoch=3", "batch=2", "crop=8", "front_points=3")


@pytest.fixture(scope="session")
def short(photographs: Path) -> tuple[str, ...]:
    """Options of a search that takes a second."""
    return (
        *("--data", str(photographs), "--crop", "8", *TINY_TRAINING),
        *(part for setting in SETTINGS for part in ("--set", f"search.{setting}")),
    )


@pytest.fixture(scope="session")
def float_run(hwnas: Hwnas, tiny_training: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: a network of some x2, trained in float."""
    path = tmp_path_factory.mktemp("float") / "run"
    answer = hwnas("train", "espcn", "--scale", "2", *tiny_training, "--out", path)
    assert answer.code == 0, answer.err
    return path


def test_a_float_network_gets_bits_within_a_budget_and_goes_on_from_its_weights(
    hwnas: Hwnas, short: Sequence[str], float_run: Path, out: Path
) -> None:
    weights = float_run / "weights.safetensors"
    found = hwnas(
        *("search", "--fixed", float_run, "--weights", float_run, "--bits", "2,4,8", "--budget", "0.5GBitOps"),
        *("--separate", *short, "--out", out, "--json"),
    )
    assert found.code == 0, found.err
    assert "space espcn-bits: 729 architectures" in found.err and found.json["costs"]["bitops"] <= 0.5e9
    before, after = (json.loads((run / "architecture.json").read_text()) for run in (float_run, out))
    for layer, spec in before["operators"].items():
        chosen = after["operators"][layer]
        assert {chosen.pop("weight_bits"), chosen.pop("activation_bits")} <= {2, 4, 8}
        assert chosen.items() <= spec.items()
    assert f"weights: {weights}" in (out / "config.yaml").read_text()
    trained = hwnas("train", out)
    assert trained.code == 0, trained.err
    exported = hwnas("export", out, "--json")
    assert exported.code == 0, exported.err


def test_a_search_of_bits_goes_on_from_anywhere(
    hwnas: Hwnas, short: Sequence[str], float_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its network was named by a path from another folder."""
    monkeypatch.chdir(float_run.parent)
    start = ("search", "--fixed", "run", "--weights", "run/weights.safetensors", "--bits", "4,8")
    whole = hwnas(*start, "--budget", "0.5GBitOps", *short, "--out", tmp_path / "out", "--json")
    assert whole.code == 0, whole.err
    (tmp_path / "out" / "architecture.json").unlink()
    monkeypatch.chdir(tmp_path)
    again = hwnas("search", "--out", "out", "--resume", "--json")
    assert again.code == 0 and again.json["costs"] == whole.json["costs"]


def test_candidates_are_trained_where_what_was_searched_is_gone(
    hwnas: Hwnas, short: Sequence[str], float_run: Path, tmp_path: Path
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(float_run, source)
    found = hwnas("search", "--fixed", source, "--bits", "4,8", *short, "--out", out)
    assert found.code == 0, found.err
    shutil.rmtree(source)
    trained = hwnas("train", out, "--candidate", "0")
    assert trained.code == 0, trained.err


def test_a_run_is_trained_elsewhere_with_its_own_settings(
    hwnas: Hwnas, short: Sequence[str], photographs: Path, float_run: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    weights = ("--weights", float_run)
    assert hwnas("search", "--fixed", float_run, *weights, "--bits", "4,8", *short, "--out", out).code == 0
    before = (out / "config.yaml").read_text()
    for option in (("--data", "bundled"), ("--seed", "3"), ("--bits", "8")):
        assert "train it with another --out" in hwnas("train", out, *option).error(USAGE)
    trained = hwnas("train", out, "--preset", "tiny", "--set", "train.epochs=1", "--out", other)
    assert trained.code == 0, trained.err
    assert (out / "config.yaml").read_text() == before
    config = (other / "config.yaml").read_text()
    assert f"data: {photographs}" in config and f"weights: {float_run / 'weights.safetensors'}" in config


@pytest.mark.parametrize("said", [("--activations", "hwgq"), ("--set", "train.activations=hwgq")])
def test_quantisers_of_a_float_network_are_refused(
    hwnas: Hwnas, tiny_training: Sequence[str], out: Path, said: Sequence[str]
) -> None:
    refused = hwnas("train", "espcn", "--scale", "2", *said, *tiny_training, "--out", out)
    assert "espcn is a float one; give a width by --bits" in refused.error(USAGE) and not out.exists()
    assert hwnas("train", "espcn", "--scale", "2", "--bits", "8", *said, *tiny_training, "--out", out).code == 0


def test_compiling_is_for_networks_in_float_whatever_the_space_is(
    hwnas: Hwnas, tiny_training: Sequence[str], out: Path
) -> None:
    compiled = (*tiny_training, "--set", "train.compile=true", "--out", out)
    refused = hwnas("train", "espcn", "--scale", "2", "--bits", "8", *compiled)
    assert "train.compile is for networks in float, which this is not" in refused.error(USAGE)
    answer = hwnas("train", "espcn", "--scale", "2", *compiled)
    assert "train.compile is for networks in float" not in answer.err


def test_searches_of_different_networks_have_folders_of_their_own(
    hwnas: Hwnas, short: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("espcn", "ecbsr"):
        assert hwnas("search", "--fixed", name, "--scale", "2", "--budget", "1GBitOps", *short).code == 0
    assert {path.name for path in Path("runs").iterdir()} == {f"{n}-bits-cpu-1GBitOps" for n in ("espcn", "ecbsr")}
    front = Path("runs/espcn-bits-cpu-1GBitOps/front.csv")
    lines = front.read_text().splitlines(keepends=True)
    for damaged in ("", lines[0], lines[0] + "0,12"):
        front.write_text(damaged)
        for command in (("search", "--out", front.parent, "--resume"), ("train", front.parent, "--candidate", "0")):
            assert "restore it, or delete runs/espcn-bits-cpu-1GBitOps/architecture.json" in hwnas(*command).error(1)


def test_a_network_of_the_users_is_as_it_is(hwnas: Hwnas, short: Sequence[str], float_run: Path, out: Path) -> None:
    asked = ("search", "--fixed", float_run, "--budget", "0.5GBitOps", *short, "--out", out)
    assert "adds the bicubic enlargement is part of it" in hwnas(*asked, "--no-bicubic").error(USAGE)
    assert not out.exists()
    assert hwnas(*asked, "--bicubic").code == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--fixed", "nobody"], "'nobody' is no run, no architecture file and no published architecture"),
        (["--fixed", "missing.json"], "there is no file missing.json"),
        (["--fixed", "espcn", "--space", "quantnas"], "give one of them"),
        (["--space", "fixed"], "name it by --fixed"),
        (["--set", "space.fixed=espcn"], "name the network by --fixed"),
        (["--fixed", "espcn", "--cells", "3"], "its operators stay, with no cells to set"),
        (["--separate"], "name it by --fixed"),
        (["--weights", "missing.safetensors"], "--weights are of a network; name it by --fixed"),
        (["--fixed", "espcn", "--weights", "missing.safetensors"], "there is no file"),
        (["--fixed", "espcn", "--budget", "1KBitOps"], "raise the budget, or use narrower bits"),
        (["--fixed", "espcn", "--budget", "1KParams"], "all have 37.21 kParams; raise the budget"),
        (["--fixed", "espcn", "--algorithm", "falsr"], "leave --algorithm out"),
        (["--fixed", "espcn", "--algorithm", "trilevel"], "leave --algorithm out"),
        (["--set", "train.compile=true"], "train.compile is for networks in float"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    hwnas: Hwnas, short: Sequence[str], out: Path, arguments: list[str], named: str
) -> None:
    assert named in hwnas("search", *short, *arguments, "--out", out).error(USAGE)
    assert not out.exists()
