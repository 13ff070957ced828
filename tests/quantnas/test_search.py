"""The search as it runs: the images, gradients and steps of its optimisers, held against torch and the formulas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from hwnas.budget import Budget
from hwnas.errors import HwnasError
from hwnas.searches.quantnas.search import QuantNASSession
from hwnas.searches.quantnas.settings import QuantNASSettings
from hwnas.searches.quantnas.supernet import QuantNASSupernet
from hwnas.spaces import LayerwiseSpace
from tests.quantnas.searching import Draw, Searched, Step, centre, search, small_space

STIFFNESS = 1.0


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
    supernet = QuantNASSupernet(space)
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


def slopes_of_cost(space: LayerwiseSpace, metric: str) -> list[np.ndarray]:
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
                # Three epochs of alphas: after the first, a third of the way there is to half-way is left.
                bound = budget.limit + (above / 3 if epoch == 1 else 0.0)
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


def test_a_loss_of_the_alphas_that_is_not_finite_says_which_rate_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuantNASSession, "regulariser", lambda self, relaxed, epoch: torch.tensor(math.inf))
    with pytest.raises(HwnasError, match=r"became inf in epoch 1, step 1 .*search\.alpha_learning_rate"):
        search(tmp_path / "run", small_space(), epochs=1, steps_per_epoch=1)
