"""The search as it runs: the images, gradients and steps of its optimisers, held against torch and the formulas."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from skimage import data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.optim.swa_utils import update_bn

from hwnas.architecture import Architecture
from hwnas.budget import Budget
from hwnas.checkpoints import load_state, save_state
from hwnas.data.crops import ImagePairs
from hwnas.data.degradation import downscale
from hwnas.data.images import ImageArray
from hwnas.data.sources import TrainingData
from hwnas.metrics import psnr
from hwnas.progress import Silent
from hwnas.run_directory import RunDirectory
from hwnas.searches import Candidate, SearchResult, SearchTask
from hwnas.searches.feasibility import cost_range
from hwnas.searches.quantnas.front import cheaper_and_better
from hwnas.searches.quantnas.search import QuantNAS
from hwnas.searches.quantnas.settings import QuantNASSettings
from hwnas.searches.quantnas.supernet import Supernet
from hwnas.spaces import SPACES, SearchSpace, SpaceOptions

CORNERS = ((0, 150), (100, 180), (200, 250), (380, 60), (300, 300))
STIFFNESS = 0.01


@dataclass(frozen=True)
class Draw:
    """The images that a batch was drawn from, None for all, and its crops."""

    images: frozenset[int] | None
    lr: Tensor
    hr: Tensor


@dataclass(frozen=True, eq=False)
class RecordedPairs(ImagePairs):
    """Image pairs that remember what was drawn of them."""

    draws: list[Draw] = field(default_factory=list)

    def sample(
        self, rng: np.random.Generator, batch: int, crop: int, indices: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        lr, hr = super().sample(rng, batch, crop, indices)
        self.draws.append(Draw(None if indices is None else frozenset(indices), lr, hr))
        return lr, hr


@dataclass(frozen=True)
class Step:
    """An optimiser's step as it begins, and the images that the batch before it was drawn from."""

    of: Literal["alphas", "weights"]
    options: dict[str, Any]
    values: list[Tensor]
    gradients: list[Tensor]
    images: frozenset[int] | None


class Listener(Silent):
    """Keeps the lines it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@dataclass(frozen=True)
class Searched:
    """A search that is over."""

    result: SearchResult
    steps: list[Step]
    draws: list[Draw]
    run: RunDirectory
    said: list[str]

    def of(self, parameters: str) -> list[Step]:
        """The steps of one optimiser."""
        return [step for step in self.steps if step.of == parameters]

    @property
    def state(self) -> dict[str, Any]:
        return load_state(self.run.search_state)

    def scalars(self, name: str) -> list[float]:
        """What TensorBoard shows, one value an epoch."""
        events = EventAccumulator(str(self.run.events / "search"))
        events.Reload()
        return [event.value for event in events.Scalars(f"search/{name}")]


@contextmanager
def every_step_noted(pairs: RecordedPairs) -> Iterator[list[Step]]:
    steps: list[Step] = []

    def note(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        (group,) = optimizer.param_groups
        steps.append(
            Step(
                # The alphas are one vector a layer; the weights are convolutions too.
                "alphas" if all(p.dim() == 1 for p in group["params"]) else "weights",
                {name: value for name, value in group.items() if name != "params"},
                [p.detach().clone() for p in group["params"]],
                [p.grad.clone() for p in group["params"]],
                pairs.draws[-1].images,
            )
        )

    handle = register_optimizer_step_pre_hook(note)
    try:
        yield steps
    finally:
        handle.remove()


def photographs(*sides: int) -> list[tuple[str, ImageArray]]:
    picture: ImageArray = data.astronaut()
    return [(f"{i}", picture[y : y + s, x : x + s]) for i, (s, (y, x)) in enumerate(zip(sides, CORNERS, strict=False))]


def small_space(name: str = "quantnas", **options: object) -> SearchSpace:
    """A published space with its 3x3 and 5x5 convolutions alone: few enough architectures to look at all of them."""
    fields = {"channels": 6, "cells": 1, "scale": 2, "adadm": False} | options
    space = SPACES[name](SpaceOptions.model_validate(fields))
    choices = {
        layer: tuple(s for s in candidates if s.kind == "conv" and s.groups == 1 and s.kernel > 1)
        for layer, candidates in space.choices.items()
    }
    return SearchSpace(name=name, wiring=space.wiring, choices=choices)


VALIDATION = [("held out", photographs(48)[0][1])]


def search(
    path: Path,
    space: SearchSpace,
    budgets: tuple[Budget, ...] = (),
    sides: Sequence[int] = (32, 32, 32),
    **settings: Any,
) -> Searched:
    """A search of two epochs of two steps where the settings do not say otherwise."""
    pairs = RecordedPairs.prepare(photographs(*sides), space.wiring.scale)
    assert isinstance(pairs, RecordedPairs)
    fields = {"epochs": 2, "steps_per_epoch": 2, "batch": 2, "crop": 8, "front_points": 2} | settings
    run = RunDirectory.create(path, resume=False) if not path.exists() else RunDirectory(path)
    listener = Listener()
    task = SearchTask(
        space=space,
        budgets=budgets,
        data=TrainingData(pairs, VALIDATION),
        settings=QuantNASSettings.model_validate(fields),
        seed=0,
        run=run,
        progress=listener,
    )
    with every_step_noted(pairs) as steps:
        result = QuantNAS().run(task)
    return Searched(result, steps, pairs.draws, run, listener.lines)


def test_the_weights_learn_from_one_half_of_the_images_and_the_alphas_from_the_other(tmp_path: Path) -> None:
    # The third photograph has 5 low-resolution pixels a side, too few for crops of 8.
    found = search(tmp_path / "run", small_space(), sides=(32, 32, 10, 32, 32))
    (for_weights,) = {step.images for step in found.of("weights")}
    (for_alphas,) = {step.images for step in found.of("alphas")}
    assert for_weights is not None and for_alphas is not None
    assert not for_weights & for_alphas
    assert for_weights | for_alphas == {0, 1, 3, 4}
    assert len(for_weights) == len(for_alphas) == 2


def test_a_single_image_serves_both(tmp_path: Path) -> None:
    found = search(tmp_path / "run", small_space(), sides=(32,), epochs=1, steps_per_epoch=1)
    assert [step.of for step in found.steps] == ["alphas", "weights"]
    assert [step.images for step in found.steps] == [frozenset({0})] * 2


def test_alphas_and_weights_take_turns_after_the_warm_up(tmp_path: Path) -> None:
    found = search(tmp_path / "run", small_space(), epochs=3, warmup_epochs=1, alpha_learning_rate=0.1)
    assert [step.of for step in found.steps] == ["weights"] * 2 + ["alphas", "weights"] * 4
    first, last = found.of("alphas")[0], found.of("alphas")[-1]
    assert not any(alpha.any() for alpha in first.values), "they did not move in the warm-up"
    assert all(alpha.any() for alpha in last.values)


def test_alphas_and_weights_learn_from_the_mean_absolute_error(tmp_path: Path) -> None:
    # Nothing is noisy in float, and where all candidates are equally probable entropy does not pull.
    space = small_space("quantnas-float")
    found = search(tmp_path / "run", space, epochs=1, steps_per_epoch=1, gradient_clip=1e9)
    supernet = Supernet(space)
    of_alphas, of_weights = found.steps

    def slopes(parameters: Sequence[Tensor], batch: Draw) -> tuple[Tensor, ...]:
        return torch.autograd.grad((supernet(batch.lr) - batch.hr).abs().mean(), parameters)

    with torch.no_grad():
        for parameter, value in zip(supernet.weights(), of_weights.values, strict=True):
            parameter.copy_(value)
    expected = slopes(list(supernet.alphas), found.draws[0])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(of_alphas.gradients, expected, strict=True))
    with torch.no_grad():
        for i, alpha in enumerate(supernet.alphas):
            alpha.copy_(found.state["supernet"][f"alphas.{i}"])
    expected = slopes(list(supernet.weights()), found.draws[1])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(of_weights.gradients, expected, strict=True))


def weights_at_each_step(found: Searched) -> list[Tensor]:
    return [torch.cat([p.flatten() for p in step.values]) for step in found.of("weights")]


@pytest.mark.parametrize("warmup", [0, 1])
def test_until_the_warm_up_is_over_there_is_no_noise(tmp_path: Path, warmup: int) -> None:
    """Without noise a supernet of 2 bits is one of 8 bits; with it, it is not."""
    paths = {bits: tmp_path / f"{bits}" for bits in (2, 8)}
    settings: dict[str, Any] = {"epochs": 3, "warmup_epochs": warmup, "learning_rate": 0.05}
    coarse, fine = (
        weights_at_each_step(search(path, small_space(bits=(bits,)), steps_per_epoch=1, **settings))
        for bits, path in paths.items()
    )
    same = [torch.equal(a, b) for a, b in zip(coarse, fine, strict=True)]
    # The weights before each of the three steps, one an epoch.
    assert same == ([True, True, False] if warmup else [True, False, False])
    assert not torch.equal(coarse[0], coarse[1])


def replayed(
    steps: list[Step],
    make: Callable[[list[Tensor]], torch.optim.Optimizer],
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
) -> None:
    """Torch's own optimiser, fed the same gradients, has to come by the same values."""
    parameters = [value.clone() for value in steps[0].values]
    optimizer = make(parameters)
    scheduler = schedule(optimizer) if schedule else None
    for step, after in itertools.pairwise(steps):
        for parameter, gradient in zip(parameters, step.gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        if scheduler:
            scheduler.step()
        for parameter, value in zip(parameters, after.values, strict=True):
            assert torch.allclose(parameter, value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_weights_take_the_steps_of_torchs_optimiser_and_cosine_schedule(tmp_path: Path, optimizer: str) -> None:
    def make(parameters: list[Tensor]) -> torch.optim.Optimizer:
        if optimizer == "sgd":
            return torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=0.1)
        return torch.optim.Adam(parameters, 0.05, weight_decay=0.1)

    found = search(
        tmp_path / "run",
        small_space(),
        epochs=3,
        warmup_epochs=1,
        optimizer=optimizer,
        learning_rate=0.05,
        weight_decay=0.1,
    )
    replayed(found.of("weights"), make, lambda made: CosineAnnealingLR(made, T_max=6))


def test_the_alphas_take_the_steps_of_adam_with_the_published_betas(tmp_path: Path) -> None:
    found = search(tmp_path / "run", small_space(), epochs=3, alpha_learning_rate=0.02)
    assert len(found.of("alphas")) == 6
    replayed(found.of("alphas"), lambda parameters: torch.optim.Adam(parameters, 0.02, betas=(0.5, 0.999)))


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("quantnas", {"entropy": 1e-4, "weight_decay": 3e-8}),
        ("quantnas-float", {"entropy": 1e-3, "weight_decay": 3e-7}),
    ],
)
def test_what_is_not_set_is_as_published(tmp_path: Path, name: str, published: dict[str, Any]) -> None:
    # Steps this large leave the uniform distribution, where entropy has no gradient.
    settings: dict[str, Any] = {"alpha_learning_rate": 0.5, "steps_per_epoch": 1}
    default = search(tmp_path / "default", small_space(name), **settings)
    written = search(
        tmp_path / "written", small_space(name), learning_rate=1e-3, gradient_clip=5.0, **settings, **published
    )
    for a, b in zip(default.steps, written.steps, strict=True):
        assert a.options == b.options
        assert all(torch.equal(x, y) for x, y in zip(a.gradients, b.gradients, strict=True))
    assert {step.options["weight_decay"] for step in default.of("weights")} == {published["weight_decay"]}
    assert QuantNASSettings().alpha_learning_rate == 3e-4


def norms(found: Searched) -> list[float]:
    """The norm of all gradients of the weights together, at each step."""
    return [math.hypot(*(float(g.norm()) for g in step.gradients)) for step in found.of("weights")]


def test_the_gradient_of_the_weights_is_no_longer_than_allowed(tmp_path: Path) -> None:
    free = norms(search(tmp_path / "free", small_space(), epochs=1, gradient_clip=1e9))
    assert min(free) > 2e-3
    clipped = norms(search(tmp_path / "clipped", small_space(), epochs=1, gradient_clip=1e-3))
    assert clipped == pytest.approx([1e-3] * 2, rel=1e-3)


def differences(one: Step, other: Step) -> list[np.ndarray]:
    """What the second loss pulls at the alphas beyond the first, where both have the same alphas and weights."""
    assert one.of == other.of == "alphas"
    assert all(torch.equal(a, b) for a, b in zip(one.values, other.values, strict=True))
    pairs = zip(one.gradients, other.gradients, strict=True)
    return [b.double().numpy() - a.double().numpy() for a, b in pairs]


def centre(space: SearchSpace, metric: str) -> float:
    """Expected cost where all candidates are equally probable."""
    return cost_range(space, Budget(metric, math.inf, (32, 32))).centre


def slopes_of_cost(space: SearchSpace, metric: str) -> list[np.ndarray]:
    """Gradient of the expected cost by the alphas, all of them zero: ``p_i (c_i - mean c)``."""
    table = Budget(metric, math.inf, (32, 32)).model.table(space, (32, 32))
    rows = [np.array(table[layer]) for layer in space.choices]
    return [(row - row.mean()) / len(row) for row in rows]


def test_a_penalty_pulls_at_the_alphas_as_the_normalised_cost_does(tmp_path: Path) -> None:
    space = small_space()
    without = search(tmp_path / "without", space, epochs=1, steps_per_epoch=1)
    pressed = search(tmp_path / "pressed", space, epochs=1, steps_per_epoch=1, penalty=0.7)
    found = differences(without.steps[0], pressed.steps[0])
    for pull, slope in zip(found, slopes_of_cost(space, "bitops"), strict=True):
        np.testing.assert_allclose(pull, 0.7 * slope / centre(space, "bitops"), rtol=1e-3, atol=1e-7)


def test_each_budget_pulls_as_its_excess_does_and_none_where_it_is_met(tmp_path: Path) -> None:
    space = small_space()
    shares = {"bitops": 0.6, "params": 0.8, "flops": 1.1}
    budgets = tuple(Budget(metric, share * centre(space, metric), (32, 32)) for metric, share in shares.items())
    without = search(tmp_path / "without", space, epochs=1, steps_per_epoch=1)
    pressed = search(tmp_path / "pressed", space, budgets, epochs=1, steps_per_epoch=1)
    expected = [np.zeros(len(candidates)) for candidates in space.choices.values()]
    for budget in budgets:
        excess = centre(space, budget.metric) / budget.limit - 1
        for total, slope in zip(expected, slopes_of_cost(space, budget.metric), strict=True):
            total += max(0, STIFFNESS * excess) * slope / budget.limit
    for pull, slope in zip(differences(without.steps[0], pressed.steps[0]), expected, strict=True):
        np.testing.assert_allclose(pull, slope, rtol=1e-3, atol=1e-7)
        assert np.abs(slope).max() > 1e-5


def test_the_entropy_term_pulls_the_alphas_apart(tmp_path: Path) -> None:
    """The gradient of the entropy is ``-p_i (log p_i + H)``; the weight of the term is 0 at first and whole at last."""
    space = small_space()
    without, pressed = (
        search(tmp_path / f"{entropy}", space, alpha_learning_rate=0.5, entropy=entropy).of("alphas")
        for entropy in (0.0, 0.3)
    )
    # Steps 0 and 1 are of the first epoch; at step 0 nothing could be seen, since entropy is flat at its maximum.
    assert not any(pull.any() for pull in differences(without[1], pressed[1]))
    assert max(float(alpha.max() - alpha.min()) for alpha in without[2].values) > 0.5, "not uniform any more"
    for pull, alpha in zip(differences(without[2], pressed[2]), without[2].values, strict=True):
        p = alpha.double().softmax(0).numpy()
        h = -(p * np.log(p)).sum()
        np.testing.assert_allclose(pull, -0.3 * p * (np.log(p) + h), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("setting", "figure"), [({"penalty": 100.0}, "expected_bitops"), ({"entropy": 100.0}, "mean_entropy")]
)
def test_what_weighs_heavily_falls(tmp_path: Path, setting: dict[str, Any], figure: str) -> None:
    found = search(tmp_path / "run", small_space(), epochs=3, alpha_learning_rate=0.1, **setting)
    values = found.scalars(figure)
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.9 * values[0]


def test_each_budget_learns_after_each_epoch_how_hard_to_press(tmp_path: Path) -> None:
    space = small_space()
    tight = Budget("bitops", 0.6 * centre(space, "bitops"), (32, 32))
    loose = Budget("params", 1.5 * centre(space, "params"), (32, 32))
    found = search(tmp_path / "run", space, (tight, loose), epochs=4, warmup_epochs=1, alpha_learning_rate=0.1)
    ends = []
    for budget in (tight, loose):
        multiplier, shown = 0.0, []
        above = max(0.0, centre(space, budget.metric) - budget.limit)
        for epoch, expected in enumerate(found.scalars(f"expected_{budget.metric}")):
            shown.append(multiplier)
            if epoch >= 1:
                # Three epochs of alphas: the bound has come down by the second, half-way.
                bound = budget.limit + (above if epoch == 1 else 0.0)
                multiplier = max(0.0, multiplier + STIFFNESS * (expected / bound - 1))
        assert found.scalars(f"multiplier_{budget.metric}") == pytest.approx(shown, rel=1e-4)
        ends.append(multiplier)
    assert ends[0] > 0.003 and ends[1] == 0
    assert found.state["multipliers"] == pytest.approx(ends, rel=1e-4)


def test_a_constant_penalty_does_not_learn(tmp_path: Path) -> None:
    space = small_space()
    tight = Budget("bitops", 0.6 * centre(space, "bitops"), (32, 32))
    found = search(tmp_path / "run", space, (tight,), penalty=1e-3)
    assert found.state["multipliers"] == [0.0]


def derived_from(
    path: Path,
    space: SearchSpace,
    change: Callable[[Supernet], None],
    budgets: tuple[Budget, ...] = (),
    points: int = 3,
) -> tuple[Searched, Callable[[], Supernet]]:
    """What is derived of a supernet that is the test's, and a function that makes it once more."""
    settings: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 1, "front_points": points}
    begun = search(path, space, budgets, **settings)
    state, supernet = begun.state, Supernet(space)
    supernet.load_state_dict(state["supernet"])
    with torch.no_grad():
        change(supernet)
    save_state(begun.run.search_state, state | {"supernet": supernet.state_dict()})

    def again() -> Supernet:
        same = Supernet(space)
        same.load_state_dict(supernet.state_dict())
        return same

    # All epochs are over: what remains is the derivation.
    derived = search(path, space, budgets, **settings)
    assert not derived.steps
    return derived, again


def of_some_effect(supernet: Supernet) -> None:
    """Random alphas, and an upsampling that makes a difference of more than some grey levels."""
    torch.manual_seed(0)
    for alpha in supernet.alphas:
        alpha.copy_(torch.randn_like(alpha))
    for name, parameter in supernet.named_parameters():
        if ".upsample." in name and parameter.dim() == 4:
            parameter.mul_(50)


def choice_of(space: SearchSpace, architecture: Architecture) -> dict[str, int]:
    return {layer: space.choices[layer].index(spec) for layer, spec in architecture.operators.items()}


def validation_psnr(supernet: Supernet) -> float:
    """PSNR of the held-out image in grey levels, by hand."""
    supernet.eval()
    (_, hr) = VALIDATION[0]
    lr = torch.from_numpy(downscale(hr, 2).astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        out = supernet(lr).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    return psnr(np.floor(out * 255 + 0.5).astype(np.uint8), hr, 2)


def test_a_point_of_the_front_is_judged_with_batch_norms_of_its_own(tmp_path: Path) -> None:
    """Against torch's ``update_bn``, on the crops that the search took for it."""
    space = small_space("quantnas-float", adadm=True, bicubic=True)
    derived, again = derived_from(tmp_path / "run", space, of_some_effect)
    front = derived.result.front
    each = len(derived.draws) // len(front)
    assert len(front) > 1 and each > 0
    for i, point in enumerate(front):
        supernet = again()
        supernet.choose(choice_of(space, point.architecture))
        stale = validation_psnr(supernet)
        update_bn([draw.lr for draw in derived.draws[i * each : (i + 1) * each]], supernet)
        assert point.psnr == pytest.approx(validation_psnr(supernet), abs=0.01)
        assert abs(point.psnr - stale) > 0.1


def test_a_point_of_the_front_is_judged_at_its_widths(tmp_path: Path) -> None:
    space = small_space(bits=(2, 3), bicubic=True)
    derived, again = derived_from(tmp_path / "run", space, of_some_effect)
    lost = []
    for point in derived.result.front:
        choice = choice_of(space, point.architecture)
        rounded, clean = again(), again()
        rounded.choose(choice)
        with torch.no_grad():
            # In evaluation, a supernet that is certain is the float network of that choice.
            for layer, alpha in zip(clean.layers, clean.alphas, strict=True):
                alpha.copy_(torch.eye(len(alpha))[choice[layer]] * 200)
        assert point.psnr == pytest.approx(validation_psnr(rounded), abs=0.01)
        lost.append(validation_psnr(clean) - point.psnr)
    assert len(lost) > 1 and max(map(abs, lost)) > 0.1


@pytest.mark.parametrize("spoiled", [3, 5])
def test_a_cheaper_point_that_the_supernet_rates_higher_is_pointed_out(tmp_path: Path, spoiled: int) -> None:
    space = small_space(bicubic=True)

    def prefers_large_kernels(supernet: Supernet) -> None:
        for layer, alpha in zip(supernet.layers, supernet.alphas, strict=True):
            alpha.copy_(torch.tensor([float(spec.kernel == 5) for spec in space.choices[layer]]))
        for name, parameter in supernet.named_parameters():
            if ".upsample." in name and parameter.dim() == 4:
                parameter.mul_(1000 if parameter.shape[-1] == spoiled else 0.001)

    derived, _ = derived_from(tmp_path / "run", space, prefers_large_kernels, points=6)
    remarks = [line for line in derived.said if "than the most probable choice" in line]
    assert len(remarks) == (spoiled == 5)
    if remarks:
        best = max(derived.result.front, key=lambda point: point.psnr)
        assert remarks[0].startswith(best.architecture.name)
        file = derived.run.front_architecture(derived.result.front.index(best))
        assert "has fewer BitOps than" in remarks[0]
        assert f": hwnas train {file} --config {derived.run.config} --out {derived.run.path}-{file.stem}" in remarks[0]


@pytest.mark.parametrize(
    ("estimates", "chosen", "expected"),
    [
        ((29.0, 29.5, 29.3), 2, 1),
        ((29.0, 29.35, 29.3), 2, None),
        ((29.0, 29.3, 29.5), 1, None),
        ((29.6, 29.5, 29.3), 2, 0),
        ((29.5,), 0, None),
    ],
    ids=["cheaper", "hardly better", "dearer", "best", "alone"],
)
def test_only_what_is_cheaper_and_much_better_is_worth_a_remark(
    estimates: tuple[float, ...], chosen: int, expected: int | None
) -> None:
    architecture = small_space().first
    front = [Candidate(architecture, {"bitops": float(i)}, -float(i), psnr) for i, psnr in enumerate(estimates)]
    assert cheaper_and_better(front, front[chosen]) is (None if expected is None else front[expected])


def of_all(rows: Sequence[Sequence[float]]) -> np.ndarray:
    """The sum of one number of each row, for every way to take them."""
    return functools.reduce(np.add.outer, map(np.array, rows)).ravel()


@pytest.mark.parametrize("metrics", [("bitops", "params"), ("params", "bitops")], ids="-".join)
def test_what_is_derived_meets_all_budgets_and_is_the_most_probable_that_does(
    tmp_path: Path, metrics: tuple[str, str]
) -> None:
    space = small_space()

    def prefers_the_dearest(supernet: Supernet) -> None:
        torch.manual_seed(0)
        for layer, alpha in zip(supernet.layers, supernet.alphas, strict=True):
            dear = [float(spec.kernel == 5) + float(spec.weight_bits == 8) for spec in space.choices[layer]]
            alpha.copy_(torch.tensor(dear) + torch.randn(len(dear)))

    budgets = tuple(Budget(metric, 0.8 * centre(space, metric), (32, 32)) for metric in metrics)
    derived, again = derived_from(tmp_path / "run", space, prefers_the_dearest, budgets, points=6)
    log_p = {layer: p.detach().double().log().tolist() for layer, p in again().probabilities().items()}
    scores = of_all(list(log_p.values()))
    a, b = (of_all([budget.model.table(space, (32, 32))[layer] for layer in log_p]) for budget in budgets)

    def best(first: float, second: float) -> int:
        """The most probable of all within these limits."""
        return int(np.where((a <= first) & (b <= second), scores, -np.inf).argmax())

    first, second = (budget.limit for budget in budgets)
    assert a[best(math.inf, second)] > first and b[best(first, math.inf)] > second, "either budget matters"

    def score(architecture: Architecture) -> float:
        return math.fsum(log_p[layer][i] for layer, i in choice_of(space, architecture).items())

    result = derived.result
    assert score(result.chosen) == pytest.approx(scores[best(first, second)], abs=1e-4)
    assert result.chosen.fingerprint in [point.architecture.fingerprint for point in result.front]
    assert len(result.front) > 3
    for point in result.front:
        assert point.costs[metrics[1]] <= second
        within_its_own = scores[best(point.costs[metrics[0]], second)]
        assert point.score == pytest.approx(score(point.architecture), abs=1e-4)
        assert point.score == pytest.approx(within_its_own, abs=1e-4)


def test_images_without_room_for_crops_do_not_spoil_the_front(tmp_path: Path) -> None:
    found = search(tmp_path / "run", small_space(adadm=True), sides=(32, 32, 10, 32, 32), steps_per_epoch=1)
    assert all(math.isfinite(point.psnr) for point in found.result.front)


def test_a_search_that_was_stopped_before_its_front_has_the_same_front(tmp_path: Path) -> None:
    space = small_space(adadm=True, bits=(2, 4))
    whole = search(tmp_path / "run", space, learning_rate=0.05)
    resumed = search(tmp_path / "run", space, learning_rate=0.05)
    assert not resumed.steps
    assert [point.psnr for point in resumed.result.front] == [point.psnr for point in whole.result.front]
