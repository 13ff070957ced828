"""``summary.md``: what a run found, in one page, with how each number came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hwnas.architecture import Architecture
from hwnas.budget import Budget, format_quantity
from hwnas.config import RunConfig
from hwnas.cost_models import cost_model
from hwnas.devices.measurement import Measurement
from hwnas.devices.target import load_target
from hwnas.evaluation import Evaluation
from hwnas.exporters.profiles import PROFILES
from hwnas.exporters.verify import ExportReport


def summarise_run(
    architecture: Architecture,
    config: RunConfig,
    budgets: Sequence[Budget],
    evaluation: Evaluation,
    report: ExportReport,
    measured: Mapping[str, Measurement],
    tried_many: bool = False,
) -> str:
    """The page as Markdown.

    Args:
        architecture: the network.
        config: settings of the run.
        budgets: that it was held to.
        evaluation: of ``model.onnx``.
        report: of its export.
        measured: what it was found to take, by metric.
        tried_many: the search has left a table of candidates and pictures.
    """
    target = load_target(config.target)
    lines = [
        f"# {architecture.name}, x{architecture.scale}",
        "",
        f"Found by {config.algorithm} in space `{config.space_name}`, trained for "
        f"{config.train.epochs * config.train.steps_per_epoch:,} steps on `{config.data}`, seed {config.seed}; "
        "`config.yaml` has every setting.",
        "",
        "| layer | operator | copies |",
        "|---|---|---|",
    ]
    lines += [f"| {s.name} | {architecture.operators[s.name].label} | {s.count} |" for s in architecture.wiring.slots]
    lines += ["", "## Cost", "", "| metric | cost | how it is known | budget |", "|---|---|---|---|"]
    for budget in budgets:
        at, limit = budget.model.at(budget.input_size), budget.format(budget.limit)
        found = measured.get(budget.metric)
        if found is None:
            if budget.model.measurable:
                lines.append(f"| {budget.metric}{at} | | not measured since it was trained | {limit} |")
            else:
                value = budget.model.architecture_cost(architecture, budget.input_size).value
                lines.append(f"| {budget.metric}{at} | {budget.format(value)} | counted | {limit} |")
            continue
        interval = "" if found.interval is None else f" (95 %: {found.interval[0]:.4g} to {found.interval[1]:.4g})"
        means = f" means of {found.mean_of}" if found.mean_of > 1 else ""
        runs = f", median of {len(found.samples_ms)}{means}" if found.method == "measured" else ""
        over = ", **missed**" * budget.is_missed(found.p50)
        runs += ", some much longer" * found.is_noisy
        lines.append(
            f"| {budget.metric}{at} | {budget.format(found.p50)}{interval} | {found.method}{runs} on "
            f"{found.fingerprint}; what was predicted is in front.csv | {limit}{over} |"
        )
    bounded = {budget.metric for budget in budgets}
    for name in ("bitops", f"effective-bitops@{target.name}", "flops", "params"):
        if name not in bounded:
            model = cost_model(name)
            cost = model.architecture_cost(architecture)
            lines.append(
                f"| {name}{model.at(cost.input_size)} | {format_quantity(cost.value, cost.unit)} | counted | |"
            )
    if widened := target.widened_layers(architecture):
        widths = ", ".join(map(str, target.compute_bits))
        lines += [
            "",
            f"Target `{target.name}` computes convolutions in {widths} bits: {', '.join(widened)} are narrower, and "
            "computed in the next wider of these: the effective BitOps are what it computes. `model.onnx` holds their "
            "weights in 8-bit integers.",
        ]
    lines += [
        "",
        "## Quality (measured on the held-out photographs, model.onnx in ONNX Runtime)",
        "",
        "Not trained on, but the best epoch was chosen by them: other photographs may score a little lower.",
        "",
        "| image | PSNR dB | bicubic dB | SSIM | bicubic |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {i.name} | {i.psnr:.2f} | {i.bicubic_psnr:.2f} | {i.ssim:.4f} | {i.bicubic_ssim:.4f} |"
        for i in evaluation.images
    ]
    lines += [
        f"| mean | {evaluation.psnr:.2f} | {evaluation.bicubic_psnr:.2f} | {evaluation.ssim:.4f} "
        f"| {evaluation.bicubic_ssim:.4f} |",
        "",
        "## Files",
        "",
        f"- `model.onnx`: {report.size_bytes / 1000:.0f} kB, in the form that {PROFILES[report.profile].description} "
        f"wants; {report.how}.",
        f"- Parity with torch: {report.parity}.",
        "- `model.onnx.json`: what was measured on it; `weights.safetensors`, `architecture.json`, `front.csv` with "
        f"`front/`, {'`candidates.csv`, `report.html`, ' * tried_many}`config.yaml`, `events/`.",
        "",
    ]
    return "\n".join(lines)
