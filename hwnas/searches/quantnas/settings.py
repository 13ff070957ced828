"""Settings of the QuantNAS search; the defaults are the paper's."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hwnas.searches.quantnas.mixed_operator import Quantization
from hwnas.training.settings import Precision


class QuantNASSettings(BaseModel):
    """How the supernet is searched (QuantNAS, section 3.2 and appendix A).

    Attributes:
        quantization: ``noise`` (SAN), ``shared`` (SW), or ``independent`` weights for each width.
        merge: compute candidates that are single convolutions together; False is the published, slower way.
        penalty: constant weight of the hardware term (the paper's eta); None lets the budget set it.
        epochs: alternations of alpha and weight steps, in units of ``steps_per_epoch``.
        warmup_epochs: first epochs without alpha steps and without noise (published: none), for short searches, whose
            first alpha steps would judge operators that have learned nothing.
        steps_per_epoch: alpha steps, and as many weight steps.
        batch: crops a step.
        crop: side of the low-resolution crops in pixels.
        optimizer: of the weights: ``sgd`` with momentum 0.9 (the paper) or ``adam`` (its published code).
        learning_rate: of the weights, falling to zero as a cosine.
        weight_decay: of the weights; None for the published 3e-8 (quantised) or 3e-7 (float).
        gradient_clip: largest norm of the weights' gradient.
        alpha_learning_rate: of Adam with betas 0.5 and 0.999 for the alphas.
        entropy: final weight of the entropy term; None for the published 1e-4 (quantised) or 1e-3 (float).
        front_points: limits at which the front is derived.
        precision: lightning Fabric's name of it; the mixed ones are for GPUs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    quantization: Quantization = "noise"
    merge: bool = True
    penalty: float | None = Field(default=None, ge=0)
    epochs: int = Field(default=20, gt=0)
    warmup_epochs: int = Field(default=0, ge=0)
    steps_per_epoch: int = Field(default=1000, gt=0)
    batch: int = Field(default=16, gt=0)
    crop: int = Field(default=45, ge=4)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    gradient_clip: float = Field(default=5.0, gt=0)
    alpha_learning_rate: float = Field(default=3e-4, gt=0)
    entropy: float | None = Field(default=None, ge=0)
    front_points: int = Field(default=12, ge=2, le=100)
    precision: Precision = "32-true"

    @model_validator(mode="after")
    def _leaves_epochs_to_search(self) -> QuantNASSettings:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs} of {self.epochs} epochs, which leaves none to search in; "
                "set warmup_epochs lower, or epochs higher"
            )
        return self
