"""Arm's Vela: compiles TFLite files for Ethos-U processors, and estimates how long they take there."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from hwnas.devices.target import Target
from hwnas.errors import HwnasError, UsageError, not_installed
from hwnas.files import atomic_path

_IDENTIFIER = b"TFL3"
"""Of TFLite's format, in its bytes 4 to 7."""

_COMPILED = b"ethos-u"
"""What the one operation of a compiled file is called."""

TIME_LIMIT = 600
"""Seconds that a compilation may take; most take less than one."""


@dataclass(frozen=True, slots=True)
class Compilation:
    """What Vela made of a network. Times are the vendor's estimates, never measured.

    Attributes:
        path: the compiled file.
        accelerator: what it is for.
        estimated_ms: time of one image.
        sram_bytes: most that is needed at once on the chip.
        macs: multiply-accumulates of one image.
        operations: kind, name and cycles of each operation of the processor.
    """

    path: Path
    accelerator: str
    estimated_ms: float
    sram_bytes: int
    macs: int
    operations: tuple[tuple[str, str, int], ...]


def compile_tflite(source: Path, target: Target, path: Path) -> Compilation:
    """Compile a TFLite file of int8 operations.

    Args:
        source: the file.
        target: an Ethos-U.
        path: where to write what the processor runs.

    Raises:
        UsageError: if there is no such file, or Vela does not compile for the target.
        HwnasError: if Vela is not installed or fails, or leaves an operation to the CPU beside the processor.
    """
    if target.runtime != "vela" or target.accelerator is None:
        raise UsageError(f"nothing is compiled for {target.name}; the targets that need it are ethos-u65, ethos-u85")
    if not source.is_file():
        raise UsageError(f"there is no file {source}; check the path")
    if find_spec("ethosu") is None:
        raise not_installed("Vela", "npu")
    content = source.read_bytes()
    if content[4:8] != _IDENTIFIER:
        raise HwnasError(f"{source} is not a TFLite file, or is damaged; export the network again")
    if _COMPILED in content:
        raise HwnasError(f"{source} is compiled already; compile the file that hwnas export wrote")
    with TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "ethosu.vela", str(source.resolve()), "--output-dir", folder),
            *("--accelerator-config", target.accelerator, "--verbose-performance"),
        ]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, cwd=folder)
        except subprocess.TimeoutExpired as error:
            raise HwnasError(f"Vela took over {TIME_LIMIT} s for {source}; try a smaller --input-size") from error
        compiled = Path(folder) / f"{source.stem}_vela.tflite"
        if answer.returncode or not compiled.is_file():
            lines = (answer.stderr + answer.stdout).strip().splitlines() or ["it says nothing"]
            raise HwnasError(f"Vela cannot compile {source}: {lines[-1]}")
        try:
            rows = _rows(Path(folder), "*_per-layer.csv")
            on_cpu = [f"{row['Original Operator']} ({_short(row['Name'])})" for row in rows if row["Target"] == "CPU"]
            (summary,) = _rows(Path(folder), "*_summary_*.csv")
            found = Compilation(
                path=path,
                accelerator=target.accelerator,
                estimated_ms=float(summary["inference_time"]) * 1e3,
                sram_bytes=round(float(summary["sram_memory_used"]) * 1024),
                macs=int(summary["nn_macs"]),
                operations=tuple(
                    (row["Original Operator"], _short(row["Name"]), int(float(row["Op Cycles"]))) for row in rows
                ),
            )
        except (KeyError, ValueError) as error:
            raise HwnasError(
                f"Vela's tables are of another form ({error}); this release of it may be too new"
            ) from error
        if on_cpu:
            more = f" and {len(on_cpu) - 3} more" if len(on_cpu) > 3 else ""
            raise HwnasError(
                f"{source}: {', '.join(on_cpu[:3])}{more} would run on the CPU beside {target.name}; export it in int8"
            )
        with atomic_path(path) as temporary:
            temporary.write_bytes(compiled.read_bytes())
        return found


def _rows(folder: Path, pattern: str) -> list[dict[str, str]]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise HwnasError(f"Vela left no {pattern.strip('*_')}; this release of it may be too new")
    with found[0].open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _short(name: str) -> str:
    """The end of a name: the converter's are paths of classes."""
    return name.rstrip(";").rsplit("/", 1)[-1]
