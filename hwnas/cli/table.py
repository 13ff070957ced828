"""``hwnas table``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli import options
from hwnas.cli.settings import Layers, space_settings, takes_settings

if TYPE_CHECKING:
    from hwnas.config import RunConfig
    from hwnas.devices import Fingerprint
    from hwnas.latency.table import LatencyTable, Survey, SurveyedSpace
    from hwnas.sizes import Size

table = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}
)

Calibration = Annotated[
    int,
    typer.Option(
        "--calibration", help="Networks at random, besides those that operators are told from.", min=2, max=10000
    ),
]
Rounds = Annotated[int, typer.Option("--rounds", help="Turns of each network.", min=3, max=10000)]


@table.callback()
def tables() -> None:
    """Latency tables: what each operator of a space takes on a target, to search with a budget in milliseconds."""


@table.command()
@takes_settings(space_settings)
def build(
    layers: Layers,
    host: options.Host = None,
    calibration: Calibration = 40,
    rounds: Annotated[
        int,
        typer.Option("--rounds", help="Turns of each network; what had fewer takes them anew.", min=3, max=10000),
    ] = 15,
    json: options.Json = False,
) -> None:
    """Measure networks of a space on the target, until each of its operators is known.

    Every operator is measured in place: in a whole network, written as it would be deployed. What is measured stays;
    the same command goes on where it was interrupted. The space is that of `hwnas search` with the same options.

    Examples:

      hwnas table build --target cpu

      hwnas table build --target jetson --host me@board --input-size 360x640

      hwnas table build --target cpu --bits 32 --calibration 80

      hwnas table build --target cpu --algorithm trilevel --preset small
    """
    from hwnas.cli.console import progress, stderr
    from hwnas.cli.runs import new_config
    from hwnas.cost_models.base import Prediction
    from hwnas.devices import open_device
    from hwnas.devices.target import load_target
    from hwnas.latency import build as building
    from hwnas.latency.fit import fit

    settings = new_config(layers)
    target = load_target(settings.target)
    space, size = _space_and_size(settings)
    with open_device(target, host) as device, progress() as tell:
        fingerprint = device.probe().fingerprint
        tell.say(f"{target.name}: {fingerprint}")
        found, survey = building.open_survey(device, space, size, fingerprint)
        if lacking := len(building.missing(survey, calibration, rounds)):
            everything = len(building.wanted(survey, calibration))
            minutes = math.ceil(building.estimate_minutes(survey, device, calibration, rounds))
            tell.say(
                f"space {space.name}: {everything - lacking} of {everything} networks are there; about {minutes} min"
            )
            found, survey = building.build_table(device, space, size, tell, calibration, rounds)
    model = fit(survey, target)
    if json:
        import json as encoder

        print(
            encoder.dumps(
                {
                    "table": str(found.path),
                    "target": target.name,
                    "fingerprint": fingerprint.model_dump(),
                    "networks": len(survey.networks),
                    "minutes": survey.seconds / 60,
                    "reference_ms": survey.ms,
                    "method": device.method,
                    "uncertainty": model.uncertainty,
                    "is_nonsense": model.is_nonsense,
                }
            )
        )
        return
    typer.echo(
        f"{found.path}\n  {len(survey.networks)} networks in {survey.seconds / 60:.1f} minutes; "
        f"predictions: {Prediction(model.uncertainty, str(fingerprint), is_nonsense=model.is_nonsense)}"
    )
    spread = max(survey.reference_ms) / min(survey.reference_ms)
    if spread > 1.1:
        stderr.print(
            f"the reference took {min(survey.reference_ms):.3g} to {max(survey.reference_ms):.3g} ms: the device's "
            "speed changes; ratios hold, milliseconds are those of the median session"
        )


@table.command("list")
def list_tables(json: options.Json = False) -> None:
    """The tables that are there, the newest first: of which spaces, and measured on what.

    Examples:

      hwnas table list
    """
    from hwnas.errors import HwnasError
    from hwnas.latency.table import read_table, table_files

    rows: list[dict[str, Any]] = []
    for path in table_files():
        row: dict[str, Any] = {"table": str(path)}
        try:
            found = read_table(path)
        except HwnasError as error:
            rows.append(row | {"error": str(error)})
            continue
        row |= {"target": found.target, "fingerprint": found.fingerprint.model_dump(), "device": str(found.fingerprint)}
        for survey in found.surveys:
            of_it = {"networks": len(survey.networks), "minutes": survey.seconds / 60, "complete": survey.is_complete}
            rows.append(row | {"space": str(survey), **of_it})
    if json:
        import json as encoder

        print(encoder.dumps({"tables": rows}))
        return
    from rich.table import Table

    from hwnas.cli.console import stdout

    shown = Table()
    for column in ("target", "space", "networks", "measured on"):
        shown.add_column(column, justify="right" if column == "networks" else "left", overflow="fold")
    sound = [row for row in rows if "error" not in row]
    for row in sound:
        networks = f"{row['networks']}{'' if row['complete'] else ', incomplete'}"
        shown.add_row(row["target"], row["space"], networks, row["device"])
    if sound or not rows:
        stdout.print(shown if sound else "none yet; hwnas table build --target cpu")
    for row in filter(lambda row: "error" in row, rows):
        print(row["error"])


@table.command()
@takes_settings(space_settings)
def show(layers: Layers, json: options.Json = False) -> None:
    """What a target's newest table says of the operators of a space.

    Examples:

      hwnas table show --target cpu

      hwnas table show --target cpu --json
    """
    from hwnas.cli.runs import new_config
    from hwnas.cost_models.base import Prediction
    from hwnas.latency.fit import fit

    settings = new_config(layers)
    found, survey = _existing(settings)
    from hwnas.devices import DEVICES
    from hwnas.devices.target import load_target

    target = load_target(settings.target)
    model, how = fit(survey, target), DEVICES[target.runtime].method
    rows: list[dict[str, Any]] = []
    for (spec, resolution), made_of in survey.design.features(target).items():
        row: dict[str, Any] = {
            "operator": spec.label,
            "in_channels": spec.in_channels,
            "out_channels": spec.out_channels,
            "map": f"{survey.size[0] * resolution}x{survey.size[1] * resolution}",
            "ms": model.operators[spec, resolution],
        }
        # What is of the constant is none; what only reads other maps, signed ones, has the same name.
        if made_of and row not in rows:
            rows.append(row)
    if json:
        import json as encoder

        head = {"table": str(found.path), "fingerprint": found.fingerprint.model_dump(), "method": "predicted"}
        counted = {"networks": len(survey.networks), "networks_method": how}
        whole = {"reference_ms": survey.ms, "network_ms": model.constant, "uncertainty": model.uncertainty}
        whole["is_nonsense"] = model.is_nonsense
        print(encoder.dumps({**head, **counted, **whole, "operators": rows}))
        return
    from rich.table import Table

    from hwnas.cli.console import stdout

    shown = Table(title=f"{settings.target}: {survey.design.title}")
    for column in ("operator", "channels", "map", "ms"):
        shown.add_column(column, justify="left" if column == "operator" else "right")
    for row in sorted(rows, key=lambda row: (row["map"], row["in_channels"], row["out_channels"], row["ms"])):
        channels = f"{row['in_channels']} to {row['out_channels']}"
        shown.add_row(row["operator"], channels, row["map"], f"{row['ms']:.3f}")
    stdout.print(shown)
    stdout.print(f"the sum of a network begins with {model.constant:.4g} ms, for all that is around its operators")
    stdout.print(f"{how} on {found.fingerprint}: {len(survey.networks)} networks, {survey.seconds / 60:.1f} minutes")
    prediction = Prediction(model.uncertainty, str(found.fingerprint), is_nonsense=model.is_nonsense)
    stdout.print(f"predictions: {prediction}")
    stdout.print(str(found.path))


@table.command()
@takes_settings(space_settings)
def validate(
    layers: Layers,
    host: options.Host = None,
    networks: Annotated[int, typer.Option("--networks", help="How many.", min=2, max=10000)] = 50,
    rounds: Rounds = 15,
    sample: Annotated[int, typer.Option("--sample", help="Seed of the choice of networks.", min=0)] = 1,
    json: options.Json = False,
) -> None:
    """Measure networks that the table has not seen, whole, and hold its predictions against them.

    Examples:

      hwnas table validate --target cpu

      hwnas table validate --target cpu --networks 20 --json
    """
    from dataclasses import asdict

    from hwnas.cli.console import progress, stdout
    from hwnas.cli.runs import new_config
    from hwnas.devices import open_device
    from hwnas.devices.target import load_target
    from hwnas.latency.validate import validate as hold_against

    settings = new_config(layers)
    with open_device(load_target(settings.target), host) as device, progress() as tell:
        found, survey = _existing(settings, device.probe().fingerprint)
        result = hold_against(device, found, survey, networks, tell, rounds, sample)
    if json:
        import json as encoder

        accuracies = {"accuracy": result.accuracy, "by_the_clock": result.accuracy_by_the_clock}
        head = {"table": str(found.path), "fingerprint": found.fingerprint.model_dump(), "method": device.method}
        print(encoder.dumps({**head, **asdict(result), **{name: asdict(value) for name, value in accuracies.items()}}))
        return
    from rich.table import Table

    shown = Table(title=f"{len(result.predicted_ms)} networks of {survey.space.name} on {settings.target}")
    for column in ("", "Spearman's rho", "mean error", "bias", "within 5 %", "within 10 %"):
        shown.add_column(column, justify="right" if column else "left")
    for label, a in (("in turn with the reference", result.accuracy), ("by the clock", result.accuracy_by_the_clock)):
        shown.add_row(
            label, f"{a.rho:.4f}", f"{a.error:.1%}", f"{a.bias:+.1%}", f"{a.within_5:.0%}", f"{a.within_10:.0%}"
        )
    stdout.print(shown)
    stdout.print(
        "in turn with the reference: as a multiple of the time of one network that was measured beside each, times "
        "what it took when the table was built; by the clock: milliseconds, with the device's speed of today in them"
    )
    low, high = min(result.measured_ms), max(result.measured_ms)
    stdout.print(f"they take {low:.4g} to {high:.4g} ms, {device.method} on {found.fingerprint}")
    now = sorted(result.reference_ms)[len(result.reference_ms) // 2]
    stdout.print(f"the reference takes {now:.4g} ms now, and took {survey.ms:.4g} ms when the table was built")


def _space_and_size(settings: RunConfig) -> tuple[SurveyedSpace, Size]:
    from hwnas import pipeline
    from hwnas.latency.cost import LatencyCost
    from hwnas.latency.table import surveyed
    from hwnas.sizes import parse_size

    size = LatencyCost.default_input_size if settings.input_size is None else parse_size(settings.input_size)
    return surveyed(pipeline.space_of(settings)), size


def _existing(settings: RunConfig, fingerprint: Fingerprint | None = None) -> tuple[LatencyTable, Survey]:
    """The table of a device, or the newest one of the target."""
    from hwnas.latency.cost import LatencyCost

    space, size = _space_and_size(settings)
    fitted = LatencyCost(settings.target, fingerprint).fitted(space, size)
    return fitted.table, fitted.survey
