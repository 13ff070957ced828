"""Opening a run: a new one with its settings, or one to go on with, whose settings must not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import UsageError

if TYPE_CHECKING:
    from hwnas.config import RunConfig
    from hwnas.run_directory import RunDirectory


def open_run(
    out: Path | None, resume: bool, layers: Sequence[Mapping[str, Any]], searched: bool = True
) -> tuple[RunDirectory, RunConfig]:
    """The directory and the settings of a run.

    Args:
        out: its folder; None for one named after what is asked for.
        resume: go on with what is there.
        layers: what the user set; where the first, the preset, is empty, a new run starts from the default one.
        searched: whether a new run is searched. One that is only trained needs no space, and what that was made of may
            be gone.

    Raises:
        UsageError: if the folder is taken, or there is no run to resume, or its settings differ.
    """
    from hwnas import pipeline
    from hwnas.cli.console import stderr
    from hwnas.config import load_config, make_config
    from hwnas.devices.target import load_target
    from hwnas.run_directory import RunDirectory

    config, asking = new_config(layers), stderr.status("checking the budget, on the device if it is in time")
    out = out or _default_out(config)
    if resume:
        if not RunDirectory(out).exists:
            raise UsageError(f"there is no run at {out} to go on with; leave out --resume to begin one")
        saved = load_config(RunDirectory(out).config)
        wanted = make_config([saved.model_dump(mode="json"), *layers])
        if wanted != saved:
            raise UsageError(
                f"{out} was started with other settings ({_difference(saved, wanted)}); "
                "resume without options, or start a new run with another --out"
            )
        run = RunDirectory(out)
        # A device may be gone now, or another one; or slower, but then the search is to say what meets the budget.
        if not run.architecture.exists():
            with asking:
                pipeline.reach_devices(saved)
        return run, saved
    if searched:
        with asking:
            pipeline.check(config)
    else:
        load_target(config.target)
    run = RunDirectory.create(out)
    config.save(run.config)
    return run, config


def new_config(layers: Sequence[Mapping[str, Any]]) -> RunConfig:
    """The settings of a new run; ``layers`` as for `open_run`."""
    from hwnas.config import DEFAULT_PRESET, load_preset, make_config

    preset, *rest = layers
    return make_config([preset or load_preset(DEFAULT_PRESET), *rest])


def _default_out(config: RunConfig) -> Path:
    """``runs/quantnas-cpu-5GBitOps``: what was asked for, so that asking the same again finds it."""
    # A network whose widths are searched is named by a path, of which the last part tells most.
    what = config.algorithm if config.space.fixed is None else f"{Path(config.space.fixed).stem}-bits"
    return Path("runs") / "-".join([what, config.target, *config.budgets]).replace("@", "_")


def _difference(saved: RunConfig, wanted: RunConfig) -> str:
    def flat(value: Any, prefix: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {prefix: value}
        return {k: v for key, part in value.items() for k, v in flat(part, f"{prefix}.{key}".strip(".")).items()}

    before, now = flat(saved.model_dump(mode="json")), flat(wanted.model_dump(mode="json"))
    key = next(key for key in now if before.get(key) != now[key])
    return f"{key} was {before.get(key)}, is {now[key]}"
