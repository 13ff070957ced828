"""Settings of the FALSR search; the defaults are the paper's, where it says what they are."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

OBJECTIVES = ("flops", "params")
"""The paper's, beside the quality."""


class EvaluationSettings(BaseModel):
    """How a candidate is trained for a short time (FALSR, section VI-A), to be compared with others.

    Attributes:
        steps: of the optimiser (published: 200 epochs of DIV2K in batches of 16, which is 10,000).
        seconds: after which the training ends, with what it has by then; None for no limit. What is found then depends
            on how fast the machine is.
        batch: crops a step.
        crop: side of the low-resolution crops in pixels.
        learning_rate: of Adam, constant.
        validation_crop: side of the middle of each validation image that is scored, in low-resolution pixels; None for
            whole images.
        early_stop: a candidate is given up halfway if its PSNR is there lower, by more than so many dB, than that of
            another was that costs no more in any objective; None to train all to the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(default=10_000, gt=0)
    seconds: float | None = Field(default=None, gt=0)
    batch: int = Field(default=16, gt=0)
    crop: int = Field(default=48, ge=4)
    learning_rate: float = Field(default=1e-4, gt=0)
    validation_crop: int | None = Field(default=None, ge=16)
    early_stop: float | None = Field(default=None, ge=0)


class ControllerSettings(BaseModel):
    """The network that mutates by what it has learned (FALSR, section IV-E and figure 2).

    Attributes:
        hidden: width of the LSTM, of the embeddings, and of the dense layers.
        learning_rate: of Adam.
        baseline: share of the moving average of rewards that each new one replaces.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    hidden: int = Field(default=64, gt=0)
    learning_rate: float = Field(default=3e-2, gt=0)
    baseline: float = Field(default=0.1, gt=0, le=1)


class FALSRSettings(BaseModel):
    """NSGA-II with a hybrid controller (FALSR, section IV).

    The paper does not say its probabilities; those here are even where nothing speaks for another share. The controller
    needs some thousands of networks to be worth its share (docs/results.md); presets of short searches give it less.

    Attributes:
        objectives: cost models to minimise besides the quality.
        min_psnr: constraint on the PSNR after the short training, in dB; None for none.
        population: networks of a generation.
        generations: after the first population (published: about 10,000 networks in all).
        random_connections: p_r, the share of first networks with each connection on or off at random.
        dense_connections: p_den, the share with all; the rest has none.
        crossover: probability that a child takes a cell and a row of connections of a second parent.
        exploitation: probability that the controller makes the mutation.
        random_mutation: p_mr, the probability that any other mutation is of one cell and one connection at random.
        flops_roulette: p_mf less p_mr, that all cells are drawn anew favouring few mult-adds; the rest favours few
            parameters.
        evaluation: of candidates.
        controller: its network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    objectives: tuple[str, ...] = Field(default=OBJECTIVES, min_length=1, max_length=3)
    min_psnr: float | None = None
    population: int = Field(default=64, ge=2, le=10_000)
    generations: int = Field(default=156, ge=0)
    random_connections: float = Field(default=1 / 3, ge=0, le=1)
    dense_connections: float = Field(default=1 / 3, ge=0, le=1)
    crossover: float = Field(default=0.9, ge=0, le=1)
    exploitation: float = Field(default=0.5, ge=0, le=1)
    random_mutation: float = Field(default=0.5, ge=0, le=1)
    flops_roulette: float = Field(default=0.25, ge=0, le=1)
    evaluation: EvaluationSettings = EvaluationSettings()
    controller: ControllerSettings = ControllerSettings()

    @model_validator(mode="after")
    def _probabilities(self) -> FALSRSettings:
        for first, second in (("random_connections", "dense_connections"), ("random_mutation", "flops_roulette")):
            if getattr(self, first) + getattr(self, second) > 1 + 1e-9:
                raise ValueError(f"{first} and {second} are shares of one, and are more together; lower one of them")
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives names one cost twice; name each once")
        return self
