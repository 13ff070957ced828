"""What all differentiable searches let users set."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hwnas.training.settings import Precision


class DifferentiableSettings(BaseModel):
    """How a supernet is searched: alternations of steps of its alphas and of its weights.

    Attributes:
        penalty: constant weight of the hardware term; None lets the budget set it.
        epochs: alternations, in units of ``steps_per_epoch``; the first of them may be without alpha steps.
        warmup_epochs: first epochs without alpha steps, in which operators learn something to be judged by.
        steps_per_epoch: alpha steps, and as many weight steps.
        batch: crops a step.
        crop: side of the low-resolution crops in pixels.
        learning_rate: of the weights, falling to zero as a cosine.
        gradient_clip: largest norm of the weights' gradient.
        alpha_learning_rate: of Adam with betas 0.5 and 0.999 for the alphas.
        alpha_gradient_clip: largest norm of the gradient of each kind of alphas; None for any.
        front_points: limits at which the front is derived.
        threads: of the processor, in steps; None for all. Of small maps one computes more than several, and rounds the
            same on every machine.
        precision: lightning Fabric's name of it; the mixed ones are for GPUs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    penalty: float | None = Field(default=None, ge=0)
    epochs: int = Field(default=20, gt=0)
    warmup_epochs: int = Field(default=0, ge=0)
    steps_per_epoch: int = Field(default=1000, gt=0)
    batch: int = Field(default=16, gt=0)
    crop: int = Field(default=45, ge=4)
    learning_rate: float = Field(default=1e-3, gt=0)
    gradient_clip: float = Field(default=5.0, gt=0)
    alpha_learning_rate: float = Field(default=3e-4, gt=0)
    alpha_gradient_clip: float | None = Field(default=None, gt=0)
    front_points: int = Field(default=12, ge=2, le=100)
    threads: int | None = Field(default=None, gt=0)
    precision: Precision = "32-true"

    @model_validator(mode="after")
    def _leaves_epochs_to_search(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs} of {self.epochs} epochs, which leaves none to search in; "
                "set warmup_epochs lower, or epochs higher"
            )
        return self
