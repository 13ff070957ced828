"""The log of a search: whatever is killed or damaged, what is whole in it is kept."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.errors import HwnasError
from hwnas.searches.falsr.log import Log, Measured, Speed, Trial
from hwnas.searches.falsr.trial import Outcome

OUTCOME = Outcome(psnr=30.123456789, rung_psnr=29.5, steps=10, seconds=1.5)
ENTRIES = [
    Trial(architecture="a", outcome=OUTCOME),
    Trial(architecture="b", error="its process was killed by SIGKILL"),
    Measured(architecture="a", metric="latency@cpu", ratio=12.5),
    Speed(metric="latency@cpu", yardstick=3.25, device={"hardware": "a phone"}),
]


def written(path: Path) -> Log:
    log = Log(path / "search" / "trials.jsonl")
    for entry in ENTRIES:
        log.add(entry)
    return log


def contents(log: Log) -> tuple[object, ...]:
    return log.trials, log.ratios, log.speeds


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    log = written(tmp_path)
    again = Log(log.path)
    assert contents(again) == contents(log)
    assert again.trials["a"].outcome == OUTCOME and again.trials["b"].outcome is None
    assert again.ratios == {("a", "latency@cpu"): 12.5} and again.speeds == {"latency@cpu": ENTRIES[3]}
    assert not again.broken


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 400))
def test_a_line_that_was_cut_off_is_skipped_and_the_next_is_whole(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = written(tmp_path_factory.mktemp("log"))
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[: max(0, len(whole) - cut)])
    left = Log(log.path)
    left.add(Trial(architecture="c", outcome=OUTCOME))
    again = Log(log.path)
    assert again.trials["c"].outcome == OUTCOME
    assert left.trials == again.trials
    assert len(again.broken) <= 1


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        '{"kind": "trial"}',
        '{"kind": "magic", "architecture": "x"}',
        '{"kind": "trial", "architecture": "x", "outcome": {"psnr": "high"}}',
        '{"kind": "trial", "architecture": "x", "outcome": {"psnr": NaN, "steps": 1, "seconds": 1}}',
        '{"kind": "measured", "architecture": "x", "metric": "m", "ratio": -1}',
        "\\xff\\xfe",
        "[" * 100_000,
    ],
)
def test_a_broken_line_is_named_and_the_others_count(tmp_path: Path, line: str) -> None:
    log = written(tmp_path)
    lines = log.path.read_text().splitlines()
    log.path.write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    again = Log(log.path)
    assert contents(again) == contents(log)
    assert len(again.broken) == 1 and again.broken[0].startswith("line 2 (")


def test_bytes_that_are_no_text_are_skipped(tmp_path: Path) -> None:
    log = written(tmp_path)
    log.path.write_bytes(b"\xff\xfe\x00\n" + log.path.read_bytes())
    assert contents(Log(log.path)) == contents(log)


def test_the_last_word_on_a_candidate_counts_and_the_first_on_a_speed(tmp_path: Path) -> None:
    log = written(tmp_path)
    log.add(Trial(architecture="b", outcome=OUTCOME))
    log.add(Speed(metric="latency@cpu", yardstick=9.0))
    again = Log(log.path)
    assert again.trials["b"].outcome == OUTCOME and again.speeds == {"latency@cpu": ENTRIES[3]}


def test_a_place_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "search").write_text("a file")
    with pytest.raises(HwnasError, match=r"cannot write .*trials\.jsonl.* --resume"):
        Log(tmp_path / "search" / "trials.jsonl").add(ENTRIES[0])


def test_it_is_plain_json_lines(tmp_path: Path) -> None:
    kinds = [json.loads(line)["kind"] for line in written(tmp_path).path.read_text().splitlines()]
    assert kinds == ["trial", "trial", "measured", "speed"]
