"""``hwnas check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options


def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="What to check.")],
    target: options.Target = None,
    json: options.Json = False,
) -> None:
    """Hold an ONNX file against the rules of a target's runtime, without the runtime; fails if one is broken.

    An error stops the runtime, or makes it compute something else; advice is about time. --json names every node.

    Examples:

      hwnas check model.onnx --target jetson

      hwnas check runs/mine/model.onnx --json
    """
    from dataclasses import asdict
    from itertools import groupby

    from hwnas.devices.target import load_target
    from hwnas.errors import HwnasError, UsageError
    from hwnas.exporters.lint import check_model
    from hwnas.exporters.profiles import PROFILES

    chosen = load_target(target or "cpu")
    if chosen.artifact == "tflite":
        raise UsageError(
            f"{chosen.name} runs TFLite files, which are no graphs with rules; hwnas export verifies them, and hwnas "
            "compile names what a neural processor cannot run"
        )
    findings = check_model(model, PROFILES[chosen.profile])
    errors = sum(finding.level == "error" for finding in findings)
    if json:
        import json as encoder

        rows = [asdict(finding) for finding in findings]
        print(encoder.dumps({"model": str(model), "target": chosen.name, "errors": errors, "findings": rows}))
        if errors:
            raise typer.Exit(1)
        return
    if findings:
        from rich.table import Table

        from hwnas.cli.console import stdout

        table = Table(title=f"{model} on {chosen.name}")
        for column in ("level", "rule", "node", "what, and what to do"):
            table.add_column(column, overflow="fold")
        for _, group in groupby(findings, key=lambda finding: (finding.level, finding.rule)):
            first, *others = group
            more = f" (and {len(others)} more)" if others else ""
            table.add_row(first.level, first.rule, f"{first.node}{more}", first.message)
        stdout.print(table)
    if errors:
        raise HwnasError(
            f"{model} breaks the rules of {chosen.name} in {errors} places; export it by --target {chosen.name} "
            f"--format onnx, of a network that was trained --for {chosen.name} if it is of integers"
        )
    typer.echo(f"{model} keeps the rules of {chosen.name}" + ("; see the advice above" if findings else ""))
