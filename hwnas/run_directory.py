"""Everything of one run in one folder, with one obvious name for each thing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from hwnas.errors import HwnasError, UsageError
from hwnas.files import is_leftover, require_writable

CONFIG = "config.yaml"
ARCHITECTURE = "architecture.json"
WEIGHTS = "weights.safetensors"
LOCK = ".lock"


class RunDirectory:
    """Paths of a run.

    Attributes:
        path: the folder.
        is_new: begun by this process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_new = False
        self._made = False

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """A folder for a new run.

        Raises:
            UsageError: if it holds a run, or something else.
            HwnasError: if it cannot be written.
        """
        run = cls(path)
        if run.exists:
            raise UsageError(f"{path} holds a run already; go on with it by --resume, or choose another --out")
        if path.exists() and (not path.is_dir() or any(not is_leftover(entry, run.config) for entry in path.iterdir())):
            raise UsageError(f"{path} exists and is not a run of hwnas; choose another --out")
        run.is_new, run._made = True, not path.exists()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HwnasError(f"cannot create {path}: {error.strerror}; choose another --out") from error
        # Found out now rather than after the first epoch.
        require_writable(run.config)
        return run

    @contextmanager
    def worked_on(self) -> Iterator[None]:
        """By this process alone; a new run is removed if the block fails before anything was computed.

        The command can then be corrected, and given again.

        Raises:
            HwnasError: if another process works on it, or it cannot be written.
        """
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise HwnasError(f"another process works on {self.path}; wait for it, or choose another --out") from error
        except OSError as error:
            raise HwnasError(f"cannot write to {self.path}: {error.strerror}; choose another --out") from error
        try:
            yield
        except HwnasError:
            self._discard_if_unused()
            raise
        finally:
            lock.release()

    def _discard_if_unused(self) -> None:
        with suppress(OSError):
            entries = list(self.path.iterdir())
            if self.is_new and {entry.name for entry in entries} <= {CONFIG, ARCHITECTURE, LOCK}:
                for entry in entries:
                    entry.unlink()
                if self._made:
                    self.path.rmdir()

    @property
    def exists(self) -> bool:
        return self.config.is_file()

    @property
    def config(self) -> Path:
        """Settings of the run, YAML."""
        return self.path / CONFIG

    @property
    def architecture(self) -> Path:
        """The architecture that was found or given."""
        return self.path / ARCHITECTURE

    @property
    def front(self) -> Path:
        """Pareto front of the search, CSV; its architectures are in `front_architecture`."""
        return self.path / "front.csv"

    @property
    def candidates(self) -> Path:
        """All that a search tried, CSV."""
        return self.path / "candidates.csv"

    @property
    def report(self) -> Path:
        """What a search found, in pictures."""
        return self.path / "report.html"

    @property
    def missed(self) -> Path:
        """What the search was asked for and has not found, where there is such."""
        return self.path / "missed.txt"

    def front_architecture(self, point: int) -> Path:
        """Architecture of a row of the front."""
        return self.path / "front" / f"{point:02d}.json"

    @property
    def search_state(self) -> Path:
        return self.path / "search" / "state.pt"

    @property
    def weights(self) -> Path:
        """The trained network, best by validation PSNR."""
        return self.path / WEIGHTS

    @property
    def train_state(self) -> Path:
        return self.path / "train" / "state.pt"

    @property
    def events(self) -> Path:
        """Folder of TensorBoard events."""
        return self.path / "events"

    @property
    def onnx(self) -> Path:
        return self.path / "model.onnx"

    @property
    def profile(self) -> Path:
        """What the network was found to take on the target."""
        return self.path / "profile.json"

    @property
    def summary(self) -> Path:
        return self.path / "summary.md"
