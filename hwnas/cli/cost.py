"""``hwnas cost``."""

from __future__ import annotations

from typing import Annotated

import typer

from hwnas.cli import options


def cost(
    network: Annotated[str, typer.Argument(metavar="RUN|ARCH.json|NAME", help="What to cost.")],
    metric: Annotated[str, typer.Option("--metric", help="flops, bitops, params or memory.")] = "bitops",
    bits: Annotated[int | None, typer.Option("--bits", help="Every layer at this width; 32 for float.")] = None,
    scale: options.Scale = None,
    input_size: options.InputSize = None,
    json: options.Json = False,
) -> None:
    """What a network costs, layer by layer.

    Multiply-accumulates are counted by tracing each operator once; every number states its unit and input size.

    Examples:

      hwnas cost quantnas-body3

      hwnas cost srresnet --metric flops --input-size 256x256

      hwnas cost espcn --bits 8 --json
    """
    from hwnas.budget import format_quantity, parse_size
    from hwnas.cli.resolve import resolve_architecture
    from hwnas.cost_models import cost_model, format_size

    model = cost_model(metric)
    size = None if input_size is None else parse_size(input_size)
    architecture = resolve_architecture(network, scale, bits)
    found = model.architecture_cost(architecture, size)
    if json:
        import json as encoder

        layers = [
            {"layer": row.layer, "operator": row.operator, "count": row.count, "value": row.value}
            for row in found.layers
        ]
        print(
            encoder.dumps(
                {
                    "metric": found.metric,
                    "value": found.value,
                    "unit": found.unit,
                    "input_size": format_size(found.input_size),
                    "architecture": architecture.name,
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
    for row in found.layers:
        share = f"{row.value / found.value:.1%}" if found.value else ""
        table.add_row(row.layer, row.operator, str(row.count), f"{row.value:,.0f}", share)
    table.add_section()
    table.add_row("total", "", "", f"{found.value:,.0f}", format_quantity(found.value, found.unit))
    stdout.print(table)
