"""Where a run or an export is to be written: folders in use, places that cannot be written, full disks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

BUDGET = ("--budget", "50MBitOps")
FAILURE, USAGE, INTERRUPTED = 1, 2, 130


def test_a_folder_of_other_files_is_left_alone(hwnas: Any, tiny: tuple[str, ...], out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    answer = hwnas("search", *tiny, *BUDGET, "--out", out)
    assert "is not a run of hwnas; choose another --out" in answer.only_error(USAGE)
    answer = hwnas("search", *tiny, *BUDGET, "--out", out, "--resume")
    assert f"there is no run at {out} to go on with" in answer.only_error(USAGE)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_run_that_was_killed_before_it_began_is_begun(hwnas: Any, tiny: tuple[str, ...], out: Path) -> None:
    out.mkdir()
    (out / ".config-k3j2.yaml").write_text("algorithm: quan")
    assert hwnas("search", *tiny, *BUDGET, "--out", out).code == 0
    assert (out / "architecture.json").exists()


def test_a_run_is_not_begun_again_without_being_asked(hwnas: Any, tiny: tuple[str, ...], run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for command in ("search", "run"):
        assert "--resume" in hwnas(command, *tiny, *BUDGET, "--out", run).only_error(USAGE)
    assert "--resume" in hwnas("train", run).only_error(USAGE)
    assert "--resume" in hwnas("train", "espcn", "--out", run).only_error(USAGE)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_is_worked_on_by_one_process(hwnas: Any, run: Path) -> None:
    with FileLock(run / ".lock"):
        for command in (("search", "--out", run), ("run", "--out", run), ("train", run)):
            answer = hwnas(*command, "--resume")
            assert f"another process works on {run}; wait for it" in answer.only_error(FAILURE)
    assert hwnas("search", "--out", run, "--resume").code == 0


def test_a_misspelt_run_is_not_begun_by_resume(hwnas: Any, out: Path) -> None:
    for command in (("search",), ("run",), ("train", "espcn")):
        assert f"there is no run at {out}" in hwnas(*command, "--resume", "--out", out).only_error(USAGE)
    assert not out.exists()


def test_a_folder_of_the_users_survives_a_command_that_failed(hwnas: Any, tmp_path: Path, out: Path) -> None:
    out.mkdir()
    assert hwnas("search", "--data", tmp_path / "misspelt", "--out", out).code == USAGE
    assert list(out.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(hwnas: Any, tiny: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a regular file")
    answer = hwnas("search", *tiny, *BUDGET, "--out", tmp_path / "file" / "run")
    assert "cannot create" in answer.only_error(FAILURE)
    assert (tmp_path / "file").read_text() == "a regular file"


def test_an_export_that_cannot_be_written_is_named(hwnas: Any, finished: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a regular file")
    answer = hwnas("export", finished.path, "-o", tmp_path / "file" / "model.onnx")
    assert "cannot write" in answer.only_error(FAILURE)


@pytest.mark.parametrize("earlier", [{}, {"model.onnx": "good", "model.onnx.json": "its report"}])
def test_an_export_that_is_refused_or_interrupted_leaves_what_was_there(
    hwnas: Any, espcn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: dict[str, str]
) -> None:
    from hwnas.exporters import verify
    from hwnas.exporters.onnx import OnnxExporter
    from hwnas.exporters.parity import Tolerance

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    for name, text in earlier.items():
        (tmp_path / name).write_text(text)
    path = tmp_path / "model.onnx"
    with monkeypatch.context() as patch:
        patch.setattr(
            OnnxExporter,
            "tolerance",
            lambda *asked: Tolerance(-1, -1, share=1, detail=1),
        )
        message = hwnas("export", espcn.path, "--mixed", "-o", path).only_error(FAILURE)
    assert f"error: {path} does not compute what the network computes" in message
    for stage in ("check_parity", "score"):
        with monkeypatch.context() as patch:
            patch.setattr(verify, stage, interrupt)
            assert hwnas("export", espcn.path, "--mixed", "-o", path).code == INTERRUPTED
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == earlier


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that 24 kB fill."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs a small file system of its own, and may not mount one")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    hwnas: Any, tiny: tuple[str, ...], finished: Any, full_disk: Path
) -> None:
    answer = hwnas("export", finished.path, "-o", full_disk / "model.onnx")
    message = answer.only_error(FAILURE)
    assert "No space left on device" in message
    assert list(full_disk.iterdir()) == []
    answer = hwnas("search", *tiny, *BUDGET, "--out", full_disk / "run")
    assert "No space left on device" in answer.error(FAILURE)
    assert {path.name for path in full_disk.rglob(".*")} <= {".lock"}, "temporary files stay behind"
    assert not (full_disk / "run" / "architecture.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
def test_an_output_that_cannot_be_written_is_no_bug(form: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "hwnas", "cost", "espcn", *form]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert ended.returncode == FAILURE
    assert ended.stderr.startswith("error: cannot write the output") and "bug" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
