"""``hwnas search``."""

from __future__ import annotations

import re
from math import isfinite
from typing import TYPE_CHECKING

from hwnas.cli import machines, options
from hwnas.cli.settings import Layers, search_settings, takes_settings

if TYPE_CHECKING:
    from hwnas.config import RunConfig
    from hwnas.progress import Progress


@takes_settings(search_settings)
def search(
    layers: Layers,
    out: options.Out = None,
    resume: options.Resume = False,
    workers: machines.Workers = None,
    ray: machines.RayAddress = None,
    trial_cpus: machines.RayCpus = None,
    trial_gpus: machines.RayGpus = None,
    json: options.Json = False,
) -> None:
    """Find the architecture, and a front of others: quantnas and trilevel by one training of all, falsr by many.

    Examples:

      hwnas search --budget 5GBitOps --data photos/

      hwnas search --budget 5GBitOps --budget 80KParams --bits 4,6,8

      hwnas search --budget 100ms@180x320 --target cpu

      hwnas search --space quantnas-float --budget 30GFLOPs --preset paper

      hwnas search --algorithm falsr --budget 300KParams --workers 2

      hwnas search --algorithm falsr --objective latency@cpu --min-psnr 30 --ray auto

      hwnas search --fixed srresnet --bits 2,4,8 --budget 20GBitOps

      hwnas search --fixed runs/mine --weights runs/mine/weights.safetensors --budget 3GBitOps

      hwnas search --algorithm trilevel --budget 8GFLOPs

      hwnas search --algorithm trilevel --space trilevel-b --teacher esrgan --teacher-weights RRDB_ESRGAN_x4.pth
    """
    from hwnas import pipeline
    from hwnas.cli.console import progress
    from hwnas.cli.runs import open_run
    from hwnas.searches.results import known_cost, read_front

    directory, settings = open_run(out, resume, layers)
    with directory.worked_on(), progress() as tell:
        searched = directory.architecture.exists()
        where = machines.chosen_machines(settings, workers, ray, trial_cpus, trial_gpus, not searched)
        if not searched:
            describe_space(settings, tell)
        photographs = pipeline.load_data(settings, pipeline.space_of(settings).scale, tell)
        pipeline.search(settings, directory, photographs, tell, where)
    rows = read_front(directory)
    found = next(row for row in rows if row["chosen"] == "1")
    budgets = pipeline.budgets_of(settings)
    known = {b.metric: known_cost(found, b.metric) for b in budgets}
    costs = {metric: value for metric, (value, _) in known.items()}
    methods = {metric: method for metric, (_, method) in known.items()}
    predicted = {
        b.metric: known_cost(found, b.metric, "predicted")[0] for b in budgets if f"{b.metric}_predicted" in found
    }
    if json:
        import json as encoder

        files = {
            "run": str(directory.path),
            "architecture": str(directory.architecture),
            "front": str(directory.front),
        }
        figures = {name: float(value) for name, value in found.items() if name not in _NO_FIGURES and value}
        chosen = {"point": int(found["point"]), "figures": {k: v for k, v in figures.items() if isfinite(v)}}
        print(encoder.dumps({**files, **chosen, "costs": costs, "methods": methods, "predicted": predicted}))
        return
    from rich.table import Table

    from hwnas.cli.console import stdout

    table = Table(title=f"Front of {directory.path}")
    short = {
        "log_probability": "log p",
        "relative_log_probability": "log p, relative",
        "supernet_psnr_db": "supernet dB",
        "psnr_db": "PSNR dB",
    }
    columns = [column for column in rows[0] if column != "architecture"]  # the point is the name of its file
    for column in columns:
        heading = short.get(column, column).replace("_", " ") + _size(column, settings)
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        shown = [_readable(name, row[name]) for name in columns]
        table.add_row(*shown, style="bold" if row["chosen"] == "1" else None)
    stdout.print(table)
    for bound in budgets:
        before = f", {bound.format(predicted[bound.metric])} predicted," if bound.metric in predicted else ""
        stdout.print(f"chosen: {bound.format(costs[bound.metric])} {methods[bound.metric]}{before} of {bound}")
    if directory.candidates.is_file():
        with directory.candidates.open(encoding="utf-8") as file:
            tried = sum(1 for _ in file) - 1
        stdout.print(f"{tried} candidates were tried: {directory.candidates}, in pictures {directory.report}")
    stdout.print(f"next: hwnas train {directory.path}")


_NO_FIGURES = ("point", "chosen", "architecture")


def _metric(column: str) -> str:
    return re.sub("_(predicted|measured|vendor_estimated)$", "", column)


def _size(column: str, settings: RunConfig) -> str:
    """`` at 32x32``, of a column of costs."""
    from hwnas import pipeline
    from hwnas.cost_models import cost_model, is_metric

    metric = _metric(column)
    if not is_metric(metric):
        return ""
    model, sizes = cost_model(metric), {b.metric: b.input_size for b in pipeline.budgets_of(settings)}
    # Effective BitOps stand beside nominal ones, at the same size.
    size = sizes.get(metric) or sizes.get(metric.partition("@")[0].removeprefix("effective-"))
    return model.at(size or pipeline.input_size_of(settings) or model.default_input_size)


def _readable(column: str, value: str) -> str:
    from hwnas.budget import format_quantity
    from hwnas.cost_models import cost_model, is_metric

    if column == "chosen":
        return "*" if value == "1" else ""
    metric = _metric(column)
    return format_quantity(float(value), cost_model(metric).unit) if value and is_metric(metric) else value


def describe_space(settings: RunConfig, tell: Progress) -> None:
    """Say what the space costs at all, before anything is trained, and what the target makes of narrow bits."""
    from decimal import ROUND_CEILING

    from hwnas import pipeline
    from hwnas.devices.target import load_target
    from hwnas.latency.cost import CHANGED
    from hwnas.searches import SEARCHES

    space = pipeline.space_of(settings)
    tell.say(f"space {space.name}: {space.size:,} architectures")
    budgets = pipeline.budgets_of(settings)
    if not budgets:
        tell.say("  no --budget: nothing bounds the cost")
    for bound in budgets:
        reach = SEARCHES[settings.algorithm].cost_range(space, bound)
        minimum = bound.format(reach.minimum, ROUND_CEILING)
        now = bound.model.prediction(space.first, bound.input_size)
        how, certain = ("", "") if now is None else ("predicted ", f" ({now})")
        tell.say(f"  {bound.metric}: {how}minimum {minimum}{reach.beyond(bound)}{certain}; budget {bound}")
        if now is not None and now.speed is not None and abs(now.speed - 1) > CHANGED:
            tell.say(
                f"  {settings.target} takes {now.speed:.2f} times as long now as when its table was built: its speed "
                "changes, or something else is running there; what is predicted is of now"
            )
    target = load_target(settings.target)
    if narrow := sorted(set(space.bits) - set(target.compute_bits)):
        computed = ", ".join(map(str, target.compute_bits))
        tell.say(
            f"  target {target.name} computes convolutions in {computed} bits: layers of "
            f"{', '.join(map(str, narrow))} bits are computed in the next wider of these there, and take no less time"
        )
