"""Settings of the QuantNAS search; the defaults are the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hwnas.searches.differentiable.settings import DifferentiableSettings
from hwnas.searches.quantnas.mixed_operator import Quantization


class QuantNASSettings(DifferentiableSettings):
    """How the supernet is searched (QuantNAS, section 3.2 and appendix A); beside those of all such searches.

    The published search has no warm-up, and its penalty is the paper's eta; in a warm-up there is no noise either.

    Attributes:
        quantization: ``noise`` (SAN), ``shared`` (SW), or ``independent`` weights for each width.
        merge: compute candidates that are single convolutions together; False is the published, slower way.
        optimizer: of the weights: ``sgd`` with momentum 0.9 (the paper) or ``adam`` (its published code).
        weight_decay: of the weights; None for the published 3e-8 (quantised) or 3e-7 (float).
        weights: trained weights to start from, of the network whose widths are searched, in float.
        entropy: final weight of the entropy term; None for the published 1e-4 (quantised) or 1e-3 (float).
    """

    quantization: Quantization = "noise"
    merge: bool = True
    optimizer: Literal["sgd", "adam"] = "sgd"
    weight_decay: float | None = Field(default=None, ge=0)
    weights: Path | None = None
    entropy: float | None = Field(default=None, ge=0)
