"""Targets, profiles, tables and budgets in time, from the command line."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hwnas.cost_models.target import target_cost_model
from hwnas.devices import DEVICES, Measurement, Timing
from hwnas.devices.target import add_target, target_names
from hwnas.progress import Progress
from tests.latency.simulated import RUNTIME, SimulatedDevice, simulated_target

SPACE = ("--cells", "1", "--channels", "6", "--bits", "32", "--scale", "2", "--input-size", "8x8")
FEW = ("--calibration", "2", "--rounds", "3")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_targets_are_listed_with_what_is_usable(hwnas: Any) -> None:
    rows = {row["name"]: row for row in hwnas("targets", "--json").json["targets"]}
    assert sorted(rows) == target_names()
    assert rows["cpu"]["usable"] and rows["cpu"]["why_not"] is None and rows["cpu"]["compute_bits"] == [8, 32]
    assert "--host user@address" in rows["jetson"]["why_not"]
    assert "CUDAExecutionProvider" in rows["cuda"]["why_not"]
    shown = hwnas("targets").out
    assert all(name in shown for name in rows) and "yes" in shown


def test_a_target_of_your_own_is_added_checked_and_listed(hwnas: Any, home: Path, tmp_path: Path) -> None:
    answer = hwnas("targets", "add", "cpu2", "--like", "cpu", "--set", "threads=2")
    assert answer.code == 0 and "hwnas targets check cpu2" in answer.out
    found = hwnas("targets", "check", "cpu2", "--json").json
    assert found["fingerprint"]["threads"] == 2 and found["free_bytes"] > 0 and not found["has_table"]
    assert "none yet" in hwnas("targets", "check", "cpu2").out
    path = tmp_path / "mine.toml"
    path.write_text((home / "targets" / "cpu2.toml").read_text())
    assert hwnas("targets", "add", path).code == 0
    assert {"cpu2", "mine"} <= {row["name"] for row in hwnas("targets", "--json").json["targets"] if row.get("own")}
    (home / "targets" / "mine.toml").write_text("threads = ")
    rows = {row["name"]: row for row in hwnas("targets", "--json").json["targets"]}
    assert "is not TOML" in rows["mine"]["why_not"] and rows["cpu"]["usable"], "the others are listed all the same"
    assert hwnas("targets", "remove", "mine").code == 0 and not (home / "targets" / "mine.toml").exists()


def test_a_target_that_is_shown_can_be_added_and_a_shipped_one_comes_back(hwnas: Any, tmp_path: Path) -> None:
    assert hwnas("targets", "add", "cpu", "--like", "cpu", "--set", "threads=2").code == 0
    path = tmp_path / "two.toml"
    path.write_text(hwnas("targets", "show", "cpu").out)
    assert hwnas("targets", "add", path).code == 0
    assert hwnas("targets", "show", "two", "--json").json["threads"] == 2
    assert "the shipped target is used again" in hwnas("targets", "remove", "cpu").out
    assert hwnas("targets", "show", "cpu", "--json").json["threads"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("targets", "add", "x"), "say which target x is like"),
        (("targets", "add", "../x", "--like", "cpu"), "name: "),
        (("targets", "add", "x", "--like", "cpu", "--set", "threads=none"), "threads: "),
        (("targets", "add", "x", "--like", "toaster"), "no target is called 'toaster'"),
        (("targets", "show", "toaster"), "no target is called 'toaster'"),
        (("targets", "remove", "cpu"), "is no target of your own"),
        (("targets", "check", "jetson"), "--set host=user@address; or for one profile"),
        (("targets", "check", "jetson", "--host", "a b"), "'a b' is no host"),
        (("targets", "check", "ethos-u85", "--host", "me@there"), "leave --host out"),
        (("profile", "nothing"), "no run, no architecture file"),
        (("profile", "espcn", "--input-size", "0x0"), "is not an input size"),
        (("profile", "espcn", "--target", "cuda"), "has no CUDAExecutionProvider"),
        (("table", "show", "--target", "cpu"), "hwnas table build --target cpu"),
        (("table", "validate", "--target", "cpu"), "hwnas table build --target cpu"),
        (("table", "build", "--target", "toaster"), "no target is called 'toaster'"),
        (("cost", "espcn", "--metric", "latency"), "say which by --target"),
        (("cost", "espcn", "--metric", "latency", "--target", "cpu"), "hwnas profile"),
        (("cost", "espcn", "--target", "toaster"), "no target is called 'toaster'"),
        (("search", "--budget", "8ms", "--target", "jetson"), "--set host=user@address; or for one profile"),
        (("search", "--budget", "8minutes"), "no cost is counted in 'minutes'"),
    ],
)
def test_what_cannot_be_is_one_line(hwnas: Any, arguments: Sequence[str], message: str) -> None:
    answer = hwnas(*arguments)
    assert answer.code in (1, 2) and message in answer.err and len(answer.err.splitlines()) == 1, answer.err


def test_a_network_is_profiled_and_compared(hwnas: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ("--input-size", "24x32", "--rounds", "7", "--seconds", "0", "--scale", "2")
    found = hwnas("profile", "espcn", "--bits", "8", "--against", "espcn", *quick, "--json").json
    assert found["method"] == "measured" and found["samples"] == 7 and found["input_size"] == "24x32"
    assert found["p90_ms"] is None and found["p99_ms"] is None, "of seven inferences none is beyond them"
    assert found["images_per_s"] == pytest.approx(1e3 / found["p50_ms"])
    assert {"QLinearConv"} <= {layer["kind"] for layer in found["layers"]}
    assert "QLinearConv" not in {layer["kind"] for layer in found["against"]["layers"]}, "the other one is float"
    assert found["fingerprint"]["runtime"] == "onnxruntime" and found["against"]["ratio"] > 0
    assert json.loads((tmp_path / "profile.json").read_text()) == found
    shown = hwnas("profile", "espcn", "--input-size", "24x32", "--scale", "2", "-o", tmp_path / "other.json").out
    more = json.loads((tmp_path / "other.json").read_text())
    assert more["samples"] >= 100 and more["p50_ms"] <= more["p90_ms"] <= more["p99_ms"]
    assert "p99 ms" in shown and "measured" in shown and "layers of espcn" in shown


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGTERM, signal.SIGHUP))]
)
def test_a_profile_that_is_interrupted_ends_at_once_and_leaves_nothing(
    number: signal.Signals, process: Any, start: Callable[..., subprocess.Popen[str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, as under nohup")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    profiling = start("profile", "srresnet", "--input-size", "48x48", "--seconds", "60", "-o", tmp_path / "p.json")
    while profiling.poll() is None and not list(temporary.glob("hwnas-runner-*/0.onnx")):
        time.sleep(0.1)
    time.sleep(3)  # within an inference, most likely
    profiling.send_signal(number)
    started = time.monotonic()
    _, err = profiling.communicate(timeout=60)
    assert time.monotonic() - started < 5 and "Traceback" not in err
    for _ in range(50):  # the runner may be in an inference too
        if not list(temporary.glob("hwnas*")):
            break
        time.sleep(0.1)
    assert not list(temporary.glob("hwnas*"))


@pytest.mark.usefixtures("monkeypatch")
def test_an_exported_file_is_profiled_as_it_is(hwnas: Any, espcn: Any, tmp_path: Path) -> None:
    quick = ("--input-size", "24x32", "--rounds", "3", "--seconds", "0", "-o", tmp_path / "profile.json")
    assert hwnas("profile", espcn.path / "model.onnx", *quick, "--json").json["samples"] == 3
    refused = hwnas("profile", espcn.path / "model.onnx", *quick, "--bits", "8")
    assert "leave --bits and --scale out" in refused.only_error(2)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes((espcn.path / "model.onnx").read_bytes()[:500])
    assert "damaged" in hwnas("profile", damaged, *quick).error(1)


def test_effective_bitops_stand_beside_the_nominal_ones(hwnas: Any) -> None:
    found = hwnas("cost", "quantnas-body3", "--target", "jetson", "--json").json
    assert found["value"] == pytest.approx(4.6289e9, rel=1e-4) and found["effective"] > found["value"]
    assert found["effective"] == sum(layer["effective"] for layer in found["layers"])
    assert found["effective"] == hwnas("cost", "quantnas-body3", "--bits", "8", "--json").json["value"]


class Tired(SimulatedDevice):
    """Slow as soon as the network is trained, which is then measured alone."""

    method = "vendor-estimated"
    drift = outliers = 0.0
    tiredness = 5.0

    def measure(self, paths: Sequence[Path], timing: Timing, progress: Progress) -> list[Measurement]:
        type(self).speed = self.tiredness if len(paths) == 1 else 1.0
        return super().measure(paths, timing, progress)


@pytest.fixture
def tired() -> Iterator[None]:
    target_cost_model.cache_clear()
    DEVICES.register(RUNTIME)(Tired)
    add_target(simulated_target())
    yield
    DEVICES.remove(RUNTIME)
    target_cost_model.cache_clear()


def test_a_run_whose_network_misses_its_budget_fails(
    hwnas: Any, tired: None, tiny: Sequence[str], out: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was found is there, and every figure says that it is an estimate."""
    built = hwnas("table", "build", "--target", "abacus", *SPACE, *FEW, "--json").json
    assert built["method"] == "vendor-estimated"
    small = ("--bits", "32", "--scale", "2", "--target", "abacus")
    answer = hwnas("run", *tiny, *small, "--budget", "4ms@8x8", "--out", out, "--json")
    assert answer.code == 1 and "over the budget of 4 ms at 8x8" in answer.err.splitlines()[-1], answer.err
    assert "latency@abacus: predicted minimum" in answer.err and "ms predicted of 4 ms" in answer.err
    assert answer.json["methods"] == {"latency@abacus": "vendor-estimated"} and not answer.json["within_budgets"]
    assert answer.json["latencies"]["latency@abacus"] > 4
    assert "**missed**" in (out / "summary.md").read_text() and (out / "model.onnx").is_file()
    # Whoever resumes it needs no table any more, and a device that is away changes nothing of what is known.
    (home / "tables").rename(home / "away")
    monkeypatch.setattr(Tired, "dies_after", 0)
    assert "went away" in hwnas("run", "--out", out, "--resume").error(1)
    assert "**missed**" in (out / "summary.md").read_text()
    monkeypatch.setattr(Tired, "dies_after", 10**6)
    monkeypatch.setattr(Tired, "tiredness", 5.0 * 4.1 / answer.json["latencies"]["latency@abacus"])
    close = hwnas("run", "--out", out, "--resume")
    assert close.code == 0 and "takes 4.1 ms, over the budget of 4 ms at 8x8" in close.err, close.err
    assert "sessions differ by so much" in close.err
    again = hwnas("search", "--out", out, "--resume", "--json").json
    assert again["methods"] == {"latency@abacus": "vendor-estimated"} and again["costs"]["latency@abacus"] <= 4
    (home / "away").rename(home / "tables")
    again = hwnas("search", *tiny, *small, "--budget", "4ms@8x8", "--out", out.with_name("again"), "--json")
    assert again.code == 0, again.err
    searched = again.json
    assert searched["methods"] == {"latency@abacus": "vendor-estimated"} and "measured" not in searched
    assert searched["costs"]["latency@abacus"] <= 4


def test_a_search_goes_on_though_the_device_has_become_slower(
    hwnas: Any, tired: None, tiny: Sequence[str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a network meets the budget is for the device to say in the end."""
    hwnas("table", "build", "--target", "abacus", *SPACE, *FEW, "--json")
    small = ("--bits", "32", "--scale", "2", "--target", "abacus")
    assert hwnas("search", *tiny, *small, "--budget", "4ms@8x8", "--out", out).code == 0
    (out / "architecture.json").unlink()
    monkeypatch.setattr(Tired, "moods", dict.fromkeys(range(1000), 4.0))
    target_cost_model.cache_clear()
    answer = hwnas("search", "--out", out, "--resume")
    assert "abacus takes 4.00 times as long now as when its table was built" in answer.err
    assert "no network of space quantnas was found within 4 ms" in answer.error(1)


def test_tables_are_listed_and_a_damaged_one_is_named(hwnas: Any, tired: None, home: Path) -> None:
    assert hwnas("table", "list", "--json").json == {"tables": []} and "none yet" in hwnas("table", "list").out
    path = Path(hwnas("table", "build", "--target", "abacus", *SPACE, *FEW, "--json").json["table"])
    (row,) = hwnas("table", "list", "--json").json["tables"]
    assert row["target"] == "abacus" and row["complete"]
    assert row["space"] == "quantnas of 32 bits at 8x8, --cells 1 --channels 6 --residual add --bicubic"
    assert "quantnas of 32 bits at 8x8" in hwnas("targets", "check", "abacus").out
    other = hwnas("table", "show", "--target", "abacus", *SPACE, "--cells", "2").error(1)
    assert "has space quantnas at 8x8 as it is set (there is one of quantnas of 32 bits" in other
    path.write_text(path.read_text()[:1000])
    assert "damaged" in hwnas("table", "list").out and "damaged" in hwnas("targets", "check", "abacus").out


@pytest.mark.slow
def test_a_table_is_built_shown_and_used(
    hwnas: Any, process: Any, start: Callable[..., subprocess.Popen[str]], tiny: Sequence[str], out: Path, home: Path
) -> None:
    # Of 8x8 networks take a twentieth of a millisecond, which a busy machine cannot tell from none.
    space = (*SPACE, "--input-size", "32x32")
    # Ctrl-C after the first batch: what is there stays, and the same command goes on.
    building = start("table", "build", "--target", "cpu", *space, *FEW)
    while building.poll() is None and not list((home / "tables").glob("*.json") if home.exists() else ()):
        pass
    building.send_signal(signal.SIGINT)
    _, err = building.communicate()
    assert building.returncode in (0, 130), err
    built = hwnas("table", "build", "--target", "cpu", *space, *FEW, "--json").json
    assert built["networks"] == 16 and Path(built["table"]).is_file() and built["reference_ms"] > 0
    shown = hwnas("table", "show", "--target", "cpu", *space, "--json").json
    assert len(shown["operators"]) == 21 and min(row["ms"] for row in shown["operators"]) == 0
    held = hwnas("table", "validate", "--target", "cpu", *space, "--networks", "3", "--rounds", "3", "--json").json
    assert len(held["measured_ms"]) == 3 and -1 <= held["accuracy"]["rho"] <= 1
    limit = f"{2 * max(held['clock_ms']):.3f}ms@32x32"
    small = ("--bits", "32", "--scale", "2")
    answer = hwnas("search", *tiny, *small, "--target", "cpu", "--budget", limit, "--out", out, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert 0 < found["costs"]["latency@cpu"] <= float(limit.partition("ms")[0])
    assert found["methods"] == {"latency@cpu": "measured"} and found["predicted"]["latency@cpu"] > 0
    header, *rows = (line.split(",") for line in (out / "front.csv").read_text().splitlines())
    assert {"latency@cpu_predicted", "latency@cpu_measured"} <= set(header)
    assert sum(row[header.index("latency@cpu_measured")] != "" for row in rows) > 1, "the best of the front"
    predicted = [float(row[header.index("latency@cpu_predicted")]) for row in rows]
    assert predicted == sorted(predicted)
    chosen = next(row for row in rows if row[header.index("chosen")] == "1")
    assert float(chosen[header.index("latency@cpu_measured")]) == pytest.approx(found["costs"]["latency@cpu"])
    priced = hwnas("cost", out, "--metric", "latency", "--target", "cpu", "--input-size", "32x32", "--json").json
    assert priced["method"] == "predicted" and priced["unit"] == "ms" and priced["value"] > 0
    assert priced["uncertainty"] is None and "onnxruntime" in priced["source"], "of few networks nothing can be said"
    without_size = hwnas("cost", out, "--metric", "latency", "--target", "cpu", "--json").json
    assert without_size["input_size"] == "32x32", "the run's own"
    elsewhere = hwnas("cost", out, "--metric", "latency", "--target", "cpu", "--input-size", "9x9")
    assert "it has one at 32x32" in elsewhere.only_error(1)
    other = hwnas("search", *tiny, *small, "--target", "cpu", "--budget", "8ms@9x9", "--out", out / "x")
    assert "--input-size 9x9" in other.err and re.search(r"takes about \d+ minutes?", other.err)
