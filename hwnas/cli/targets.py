"""``hwnas targets``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.cli import options

targets = typer.Typer(
    no_args_is_help=False, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}
)


@targets.callback(invoke_without_command=True)
def list_targets(context: typer.Context, json: options.Json = False) -> None:
    """The devices that networks are made for: what is usable from this machine now, and why the others are not.

    Examples:

      hwnas targets

      hwnas targets check jetson --host me@board

      hwnas targets add board --like jetson --set host=me@board

      hwnas targets show board

      hwnas targets remove board
    """
    if context.invoked_subcommand is not None:
        return
    from concurrent.futures import ThreadPoolExecutor

    from hwnas.devices.target import target_names

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(_describe, target_names()))
    if json:
        import json as encoder

        print(encoder.dumps({"targets": rows}))
        return
    from rich.table import Table

    from hwnas.cli.console import stdout

    table = Table()
    for column in ("target", "device", "runtime", "computes", "usable"):
        table.add_column(column, overflow="fold", no_wrap=column in ("target", "runtime", "usable"))
    for row in rows:
        computes = ", ".join(map(str, row.get("compute_bits", ()))) + " bits" if "compute_bits" in row else ""
        name = f"{row['name']} (yours)" if row.get("own") else row["name"]
        device = f"{row.get('description', '')}, {row['host']}" if row.get("host") else row.get("description", "")
        table.add_row(name, device, row.get("runtime", ""), computes, "yes" if row["usable"] else "no")
    stdout.print(table)
    for row in rows:
        if not row["usable"]:
            print(f"{row['name']}: {row['why_not']}")


def _describe(name: str) -> dict[str, Any]:
    """A target, and whether it can be used from here."""
    from hwnas.devices import open_device
    from hwnas.devices.target import load_target, user_targets
    from hwnas.errors import HwnasError

    row: dict[str, Any] = {"name": name, "own": (user_targets() / f"{name}.toml").is_file()}
    try:
        target = load_target(name)
        row |= target.model_dump(mode="json")
        with open_device(target) as device:
            why_not = device.missing()
    except HwnasError as error:
        why_not = str(error)
    return row | {"usable": why_not is None, "why_not": why_not}


@targets.command("list")
def list_them(context: typer.Context, json: options.Json = False) -> None:
    """The same as `hwnas targets` alone."""
    list_targets(context, json)


@targets.command(no_args_is_help=True)
def check(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Which one.")],
    host: options.Host = None,
    json: options.Json = False,
) -> None:
    """Connect to a target and say what is there: device, runtime and versions, free disk.

    Examples:

      hwnas targets check cpu

      hwnas targets check jetson --host me@board:2222
    """
    from hwnas.devices import open_device
    from hwnas.devices.target import load_target
    from hwnas.errors import HwnasError
    from hwnas.latency.table import find_tables

    chosen = load_target(target)
    with open_device(chosen, host) as device:
        probe = device.probe()
    fingerprint = probe.fingerprint
    tables, damage = [], ""
    try:
        tables = [table for table in find_tables(chosen.name) if table.fits(chosen, fingerprint)]
    except HwnasError as error:
        damage = str(error)
    if json:
        import json as encoder

        found = {"fingerprint": fingerprint.model_dump(), "free_bytes": probe.free_bytes}
        has = {"has_table": bool(tables), "damaged_table": damage or None}
        print(encoder.dumps({"target": target, **found, "notes": probe.notes, **has}))
        return
    from rich.table import Table

    from hwnas.cli.console import stdout

    table = Table(title=f"{target} answers", show_header=False)
    way = {"local": "this machine", "compiler": "by its compiler, here"}.get(device.target.connection)
    rows: dict[str, object] = {"reached": way or f"{device.target.connection} {device.target.host or ''}".strip()}
    rows |= {name.replace("_", " "): value for name, value in fingerprint.model_dump().items() if value is not None}
    if probe.free_bytes is not None:
        rows["free disk"] = f"{probe.free_bytes / 1e9:.1f} GB"
    for name, value in rows.items():
        table.add_row(name, str(value))
    for note in probe.notes:
        table.add_row("besides", note)
    known = "; ".join(str(survey) for each in tables for survey in each.surveys)
    table.add_row("latency table", known or damage or f"none yet; hwnas table build --target {target}")
    stdout.print(table)


@targets.command(no_args_is_help=True)
def add(
    name: Annotated[str, typer.Argument(metavar="FILE.toml|NAME", help="A file, or what a new target is called.")],
    like: Annotated[str | None, typer.Option("--like", help="Target that the new one differs from.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="What differs: --set host=me@board. Repeat for several.")
    ] = None,
) -> None:
    """Keep a target of your own; one of a shipped name takes its place.

    Examples:

      hwnas targets add board.toml

      hwnas targets add board --like jetson --set host=me@board

      hwnas targets add cpu4 --like cpu --set threads=4
    """
    from hwnas.config import merge, parse_assignment
    from hwnas.devices.target import add_target, load_target, make_target, read_target, user_targets
    from hwnas.errors import UsageError

    if name.endswith(".toml"):
        if like is not None:
            raise UsageError("a file is whole; leave --like out, or name the new target without .toml")
        fields = read_target(Path(name)).model_dump()
    elif like is None:
        raise UsageError(f"say which target {name} is like: --like jetson; or name a .toml file")
    else:
        differs = ", ".join(assignments or ())
        fields = load_target(like).model_dump() | {
            "name": name,
            "description": f"{like}{' with ' * bool(differs)}{differs}",
        }
    changes = merge(*(parse_assignment(text) for text in assignments or ()))
    target = make_target({**fields, **changes}, name)
    replaced = (user_targets() / f"{target.name}.toml").exists()
    path = add_target(target)
    typer.echo(f"{path}{' replaced' * replaced}; test it by: hwnas targets check {target.name}")


@targets.command(no_args_is_help=True)
def show(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Which one.")],
    json: options.Json = False,
) -> None:
    """Print a target as TOML, to be changed and added again.

    Examples:

      hwnas targets show jetson > board.toml
    """
    from hwnas.devices.target import load_target, target_as_toml

    chosen = load_target(target)
    if json:
        print(chosen.model_dump_json())
    else:
        print(target_as_toml(chosen), end="")


@targets.command(no_args_is_help=True)
def remove(target: Annotated[str, typer.Argument(metavar="NAME", help="One of your own.")]) -> None:
    """Forget a target of your own; a shipped one whose place it took is there again. Its latency tables stay.

    Examples:

      hwnas targets remove board
    """
    from hwnas.devices.target import remove_target, target_names

    path = remove_target(target)
    typer.echo(f"{path} removed{'; the shipped target is used again' * (target in target_names())}")
