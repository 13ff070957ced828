"""Settings of the TrilevelNAS search; the defaults are the paper's."""

from __future__ import annotations

from pydantic import Field

from hwnas.searches.differentiable.settings import DifferentiableSettings
from hwnas.searches.trilevel.relaxation import Ordering, Relaxation
from hwnas.training.distance import DistanceSettings
from hwnas.training.teacher import TeacherSettings


class TrilevelSettings(DifferentiableSettings):
    """How the supernet is searched (TrilevelNAS, section 3), beside what all such searches have.

    The warm-up is the published pretraining: the largest, the smallest and two random choices of widths in each step.
    After it, with ``sandwich``, each step has one draw of widths, the largest and the smallest.

    Attributes:
        epochs: the published hundred of pretraining, and a hundred of search.
        warmup_learning_rate: of the weights in the warm-up; after it ``learning_rate`` falls to zero as a cosine.
        relaxation: of operators and of the paths of a tree.
        ordering: how shares are made to fall along the paths of a tree (eq. 2): ``hinge`` penalises those that rise,
            ``projected`` has the term in what is projected, ``literal`` is as printed, and moves nothing.
        ordering_weight: lambda; None for 0.01, or as published for ``literal`` 1e-5.
        sandwich: compute the largest and smallest widths too; a step takes three times as long.
        teacher: whose output is the target; None for the photographs.
        distance: what the loss is made of.
    """

    epochs: int = Field(default=200, gt=0)
    warmup_epochs: int = Field(default=100, ge=0)
    steps_per_epoch: int = Field(default=287, gt=0)
    batch: int = Field(default=6, gt=0)
    crop: int = Field(default=32, ge=4)
    learning_rate: float = Field(default=1e-4, gt=0)
    warmup_learning_rate: float = Field(default=4e-4, gt=0)
    # Near ties sparsestmax's gradient has no bound.
    alpha_gradient_clip: float | None = Field(default=5.0, gt=0)
    relaxation: Relaxation = "sparsestmax"
    ordering: Ordering = "hinge"
    ordering_weight: float | None = Field(default=None, ge=0)
    sandwich: bool = True
    teacher: TeacherSettings | None = None
    distance: DistanceSettings = DistanceSettings()
