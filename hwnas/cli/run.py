"""``hwnas run``."""

from __future__ import annotations

from hwnas.cli import machines, options
from hwnas.cli.settings import Layers, search_settings, takes_settings

SESSIONS_DIFFER = 0.05
"""Share by which a network may be over its budget in the end: of five networks, measured twice
on one CPU, sessions differed by up to 4.6 %."""


@takes_settings(search_settings)
def run(
    layers: Layers,
    out: options.Out = None,
    resume: options.Resume = False,
    workers: machines.Workers = None,
    ray: machines.RayAddress = None,
    trial_cpus: machines.RayCpus = None,
    trial_gpus: machines.RayGpus = None,
    json: options.Json = False,
) -> None:
    """From photographs to a verified network: search, train, export, evaluate, and measure what has a budget in time.

    Leaves one folder with the architecture, the weights, model.onnx and summary.md. Fails if the network is over a
    budget in time in the end, by more than two sessions on one device may differ (5 %).

    Examples:

      hwnas run --target cpu --budget 5GBitOps

      hwnas run --budget 5GBitOps --data photos/ --preset small --out runs/mine

      hwnas run --out runs/mine --resume
    """
    from hwnas import pipeline
    from hwnas.cli.console import progress, stderr
    from hwnas.cli.runs import open_run
    from hwnas.cli.search import describe_space
    from hwnas.errors import HwnasError

    directory, settings = open_run(out, resume, layers)
    with directory.worked_on(), progress() as tell:
        where = machines.chosen_machines(settings, workers, ray, trial_cpus, trial_gpus)
        if not directory.architecture.exists():
            describe_space(settings, tell)
        result, measured = pipeline.run_all(settings, directory, tell, where)
    budgets = [budget for budget in pipeline.budgets_of(settings) if budget.metric in measured]
    over = {b: measured[b.metric].p50 / b.limit - 1 for b in budgets if b.is_missed(measured[b.metric].p50)}
    if json:
        import json as encoder

        files = {"run": str(directory.path), "model": str(directory.onnx), "summary": str(directory.summary)}
        asked = {"target": settings.target, "budgets": list(settings.budgets)}
        latencies = {metric: one.p50 for metric, one in measured.items()}
        known = {"latencies": latencies, "methods": {metric: one.method for metric, one in measured.items()}}
        print(encoder.dumps({**result.as_json(), **asked, **known, "within_budgets": not over, **files}))
    else:
        from rich.markdown import Markdown

        from hwnas.cli.console import stdout

        stdout.print(Markdown(directory.summary.read_text(encoding="utf-8")))
        stdout.print(f"{directory.path}: {result.psnr:.2f} dB, bicubic {result.bicubic_psnr:.2f} dB", style="bold")
    if over:
        takes = " and ".join(f"{b.format(measured[b.metric].p50)}, over the budget of {b}" for b in over)
        again = f"hwnas run --out {directory.path} --resume"
        message = f"the network takes {takes}, though less when it was chosen; measure again by: {again}"
        if max(over.values()) > SESSIONS_DIFFER:
            raise HwnasError(f"{message}; or search with a lower budget")
        stderr.print(f"{message} (sessions differ by so much)")
