"""Settings of the final training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hwnas.errors import UsageError
from hwnas.training.distance import DistanceSettings
from hwnas.training.teacher import TeacherSettings

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


class TrainSettings(BaseModel):
    """How a network is trained from scratch (QuantNAS, section 4.1 and appendix A, where not said otherwise).

    Attributes:
        epochs: passes; what an epoch is, ``steps_per_epoch`` says.
        steps_per_epoch: optimiser steps between two validations.
        batch: crops a step.
        crop: side of the low-resolution crops in pixels.
        learning_rate: of Adam; None for the published 1e-4 (quantised) or 1e-3 (float).
        schedule: ``cosine`` to zero, ``step`` (x 0.7 every tenth of the epochs, as published for float networks of
            QuantNAS), or ``halving`` (x 0.5 every quarter, as published for TrilevelNAS); None for cosine if quantised
            and step if not.
        weights: trained weights to start from, of the same architecture in float: a second stage, of another distance.
        teacher: whose output is the target; None for the photographs.
        distance: what the loss is made of.
        weight_decay: of all parameters.
        gradient_clip: largest norm of the gradient.
        activations: quantiser of the activations: ``learned`` scales, or ``hwgq``'s constant ones as published.
        collect_steps: steps in which learned scales are initialised from statistics.
        freeze: last share of the epochs, in which AdaDM uses its running statistics; 0: per image, as published.
        precision: lightning Fabric's name of it; the mixed ones are for GPUs.
        compile: have torch compile the network, for which it needs a C++ compiler. Float networks only: graphs break at
            each of Brevitas's quantisers, and are compiled again and again (55 s for the first step of three layers).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(default=30, gt=0)
    steps_per_epoch: int = Field(default=1000, gt=0)
    batch: int = Field(default=16, gt=0)
    crop: int = Field(default=45, ge=4)
    learning_rate: float | None = Field(default=None, gt=0)
    schedule: Literal["cosine", "step", "halving"] | None = None
    weights: Path | None = None
    teacher: TeacherSettings | None = None
    distance: DistanceSettings = DistanceSettings()
    weight_decay: float = Field(default=3e-7, ge=0)
    gradient_clip: float = Field(default=5.0, gt=0)
    activations: Literal["learned", "hwgq"] = "learned"
    collect_steps: int = Field(default=100, gt=0)
    freeze: float = Field(default=0.3, ge=0, lt=1)
    precision: Precision = "32-true"
    compile: bool = False


def require_compilable(settings: TrainSettings, is_quantised: bool) -> None:
    """Refuse to compile a network that is quantised.

    Raises:
        UsageError: if that is asked for.
    """
    if settings.compile and is_quantised:
        raise UsageError("train.compile is for networks in float, which this is not; set it to false")
