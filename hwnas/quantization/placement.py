"""What a runtime asks of the quantisers of a network, besides the widths of its operators.

Maps that are added are quantised to 8 bits for every runtime (`hwnas.operators.edge`).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Placement(BaseModel):
    """How much of eight bits quantisers use. It is trained with, so a network has one for good.

    Attributes:
        weight_bits: widest range of a weight. Seven bits of eight keep pairs of products within 16 bits, in which x86
            processors without VNNI add them.
        rectified_bits: widest range of a rectified map. Integers that are signed everywhere have seven bits for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight_bits: int = Field(default=7, ge=7, le=8)
    rectified_bits: int = Field(default=8, ge=7, le=8)
