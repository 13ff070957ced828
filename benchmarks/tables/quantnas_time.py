"""QuantNAS, section 5: how long one search takes, 24 hours on a TITAN RTX there, and the final training.

    python benchmarks/tables/quantnas_time.py --data div2k --minutes 9 --docs

The preset `paper` in bfloat16, channels last, images on the GPU. Each call works for --minutes at most and goes on
where the last one ended, at the end of an epoch; the table is printed when all is done.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from driver import minutes, output_folder, parsed, parser
from published import QUICK
from running import guarded, run_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from writing import commit, into_results, machine, markdown, read_json, write_csv

from hwnas.config import load_config
from hwnas.errors import HwnasError
from hwnas.files import write_text

TITLE = "QuantNAS: the time of a search and of the final training"
PAPER = ("--preset", "paper", "--set", "search.precision=bf16-mixed", "--set", "train.precision=bf16-mixed")
BUDGET = "4.63GBitOps"
"""That of table 1, 3 cells."""

SMI = ("nvidia-smi", "--id=0", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop=1")


def main() -> None:
    options = parser()
    options.add_argument("--data", help="photographs to search and train on; div2k unless told, or --quick")
    options.add_argument("--minutes", type=minutes, default=600, help="after which this call ends, within seconds")
    asked = parsed(options)
    asked.data = asked.data or ("bundled" if asked.quick else "div2k")
    guarded(lambda: make_table(asked))


def make_table(asked: argparse.Namespace) -> None:
    end = time.monotonic() + 60 * asked.minutes
    out = output_folder(asked, "quantnas-time")
    run = out / "run"
    sizes = [part for setting in (*QUICK.search, *QUICK.train) for part in ("--set", setting)] if asked.quick else PAPER
    search = ["search", "--data", asked.data, "--budget", BUDGET, *sizes, "--out", str(run)]
    search += ["--resume"] * (run / "config.yaml").exists()
    for stage, words in (("search", search), ("train", ["train", str(run), "--resume"])):
        if (out / f"{stage}.done").exists():
            continue
        print(f"hwnas {' '.join(words)}", flush=True)
        if not watched(out / f"{stage}.json", words, end):
            print("its time was up; the same command goes on")
            return
        (out / f"{stage}.done").touch()
    lines = table(out, run)
    write_csv(out / "table.csv", lines)
    cells = [list(lines[0]), *([str(line.get(column, "")) for column in lines[0]] for line in lines)]
    print(markdown(cells))
    if asked.docs:
        how = (
            "The GPU may have had other work; images/s of whole epochs, with their validation, the rest of whole "
            "commands. The paper's 24 hours are of its search."
        )
        command = f"python benchmarks/tables/quantnas_time.py --data {Path(asked.data).name}"
        into_results("quantnas-time", TITLE, command, cells, how, f"{commit()}; {machine()}")


def watched(kept: Path, words: list[str], end: float) -> bool:
    """Whether a command of hwnas is done before the time is up; how long it took, and what the GPU did, is kept.

    Of each second: how busy it was in percent, and its memory in MiB. A command that fails leaves nothing.
    """
    seen: list[tuple[float, float]] = []
    stop = threading.Event()
    watcher = threading.Thread(target=_watch, args=(seen, stop))
    watcher.start()
    started = time.monotonic()
    failed = False
    try:
        return run_until(words, end)
    except HwnasError:
        failed = True
        raise
    finally:
        stop.set()
        watcher.join()
        if not failed:
            pieces = read_json(kept) if kept.exists() else []
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_text(kept, json.dumps([*pieces, {"seconds": time.monotonic() - started, "gpu": seen}]))


def _watch(seen: list[tuple[float, float]], stop: threading.Event) -> None:
    try:
        smi = subprocess.Popen(SMI, stdout=subprocess.PIPE, text=True)
    except OSError:
        return  # no NVIDIA GPU
    with smi:
        assert smi.stdout is not None
        for line in smi.stdout:
            with suppress(ValueError):  # what it does not know it calls N/A
                busy, memory = map(float, line.split(","))
                seen.append((busy, memory))
            if stop.is_set():
                break
        smi.terminate()


def table(out: Path, run: Path) -> list[dict[str, Any]]:
    """A line of each stage, the first with all columns."""
    settings = load_config(run / "config.yaml")
    lines: list[dict[str, Any]] = []
    hours = 0.0
    # A step of the search is one of the weights and, when they are warm, one of the alphas.
    warm_up = settings.search.warmup_epochs  # type: ignore[attr-defined]
    for stage, of, twice_from in (("search", settings.search, warm_up), ("train", settings.train, math.inf)):
        pieces = read_json(out / f"{stage}.json")
        seconds = sum(piece["seconds"] for piece in pieces)
        seen = [sample for piece in pieces for sample in piece["gpu"]]
        hours += seconds / 3600
        images = of.steps_per_epoch * of.batch * epochs_per_second(run / "events" / stage, twice_from)  # type: ignore[attr-defined]
        lines.append(
            {
                "stage": stage,
                "hours": f"{seconds / 3600:.3f}",
                "commands": len(pieces),
                "images/s": f"{images:.0f}",
                "GPU busy, %": f"{statistics.fmean(sample[0] for sample in seen):.0f}" if seen else "",
                "peak memory, GiB": f"{max(sample[1] for sample in seen) / 1024:.1f}" if seen else "",
            }
        )
    both, published = {"stage": "both", "hours": f"{hours:.3f}"}, {"stage": "published search, TITAN RTX", "hours": 24}
    return [*lines, both, published]


def epochs_per_second(events: Path, twice_from: float) -> float:
    """Median over epochs but the first; few have an interruption in them.

    Args:
        events: of TensorBoard, with a loss for each epoch.
        twice_from: the first epoch that counts for two.
    """
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    tag = next(tag for tag in accumulator.Tags()["scalars"] if tag.endswith("/loss"))
    ends = accumulator.Scalars(tag)
    if len(ends) < 2:
        raise HwnasError(f"{events} holds one epoch, which tells no time between two; train more")
    return statistics.median(
        (1 + (end.step >= twice_from)) / (end.wall_time - before.wall_time) for before, end in itertools.pairwise(ends)
    )


if __name__ == "__main__":
    main()
