"""``hwnas cost``."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli import options


def cost(
    network: Annotated[str, typer.Argument(metavar="RUN|ARCH.json|NAME", help="What to cost.")],
    metric: Annotated[str, typer.Option("--metric", help="flops, bitops, params, memory, latency.")] = "bitops",
    target: Annotated[
        str | None,
        typer.Option("--target", help=f"Device: whose latency, or which BitOps it computes. {options.TARGETS}."),
    ] = None,
    bits: Annotated[int | None, typer.Option("--bits", help="Every layer at this width; 32 for float.")] = None,
    scale: options.Scale = None,
    input_size: options.InputSize = None,
    json: options.Json = False,
) -> None:
    """What a network costs, layer by layer.

    Multiply-accumulates are counted by tracing each operator once; every number states its unit and input size. With
    --target, BitOps are shown as they are computed there too: widths that it does not have in the next that it has.
    Latency is predicted from the target's table.

    Examples:

      hwnas cost quantnas-body3

      hwnas cost srresnet --metric flops --input-size 256x256

      hwnas cost espcn --bits 8 --json

      hwnas cost quantnas-body3 --target jetson

      hwnas cost runs/mine --metric latency --target cpu
    """
    from dataclasses import asdict

    from hwnas.budget import format_quantity
    from hwnas.cli.resolve import timed_size
    from hwnas.cost_models import cost_model, target_cost_models
    from hwnas.errors import UsageError
    from hwnas.sizes import format_size, parse_size
    from hwnas.spaces.lookup import find_architecture

    if metric in target_cost_models():
        if target is None:
            raise UsageError(f"{metric} is of a device; say which by --target cpu")
        metric = f"{metric}@{target}"
    model = cost_model(metric)
    size = parse_size(input_size) if input_size is not None else timed_size(network) if model.measurable else None
    architecture = find_architecture(network, scale, bits)
    found = model.architecture_cost(architecture, size)
    effective = None
    if metric == "bitops" and target is not None:
        effective = cost_model(f"effective-bitops@{target}").architecture_cost(architecture, size)
    prediction = model.prediction(architecture, found.input_size)
    method = {"method": "counted"} if prediction is None else {"method": "predicted", **asdict(prediction)}
    if json:
        import json as encoder

        layers = [
            {"layer": row.layer, "operator": row.operator, "count": row.count, "value": row.value}
            | ({"effective": effective.layers[i].value} if effective else {})
            for i, row in enumerate(found.layers)
        ]
        print(
            encoder.dumps(
                {
                    "metric": found.metric,
                    "value": found.value,
                    "unit": found.unit,
                    "input_size": format_size(found.input_size),
                    "architecture": architecture.name,
                    **method,
                    **({"effective": effective.value, "target": target} if effective else {}),
                    "layers": layers,
                }
            )
        )
        return
    from rich.table import Table

    from hwnas.cli.console import stdout

    table = Table(title=f"{architecture.name} x{architecture.scale}: {metric}{model.at(found.input_size)}")
    table.add_column("layer")
    table.add_column("operator")
    table.add_column("copies", justify="right")
    table.add_column(found.unit, justify="right")
    table.add_column("share", justify="right")
    if effective:
        table.add_column(f"computed on {target}", justify="right")
    digits = 3 if model.measurable else 0
    for i, row in enumerate(found.layers):
        share = f"{row.value / found.value:.1%}" if found.value else ""
        computed = [f"{effective.layers[i].value:,.0f}"] if effective else []
        table.add_row(row.layer, row.operator, str(row.count), f"{row.value:,.{digits}f}", share, *computed)
    table.add_section()
    computed = [format_quantity(effective.value, effective.unit)] if effective else []
    whole = format_quantity(found.value, found.unit)
    table.add_row("total", "", "", f"{found.value:,.{digits}f}", whole, *computed)
    stdout.print(table)
    if prediction is not None:
        stdout.print(
            f"predicted from networks {prediction.source} ({prediction}); an operator counts what it takes more than "
            "the cheapest one of as many channels"
        )
