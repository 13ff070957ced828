"""``hwnas profile``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli import options

if TYPE_CHECKING:
    from hwnas.devices import Measurement
    from hwnas.devices.target import Target
    from hwnas.sizes import Size

DEFAULT_SIZE = (180, 320)

SHOWN = 12
"""Layers on the screen; all are in the file."""


def profile(
    network: Annotated[
        str, typer.Argument(metavar="RUN|ARCH.json|NAME|FILE", help="What to time: a network, or an exported file.")
    ],
    target: Annotated[str, typer.Option("--target", help=f"Device to time it on: {options.TARGETS}.")] = "cpu",
    host: options.Host = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size",
            metavar="HxW",
            help="Height and width of the low-resolution image.",
            show_default="that of a run's budget in time, 180x320",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Another one, timed in turn with it; the ratio is what holds.")
    ] = None,
    bits: Annotated[
        int | None, typer.Option("--bits", help="Every layer of the network at this width; 32 for float.")
    ] = None,
    scale: options.Scale = None,
    threads: options.Threads = None,
    rounds: Annotated[int, typer.Option("--rounds", help="Inferences at least.", min=1)] = 20,
    precision: Annotated[
        float, typer.Option("--precision", help="Half the confidence interval to reach, in percent.", min=0.01)
    ] = 1.0,
    seconds: Annotated[
        float, typer.Option("--seconds", help="When to stop trying to reach it, and 100 inferences.", min=0)
    ] = 30.0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Where the figures go.", show_default="RUN/profile-TARGET-HxW.json, profile.json"
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """How long an image takes on a device, and which layers take it.

    A network that is not a file is written as `hwnas export` would write it, with other weights, which do not change
    the time. Files are timed as they are.

    Examples:

      hwnas profile runs/mine --target cpu

      hwnas profile runs/mine/model.onnx --against other.onnx --input-size 360x640

      hwnas profile espcn --bits 8 --against espcn --target jetson --host me@board
    """
    import json as encoder
    from tempfile import TemporaryDirectory

    from hwnas.cli.console import progress
    from hwnas.cli.resolve import timed_size
    from hwnas.devices import Timing, open_device
    from hwnas.devices.measurement import paired_ratio
    from hwnas.devices.target import load_target
    from hwnas.files import require_writable, write_text
    from hwnas.sizes import format_size, parse_size

    chosen = load_target(target)
    if threads is not None:
        chosen = chosen.model_copy(update={"threads": threads})
    size = (None if input_size is None else parse_size(input_size)) or timed_size(network) or DEFAULT_SIZE
    path = output or Path("profile.json")
    if output is None and Path(network).is_dir():
        path = Path(network) / f"profile-{target}-{format_size(size)}.json"
    require_writable(path)
    names = [network] if against is None else [network, against]
    with open_device(chosen, host) as device, TemporaryDirectory(prefix="hwnas-") as folder, progress() as tell:
        widths = [bits, None]
        files = [_file(name, chosen, size, Path(folder) / str(i), scale, widths[i]) for i, name in enumerate(names)]
        timing = Timing(size, rounds, precision / 100, seconds=seconds, layers=True)
        found = device.measure(files, timing, tell)
    figures = {
        "network": network,
        "bits": bits,
        "target": chosen.name,
        "input_size": format_size(size),
        **found[0].as_json(),
    }
    if against is not None:
        ratio, interval = paired_ratio(*found)
        figures["against"] = {"network": against, **found[1].as_json(), "ratio": ratio, "ratio_interval": interval}
    write_text(path, encoder.dumps(figures, indent=2) + "\n")
    if json:
        print(encoder.dumps(figures))
        return
    _show([name if bits is None or i else f"{name}, {bits} bits" for i, name in enumerate(names)], found, chosen, size)
    typer.echo(f"written to {path}")


def _file(name: str, target: Target, size: Size, folder: Path, scale: int | None, bits: int | None) -> Path:
    """The file that the user names, or a network in one."""
    from importlib.util import find_spec

    from hwnas.errors import UsageError
    from hwnas.exporters.untrained import untrained_suffix, write_untrained
    from hwnas.spaces.lookup import find_architecture

    path = Path(name)
    if path.is_file() and path.suffix != ".json":
        if bits is not None or scale is not None:
            raise UsageError(f"{path} is a file and timed as it is; leave --bits and --scale out")
        if path.suffix == ".tflite" and find_spec("ai_edge_litert"):  # neither Vela nor benchmark_model would say
            from hwnas.exporters.tflite import TfliteArtifact

            height, width = TfliteArtifact(path).size
            if (height, width) != size:
                fixed = f"{height}x{width}"
                raise UsageError(f"{path} takes images of {fixed} only; time it with --input-size {fixed}")
        return path
    architecture = find_architecture(name, scale, bits)
    folder.mkdir()
    written = folder / f"network{untrained_suffix(target)}"
    write_untrained(architecture, target, size, written)
    return written


def _show(names: list[str], found: list[Measurement], target: Target, size: Size) -> None:
    from rich.table import Table

    from hwnas.cli.console import stderr, stdout
    from hwnas.devices.measurement import NOISE, paired_ratio
    from hwnas.sizes import format_size

    first = found[0]
    measured = first.method == "measured"
    table = Table(title=f"{target.name} at {format_size(size)}, {first.method}")
    distribution = ("± 95 %", "p90 ms", "p99 ms") if measured else ()
    remembered = ("memory",) if any(one.peak_bytes is not None for one in found) else ()
    for column in ("network", "p50 ms" if measured else "ms", *distribution, "images/s", "runs", *remembered):
        table.add_column(column, justify="left" if column == "network" else "right", overflow="fold")
    for name, one in zip(names, found, strict=True):
        interval = "" if one.interval is None else f"{(one.interval[1] - one.interval[0]) / 2 / one.p50:.1%}"
        tails = ["" if (ms := one.tail(percent)) is None else f"{ms:.4g}" for percent in (90, 99)]
        spread = [interval, *tails] if measured else []
        memory = ["" if one.peak_bytes is None else f"{one.peak_bytes / 1e6:.3g} MB"] if remembered else []
        means = f" means of {one.mean_of}" if one.mean_of > 1 else ""
        runs = f"{len(one.samples_ms)}{means}" if measured else "none"
        table.add_row(name, f"{one.p50:.4g}", *spread, f"{1e3 / one.p50:.4g}", runs, *memory)
    stdout.print(table)
    if len(found) > 1:
        ratio, within = paired_ratio(*found)
        sure = "" if within is None else f" (95 %: {within[0]:.3f} to {within[1]:.3f})"
        stdout.print(f"{names[0]} takes {ratio:.3f} times as long as {names[1]}{sure}")
    clock = "" if first.clock_khz is None else f", at {first.clock_khz / 1e6:.2f} GHz"
    stdout.print(f"on {first.fingerprint}{clock}")
    if any(one.is_noisy for one in found):
        stderr.print(NOISE)
    if first.layers:
        total = sum(layer.ms for layer in first.layers)
        layers = Table(title=f"slowest of {len(first.layers)} layers of {names[0]}, as the runtime has made them")
        for column in ("layer", "kind", "ms", "share"):
            layers.add_column(column, justify="left" if column in ("layer", "kind") else "right", overflow="fold")
        for layer in sorted(first.layers, key=lambda layer: -layer.ms)[:SHOWN]:
            layers.add_row(layer.name, layer.kind, f"{layer.ms:.3g}", f"{layer.ms / total:.1%}" if total else "")
        stdout.print(layers)
