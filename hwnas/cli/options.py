"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def flag(name: str, help: str) -> Any:
    """A switch; typer would show ``<bool>`` beside it, as if it took a value."""
    return typer.Option(name, help=help, metavar="")


TARGETS = "android, cpu, cuda, ethos-u65, ethos-u85, jetson, openvino-cpu, openvino-npu, snapdragon, or yours"
Target = Annotated[
    str | None, typer.Option("--target", help=f"Device the network is for: {TARGETS}.", show_default="cpu")
]
For = Annotated[
    str | None,
    typer.Option("--for", help=f"Device whose integers it is trained with: {TARGETS}.", show_default="cpu"),
]
Budget = Annotated[
    list[str] | None,
    typer.Option(
        "--budget", help="Upper bound: 5GBitOps, 30GFLOPs@256x256, 300KParams, 8ms@180x320. Repeat for several."
    ),
]
Algorithm = Annotated[
    str | None, typer.Option("--algorithm", help="Search: falsr, quantnas, trilevel.", show_default="quantnas")
]
Data = Annotated[
    str | None,
    typer.Option("--data", help="Photographs: a folder, 'bundled' or 'div2k'.", show_default="bundled"),
]
Scale = Annotated[
    int | None, typer.Option("--scale", help="Enlargement: 2, 3 or 4.", show_default="4; of falsr 2, as published")
]
Preset = Annotated[
    str | None, typer.Option("--preset", help="tiny (minutes on a CPU), small or paper.", show_default="tiny")
]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of the run.", show_default="runs/NAME")]
Resume = Annotated[bool, flag("--resume", "Go on with the run in --out from its last epoch.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.", show_default="0")]
InputSize = Annotated[
    str | None,
    typer.Option("--input-size", metavar="HxW", help="Low-resolution size at which costs are counted."),
]
Space = Annotated[
    str | None,
    typer.Option(
        "--space",
        help="Search space: quantnas or quantnas-float; of falsr, falsr or falsr-rgb; of trilevel, trilevel-a, "
        "trilevel-b, autodeeplab or agd.",
        show_default="the search's own",
    ),
]
Bits = Annotated[str | None, typer.Option("--bits", help="Bit widths to choose from: 4,8. Any of 2 to 8, and 32.")]
Cells = Annotated[
    int | None,
    typer.Option(
        "--cells",
        help="How often the cell is repeated; of falsr and trilevel, how many there are.",
        show_default="3, 7 or 5",
    ),
]
Channels = Annotated[int | None, typer.Option("--channels", help="Width of the network.", show_default="36 or 64")]
Residual = Annotated[
    str | None,
    typer.Option("--residual", help="Sums of QuantNAS networks: add, adadm, and original-adadm or batch-norm."),
]
Bicubic = Annotated[bool | None, flag("--bicubic/--no-bicubic", "Add the bicubic enlargement to the output.")]
Fixed = Annotated[
    str | None,
    typer.Option(
        "--fixed", metavar="RUN|ARCH.json|NAME", help="Search the bit widths of this network; its operators stay."
    ),
]
Separate = Annotated[bool | None, flag("--separate", "With --fixed: widths of weights and of activations apart.")]
Start = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="RUN|FILE", help="With --fixed: trained weights to start from, of a run or published."
    ),
]
Quantization = Annotated[
    str | None, typer.Option("--quantization", help="How widths are searched: noise, shared or independent.")
]
Penalty = Annotated[
    float | None, typer.Option("--penalty", help="Constant weight of the hardware term, as in the paper.")
]
Objective = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        help="falsr: a cost to minimise in the place of flops, latency@cpu for one; a second, in the place of params.",
    ),
]
MinPsnr = Annotated[float | None, typer.Option("--min-psnr", help="falsr: least PSNR in dB, after the short training.")]
Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher", metavar="NAME|RUN", help="Whose output is the target instead of the photographs: esrgan."
    ),
]
TeacherWeights = Annotated[
    Path | None,
    typer.Option("--teacher-weights", help="File of a published teacher's weights, .safetensors or .pth."),
]
Crop = Annotated[int | None, typer.Option("--crop", help="Side of the training crops in low-resolution pixels.")]
Activations = Annotated[
    str | None, typer.Option("--activations", help="Activation quantiser: learned or hwgq.", show_default="learned")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Any setting: --set train.epochs=50. Repeat for several.")]
Json = Annotated[bool, flag("--json", "One JSON object on stdout and nothing else there.")]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="Safetensors file with the weights of an architecture that is named."),
]
Host = Annotated[
    str | None,
    typer.Option("--host", help="Where the device is: user@address, or its adb serial.", show_default="the target's"),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="Threads of the processor.", min=1, max=1024, show_default="the target's"),
]
