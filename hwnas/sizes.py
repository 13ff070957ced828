"""Sizes of low-resolution images, as users write them: height x width."""

from __future__ import annotations

import re
from typing import TypeAlias

from hwnas.errors import UsageError

Size: TypeAlias = tuple[int, int]
"""Height and width in pixels."""


def parse_size(text: str) -> Size:
    """Height and width from ``180x320``.

    Raises:
        UsageError: if it is anything else, or a side is not in 1..65536.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(1 <= side <= 65536 for side in size):
        raise UsageError(
            f"{text!r} is not an input size; write height x width of the low-resolution image, each of 1 to 65536: "
            "180x320"
        )
    return size


def format_size(size: Size) -> str:
    """``180x320``."""
    return f"{size[0]}x{size[1]}"
