"""The command line as its users meet it: arguments in, exit code, stdout, stderr and files out."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from PIL import Image
from skimage import data

TINY = (
    *("--cells", "1", "--channels", "6", "--crop", "8"),
    *("--set", "search.epochs=3", "--set", "search.warmup_epochs=1", "--set", "search.steps_per_epoch=2"),
    *("--set", "search.batch=2", "--set", "search.front_points=3"),
)
TINY_TRAINING = (
    *("--set", "train.epochs=2", "--set", "train.steps_per_epoch=4"),
    *("--set", "train.batch=2", "--set", "train.collect_steps=2"),
)
BUDGET = "50MBitOps"
CORNERS = ((0, 150), (100, 180), (200, 250), (380, 60))


@dataclass(frozen=True)
class Answer:
    """What a command left on its two streams, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as JSON; fails if anything else is there."""
        return json.loads(self.out)

    def error(self, code: int) -> str:
        """The error line of a command that failed with ``code``, after whatever it had to tell before."""
        assert self.code == code, self.err
        assert self.out == ""
        *before, last = self.err.splitlines()
        assert last.startswith("error: ")
        assert not [line for line in before if line.startswith(("error", "Traceback", " File"))], self.err
        assert "a bug" not in last
        return last

    def only_error(self, code: int) -> str:
        """The error line of a command that failed with ``code`` and said nothing else."""
        assert len(self.err.splitlines()) == 1, self.err
        return self.error(code)


class Hwnas(Protocol):
    """A command of hwnas: arguments in, what it answers out."""

    def __call__(self, *arguments: str | Path) -> Answer: ...


def _environment() -> dict[str, str]:
    # Wide tables do not wrap.
    return {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.fixture(scope="session")
def hwnas() -> Hwnas:
    """Runs a command in this process, where torch is imported once."""
    from hwnas.cli.main import main

    def call(*arguments: str | Path) -> Answer:
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(io.StringIO()) as out,
            redirect_stderr(io.StringIO()) as err,
        ):
            patch.setenv("COLUMNS", "200")
            code = main([str(argument) for argument in arguments])
        return Answer(code, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Starts a command in a process of its own, that can be killed."""

    def call(*arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "hwnas", *map(str, arguments)],
            env=_environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A shell's background jobs ignore Ctrl-C, and so would the command if the tests were one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return call


@pytest.fixture(scope="session")
def process(start: Callable[..., subprocess.Popen[str]]) -> Hwnas:
    """Runs a command in a process of its own: everything on the streams is seen, warnings of C++ included."""

    def call(*arguments: str | Path) -> Answer:
        started = start(*arguments)
        out, err = started.communicate(timeout=120)
        return Answer(started.returncode, out, err)

    return call


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four photographs, 96x96."""
    folder = tmp_path_factory.mktemp("photographs")
    for i, (y, x) in enumerate(CORNERS):
        Image.fromarray(data.astronaut()[y : y + 96, x : x + 96]).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def folder(photographs: Path, tmp_path: Path) -> Path:
    """The photographs, to be spoiled."""
    return Path(shutil.copytree(photographs, tmp_path / "folder"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a run would be."""
    return tmp_path / "out"


@pytest.fixture(scope="session")
def tiny(photographs: Path) -> tuple[str, ...]:
    """Options of a search and a training that take a second."""
    return ("--data", str(photographs), *TINY, *TINY_TRAINING)


@pytest.fixture(scope="session")
def tiny_training(photographs: Path) -> tuple[str, ...]:
    """Options of a training that takes a second, for commands that do not search."""
    return ("--data", str(photographs), "--crop", "8", *TINY_TRAINING)


@dataclass(frozen=True)
class Finished:
    """A run that is complete, and what the command that made it answered."""

    path: Path
    answer: Answer


@pytest.fixture(scope="session")
def finished(process: Hwnas, tiny: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """What ``hwnas run --json`` leaves; not to be changed."""
    path = tmp_path_factory.mktemp("finished") / "run"
    answer = process("run", *tiny, "--budget", BUDGET, "--out", path, "--json")
    assert answer.code == 0, answer.err
    return Finished(path, answer)


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished.path, tmp_path / "run"))


@pytest.fixture(scope="session")
def searched(hwnas: Hwnas, tiny: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """What ``hwnas search`` leaves; not to be changed."""
    path = tmp_path_factory.mktemp("searched") / "run"
    answer = hwnas("search", *tiny, "--budget", BUDGET, "--out", path, "--json")
    assert answer.code == 0, answer.err
    return Finished(path, answer)


@pytest.fixture(scope="session")
def espcn(hwnas: Hwnas, tiny_training: Sequence[str], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """ESPCN in 8 bits, trained and exported, without the bicubic enlargement: all it makes is the network's."""
    path = tmp_path_factory.mktemp("espcn") / "run"
    answer = hwnas("train", "espcn", "--bits", "8", "--no-bicubic", *tiny_training, "--out", path)
    assert answer.code == 0, answer.err
    exported = hwnas("export", path, "--mixed")
    assert exported.code == 0, exported.err
    return Finished(path, answer)


@pytest.fixture(scope="session")
def low(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two photographs to enlarge, large enough for several tiles, one of an odd size."""
    folder = tmp_path_factory.mktemp("low")
    Image.fromarray(data.astronaut()[:96, 150:246]).save(folder / "even.png")
    Image.fromarray(data.astronaut()[200:271, 250:313]).save(folder / "odd.png")
    return folder
