"""``hwnas upscale``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli import options


def upscale(
    network: Annotated[
        str,
        typer.Argument(
            metavar="RUN|FILE|NAME|bicubic", help="A run, a file that was exported, or an architecture with --weights."
        ),
    ],
    source: Annotated[Path, typer.Argument(metavar="IN", help="An image, or a folder of images.")],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="An image, or a folder.")],
    tile: Annotated[
        int, typer.Option("--tile", min=0, help="Side of a tile in low-resolution pixels; 0: no tiles.")
    ] = 256,
    overlap: Annotated[
        int | None,
        typer.Option("--overlap", min=0, help="Context around a tile.", show_default="all the network sees"),
    ] = None,
    scale: options.Scale = None,
    weights: options.Weights = None,
) -> None:
    """Enlarge images. Large ones are computed in overlapping tiles, with the result of the whole.

    A run is computed by torch; its model.onnx by ONNX Runtime, which is several times faster.

    Examples:

      hwnas upscale runs/quantnas-cpu-5GBitOps photo.png large.png

      hwnas upscale model.onnx photos/ enlarged/
    """
    from hwnas.cli.console import progress
    from hwnas.cli.resolve import resolve_enlarger
    from hwnas.data.images import find_images, read_image, write_image
    from hwnas.errors import HwnasError, UsageError
    from hwnas.tiling import upscale_tiled

    enlarger = resolve_enlarger(network, scale, weights)
    if not source.exists():
        raise UsageError(f"there is no image or folder {source}; check the path")
    context = enlarger.overlap if overlap is None else overlap
    if source.is_dir():
        jobs = [(path, destination / f"{path.stem}.png") for path in find_images(source)]
        if destination.is_file():
            raise UsageError(f"{destination} is a file; the images of a folder go to a folder")
    else:
        to_folder = destination.is_dir() or not destination.suffix
        jobs = [(source, destination / f"{source.stem}.png" if to_folder else destination)]
    if len({out for _, out in jobs}) < len(jobs):
        raise UsageError(f"images in {source} differ in their endings only; rename them")
    if {out.resolve() for _, out in jobs} & {path.resolve() for path, _ in jobs}:
        raise UsageError(f"{destination} would replace what is to be enlarged; write elsewhere")
    unreadable = []
    with progress() as tell:
        bar = tell.task("enlarging", len(jobs))
        for path, out in jobs:
            try:
                image = read_image(path)
            except HwnasError as error:
                if not source.is_dir():
                    raise
                # The others are worth having.
                unreadable.append(path)
                tell.say(f"left out: {error}")
                bar.advance()
                continue
            # An AdaDM that is not frozen looks at the whole image: its tiles would not fit together.
            if tile and context is not None:
                enlarged = upscale_tiled(enlarger.upscaler, image, enlarger.scale, tile, context)
            else:
                enlarged = enlarger.upscaler(image)
            write_image(out, enlarged)
            height, width = enlarged.shape[:2]
            bar.advance()
            tell.say(f"{out}: {width}x{height}")
    if unreadable:
        names = ", ".join(path.name for path in unreadable[:3])
        more = ", ..." if len(unreadable) > 3 else ""
        rest = f"; the others are in {destination}" if len(unreadable) < len(jobs) else ""
        raise HwnasError(f"{len(unreadable)} of {len(jobs)} images in {source} could not be read ({names}{more}){rest}")
