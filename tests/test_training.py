"""The final training against torch's own schedules and optimiser, and which of its networks it keeps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hwnas.architecture import Architecture
from hwnas.checkpoints import load_network
from hwnas.data.crops import ImagePairs
from hwnas.data.degradation import downscale
from hwnas.data.images import ImageArray
from hwnas.data.sources import TrainingData
from hwnas.errors import HwnasError, UsageError
from hwnas.metrics import psnr
from hwnas.operators.layers import FloatLayers
from hwnas.progress import Silent
from hwnas.quantization.placement import Placement
from hwnas.run_directory import RunDirectory
from hwnas.spaces import SPACES, SpaceOptions, named_architecture
from hwnas.training.common import Losses
from hwnas.training.settings import TrainSettings
from hwnas.training.train import learning_rate, train

CORNERS = ((0, 150), (100, 180), (200, 250))
Snapshot = dict[str, Tensor]


class Interrupted(Exception):
    """What stops a training here; pytest would stop at a KeyboardInterrupt itself."""


@dataclass(frozen=True, eq=False)
class RecordedPairs(ImagePairs):
    """Image pairs that remember the batches drawn of them, and of which images."""

    batches: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    images: list[Sequence[int] | None] = field(default_factory=list)

    def sample(
        self, rng: np.random.Generator, batch: int, crop: int, indices: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        self.batches.append(super().sample(rng, batch, crop, indices))
        self.images.append(indices)
        return self.batches[-1]


@dataclass(frozen=True)
class Step:
    """An optimiser's step as it begins."""

    options: dict[str, Any]
    values: list[Tensor]
    gradients: list[Tensor | None]


@contextmanager
def every_step_noted() -> Iterator[list[Step]]:
    steps: list[Step] = []

    def note(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        (group,) = optimizer.param_groups
        options = {name: value for name, value in group.items() if name != "params"}
        values = [p.detach().clone() for p in group["params"]]
        steps.append(Step(options, values, [None if p.grad is None else p.grad.clone() for p in group["params"]]))

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield steps
    finally:
        handle.remove()


@dataclass(frozen=True)
class Trained:
    """A training that is over."""

    best: float
    steps: list[Step]
    pairs: RecordedPairs
    run: RunDirectory


def photographs(*sides: int) -> list[tuple[str, ImageArray]]:
    picture: ImageArray = data.astronaut()
    return [(f"{i}", picture[y : y + s, x : x + s]) for i, (s, (y, x)) in enumerate(zip(sides, CORNERS, strict=False))]


VALIDATION = photographs(32, 40)


def small(name: str = "quantnas-float", residual: str = "add") -> Architecture:
    """The first of a published space: of plain 3x3 convolutions mostly."""
    return SPACES[name](SpaceOptions(channels=6, cells=1, scale=2, residual=residual)).first


def small_settings(**settings: Any) -> TrainSettings:
    fields = {"epochs": 2, "steps_per_epoch": 2, "batch": 2, "crop": 8, "collect_steps": 1} | settings
    return TrainSettings.model_validate(fields)


def trained(path: Path, architecture: Architecture, sides: Sequence[int] = (32, 32), **settings: Any) -> Trained:
    """A training of two epochs of two steps where the settings do not say otherwise; it goes on where it can."""
    pairs = RecordedPairs.prepare(photographs(*sides), architecture.scale)
    assert isinstance(pairs, RecordedPairs)
    run = RunDirectory(path)
    with every_step_noted() as steps:
        best = train(
            architecture, TrainingData(pairs, VALIDATION), small_settings(**settings), Placement(), run, 0, Silent()
        )
    return Trained(best, steps, pairs, run)


def of_torch(
    base: float, epochs: int, per_epoch: int, make: Callable[[torch.optim.Optimizer], LRScheduler], each_step: bool
) -> list[float]:
    """The learning rate of every step by a schedule of torch."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], base)
    scheduler = make(optimizer)
    rates = []
    for step in range(epochs * per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if each_step or (step + 1) % per_epoch == 0:
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("name", "settings", "base", "cosine"),
    [
        ("quantnas-float", {}, 1e-3, False),
        ("quantnas", {}, 1e-4, True),
        ("quantnas-float", {"schedule": "cosine"}, 1e-3, True),
        ("quantnas", {"schedule": "step"}, 1e-4, False),
        ("quantnas", {"learning_rate": 0.02}, 0.02, True),
        ("quantnas-float", {"learning_rate": 0.02}, 0.02, False),
    ],
)
def test_the_learning_rate_is_that_of_torchs_schedule(
    name: str, settings: dict[str, Any], base: float, cosine: bool
) -> None:
    """Thirty epochs: a cosine to zero step by step, or x 0.7 every three epochs."""

    def make(optimizer: torch.optim.Optimizer) -> LRScheduler:
        return CosineAnnealingLR(optimizer, T_max=30 * 7) if cosine else StepLR(optimizer, step_size=3, gamma=0.7)

    architecture, of_ours = small(name), TrainSettings(steps_per_epoch=7, **settings)
    assert of_ours.epochs == 30
    found = [learning_rate(architecture, of_ours, step) for step in range(30 * 7)]
    assert found == pytest.approx(of_torch(base, 30, 7, make, each_step=cosine), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", ["quantnas-float", "quantnas"])
def test_the_parameters_take_the_steps_of_torchs_adam_on_that_schedule(tmp_path: Path, name: str) -> None:
    steps = trained(tmp_path / "run", small(name), epochs=10, weight_decay=0.1, learning_rate=0.01).steps
    assert len(steps) == 20
    parameters = [value.clone() for value in steps[0].values]
    adam = torch.optim.Adam(parameters, 0.01, weight_decay=0.1)
    schedule = CosineAnnealingLR(adam, T_max=20) if name == "quantnas" else StepLR(adam, step_size=2, gamma=0.7)
    for step, after in itertools.pairwise(steps):
        for parameter, gradient in zip(parameters, step.gradients, strict=True):
            parameter.grad = gradient
        adam.step()
        schedule.step()
        for parameter, value in zip(parameters, after.values, strict=True):
            assert torch.allclose(parameter, value, rtol=1e-5, atol=1e-6)


def test_the_weight_decay_is_as_published_where_none_is_set(tmp_path: Path) -> None:
    found = trained(tmp_path / "run", small(), epochs=1)
    assert {step.options["weight_decay"] for step in found.steps} == {3e-7}


def test_it_learns_from_the_mean_absolute_error(tmp_path: Path) -> None:
    found = trained(tmp_path / "run", small(), epochs=1, gradient_clip=1e9)
    network = small().build(FloatLayers())
    for step, (lr, hr) in zip(found.steps, found.pairs.batches, strict=True):
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), step.values, strict=True):
                parameter.copy_(value)
        expected = torch.autograd.grad((network(lr) - hr).abs().mean(), list(network.parameters()))
        for gradient, slope in zip(step.gradients, expected, strict=True):
            assert gradient is not None and torch.allclose(gradient, slope, rtol=1e-4, atol=1e-7)


def norms(found: Trained) -> list[float]:
    return [math.hypot(*(float(g.norm()) for g in step.gradients if g is not None)) for step in found.steps]


def test_its_gradient_is_no_longer_than_allowed(tmp_path: Path) -> None:
    assert min(norms(trained(tmp_path / "free", small(), gradient_clip=1e9))) > 2e-3
    clipped = norms(trained(tmp_path / "clipped", small(), gradient_clip=1e-3))
    assert clipped == pytest.approx([1e-3] * 4, rel=1e-3)


def test_it_takes_crops_of_the_images_that_have_room(tmp_path: Path) -> None:
    # The second photograph has 5 low-resolution pixels a side.
    found = trained(tmp_path / "run", small(), sides=(32, 10, 32), epochs=1)
    assert [set(images or ()) for images in found.pairs.images] == [{0, 2}] * 2


@pytest.mark.parametrize("residual", ["add", "adadm"])
def test_what_it_returns_is_the_psnr_of_the_network_it_leaves(tmp_path: Path, residual: str) -> None:
    found = trained(tmp_path / "run", small(residual=residual), freeze=0.5)
    record, network = load_network(found.run.weights)
    scores = []
    for _, hr in VALIDATION:
        lr = torch.from_numpy(downscale(hr, 2).astype(np.float32) / 255).permute(2, 0, 1)[None]
        with torch.no_grad():
            out = network(lr).clamp(0, 1)[0].permute(1, 2, 0).numpy()
        scores.append(psnr(np.floor(out * 255 + 0.5).astype(np.uint8), hr, 2))
    assert found.best == pytest.approx(np.mean(scores), abs=0.01)
    assert record.validation_psnr == found.best
    assert record.frozen == (residual == "adadm")


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Snapshot]]:
    """Decides what each epoch scores; where the scores end, the training is interrupted.

    Called with the scores, it gives the list in which the networks that were scored appear.
    """

    def script(*values: float) -> list[Snapshot]:
        left, seen = list(values), []

        class Script:
            def __init__(self, images: object, scale: int) -> None:
                pass

            def psnr(self, network: nn.Module) -> float:
                if not left:
                    raise Interrupted
                seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
                return left.pop(0)

        monkeypatch.setattr("hwnas.training.train.Validation", Script)
        return seen

    return script


def holds(run: RunDirectory, snapshot: Snapshot) -> bool:
    """Whether the run left this network."""
    kept = load_network(run.weights)[1].state_dict()
    return kept.keys() == snapshot.keys() and all(torch.equal(kept[name], snapshot[name]) for name in snapshot)


# Four epochs, the last two of them frozen if there is something to freeze: residual, share frozen, scores, epoch kept.
KEPT = {
    "the best is in the middle": ("add", 0.5, (20.0, 25.0, 24.0, 23.0), 1),
    "the best is the last": ("add", 0.5, (20.0, 25.0, 24.0, 26.0), 3),
    "the best is the first": ("add", 0.5, (27.0, 25.0, 24.0, 26.0), 0),
    "never frozen": ("adadm", 0.0, (30.0, 31.0, 20.0, 19.0), 1),
    "frozen, better at first": ("adadm", 0.5, (30.0, 31.0, 20.0, 19.0), 2),
    "frozen, better at last": ("adadm", 0.5, (30.0, 31.0, 20.0, 22.0), 3),
}


@pytest.mark.parametrize("case", KEPT)
def test_the_network_of_the_best_epoch_is_kept(
    tmp_path: Path, scores: Callable[..., list[Snapshot]], case: str
) -> None:
    """Once AdaDM is frozen the network is another function, so the comparison begins anew; without it, never."""
    residual, freeze, values, kept = KEPT[case]
    seen = scores(*values)
    found = trained(tmp_path / "run", small(residual=residual), epochs=4, steps_per_epoch=1, freeze=freeze)
    record, network = load_network(found.run.weights)
    assert found.best == record.validation_psnr == values[kept]
    assert [holds(found.run, snapshot) for snapshot in seen] == [epoch == kept for epoch in range(4)]
    assert record.frozen == (residual == "adadm" and freeze > 0)
    assert not network.training


# As above; the scores before and after an interruption.
RESUMED = {
    "worse than before": ("add", (25.0, 20.0), (24.0, 23.0), 0),
    "better than before": ("add", (20.0, 25.0), (24.0, 26.0), 3),
    "frozen from the epoch on": ("adadm", (30.0, 31.0), (25.0, 22.0), 2),
    "frozen before": ("adadm", (30.0, 31.0, 25.0), (22.0,), 2),
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_training_remembers_the_best(
    tmp_path: Path, scores: Callable[..., list[Snapshot]], case: str
) -> None:
    residual, before, after, kept = RESUMED[case]
    settings: dict[str, Any] = {"epochs": 4, "steps_per_epoch": 1, "freeze": 0.5}
    seen = scores(*before)
    with pytest.raises(Interrupted):
        trained(tmp_path / "run", small(residual=residual), **settings)
    again = scores(*after)
    found = trained(tmp_path / "run", small(residual=residual), **settings)
    seen += again
    assert len(found.steps) == len(after)
    assert found.best == (before + after)[kept]
    assert [holds(found.run, snapshot) for snapshot in seen] == [epoch == kept for epoch in range(4)]
    assert load_network(found.run.weights)[0].frozen == (residual == "adadm")


def test_branches_of_ecbsr_are_trained_on_where_they_were(
    tmp_path: Path, scores: Callable[..., list[Snapshot]]
) -> None:
    architecture = named_architecture("ecbsr", 2, 8, bicubic=True)
    scores(20.0, 21.0)
    whole = trained(tmp_path / "whole", architecture)
    scores(20.0)
    with pytest.raises(Interrupted):
        trained(tmp_path / "run", architecture)
    scores(21.0)
    found = trained(tmp_path / "run", architecture)
    # A weight, a bias and two steps of each; its branches have more.
    assert len(found.steps) == 2 and len(found.steps[0].values) > 4 * len(architecture.operators)
    assert holds(found.run, load_network(whole.run.weights)[1].state_dict())


def test_the_statistics_of_adadm_stand_still_for_the_last_three_tenths(
    tmp_path: Path, scores: Callable[..., list[Snapshot]]
) -> None:
    seen = scores(*[20.0] * 10)
    trained(tmp_path / "run", small(residual="adadm"), epochs=10, steps_per_epoch=1)
    statistics = [name for name in seen[0] if name.rpartition(".")[2] in ("running_mean", "running_var", "running_std")]
    learned = [name for name in seen[0] if name.endswith(".weight")]
    assert statistics and learned
    for names, epochs in ((statistics, 6), (learned, 9)):
        for name in names:
            moved = [not torch.equal(a[name], b[name]) for a, b in itertools.pairwise(seen)]
            assert moved == [True] * epochs + [False] * (9 - epochs)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("every", [1, 3])
def test_a_loss_that_is_not_finite_is_noticed_when_losses_are_read(bad: float, every: int) -> None:
    losses = Losses(torch.device("cpu"), "train.learning_rate", every)
    assert math.isnan(losses.mean)
    read = [losses.add(torch.tensor(float(value)), "step") for value in (1, 2, 6)]
    assert read == [every == 1, every == 1, True]
    assert losses.mean == losses.read("the end") == pytest.approx(3)
    with pytest.raises(HwnasError, match=rf"became {bad} in .*; lower the learning rate \(--set train.learning_rate"):
        for i, value in enumerate((bad, 1.0, 1.0)):
            losses.add(torch.tensor(value), f"step {i + 4}")


@pytest.mark.slow
def test_a_compiled_network_is_trained_alike(tmp_path: Path) -> None:
    architecture = named_architecture("espcn", 2, bicubic=True)
    plain, compiled = (
        trained(tmp_path / f"{choice}", architecture, compile=choice, epochs=2, steps_per_epoch=3)
        for choice in (False, True)
    )
    for one, other in zip(plain.steps, compiled.steps, strict=True):
        for a, b in zip(one.gradients, other.gradients, strict=True):
            assert a is not None and b is not None
            assert torch.allclose(a, b, rtol=1e-2, atol=1e-3 * float(a.abs().max()))
    assert compiled.best == pytest.approx(plain.best, abs=0.02)
    assert load_network(compiled.run.weights)[0].architecture == architecture


def test_a_quantised_network_is_not_compiled(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="train.compile is for networks in float"):
        trained(tmp_path, named_architecture("espcn", 2, 8, bicubic=True), compile=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("bits", [32, 8])
def test_a_gpu_trains_in_mixed_precision(tmp_path: Path, bits: int) -> None:
    architecture = named_architecture("espcn", 2, bits, bicubic=True)
    plain, fast = (
        trained(tmp_path / precision, architecture, epochs=2, steps_per_epoch=30, precision=precision)
        for precision in ("32-true", "bf16-mixed")
    )
    assert fast.best == pytest.approx(plain.best, abs=0.3)
