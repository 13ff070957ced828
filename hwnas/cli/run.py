"""``hwnas run``."""

from __future__ import annotations

from hwnas.cli import options


@options.takes_settings(options.search_settings)
def run(
    layers: options.Layers,
    out: options.Out = None,
    resume: options.Resume = False,
    json: options.Json = False,
) -> None:
    """From photographs to a verified network: search, train, export, evaluate.

    Leaves one folder with the architecture, the weights, model.onnx and summary.md.

    Examples:

      hwnas run --target cpu --budget 5GBitOps

      hwnas run --budget 5GBitOps --data photos/ --preset small --out runs/mine

      hwnas run --out runs/mine --resume
    """
    from hwnas import pipeline
    from hwnas.cli.console import progress
    from hwnas.cli.runs import open_run
    from hwnas.cli.search import describe_space
    from hwnas.errors import HwnasError

    directory, settings = open_run(out, resume, layers)
    with directory.discarded_if_unused(), progress() as tell:
        describe_space(settings, tell)
        result, measured = pipeline.run_all(settings, directory, tell)
    budgets = {budget.metric: budget for budget in pipeline.budgets_of(settings)}
    missed = [budgets[metric] for metric, one in measured.items() if budgets[metric].is_missed(one.p50)]
    if json:
        import json as encoder

        files = {"run": str(directory.path), "model": str(directory.onnx), "summary": str(directory.summary)}
        asked = {"target": settings.target, "budgets": list(settings.budgets)}
        latencies = {metric: one.p50 for metric, one in measured.items()}
        known = {"latencies": latencies, "methods": {metric: one.method for metric, one in measured.items()}}
        print(encoder.dumps({**result.as_json(), **asked, **known, "within_budgets": not missed, **files}))
    else:
        from rich.markdown import Markdown

        from hwnas.cli.console import stdout

        stdout.print(Markdown(directory.summary.read_text(encoding="utf-8")))
        stdout.print(f"{directory.path}: {result.psnr:.2f} dB, bicubic {result.bicubic_psnr:.2f} dB", style="bold")
    if missed:
        budget = missed[0]
        raise HwnasError(
            f"the trained network takes {budget.format(measured[budget.metric].p50)}, over the budget of {budget}, "
            "though it was within it when it was chosen: the device has become slower, or something else is running "
            f"there; measure again by `hwnas profile {directory.path}`, or search with a lower budget"
        )
