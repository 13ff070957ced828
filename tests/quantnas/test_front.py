"""What is derived of a supernet, and the front: held against torch, and against all that there is to choose from."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import update_bn

from hwnas.architecture import Architecture
from hwnas.budget import Budget
from hwnas.checkpoints import save_state
from hwnas.data.degradation import downscale
from hwnas.metrics import psnr
from hwnas.searches import Candidate
from hwnas.searches.differentiable.front import cheaper_and_better
from hwnas.searches.quantnas.supernet import QuantNASSupernet
from hwnas.spaces import LayerwiseSpace
from tests.quantnas.searching import VALIDATION, Searched, centre, search, small_space


def derived_from(
    path: Path,
    space: LayerwiseSpace,
    change: Callable[[QuantNASSupernet], None],
    budgets: tuple[Budget, ...] = (),
    points: int = 3,
) -> tuple[Searched, Callable[[], QuantNASSupernet]]:
    """What is derived of a supernet that is the test's, and a function that makes it once more."""
    settings: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 1, "front_points": points}
    begun = search(path, space, budgets, **settings)
    state, supernet = begun.state, QuantNASSupernet(space)
    supernet.load_state_dict(state["supernet"])
    with torch.no_grad():
        change(supernet)
    save_state(begun.run.search_state, state | {"supernet": supernet.state_dict()})

    def again() -> QuantNASSupernet:
        same = QuantNASSupernet(space)
        same.load_state_dict(supernet.state_dict())
        return same

    # All epochs are over: what remains is the derivation.
    derived = search(path, space, budgets, **settings)
    assert not derived.steps
    return derived, again


def of_some_effect(supernet: QuantNASSupernet) -> None:
    """Random alphas, and an upsampling that makes a difference of more than some grey levels."""
    torch.manual_seed(0)
    for alpha in supernet.alphas:
        alpha.copy_(torch.randn_like(alpha))
    for name, parameter in supernet.named_parameters():
        if ".upsample." in name and parameter.dim() == 4:
            parameter.mul_(50)


def choice_of(space: LayerwiseSpace, architecture: Architecture) -> dict[str, int]:
    return {layer: space.choices[layer].index(spec) for layer, spec in architecture.operators.items()}


def validation_psnr(supernet: QuantNASSupernet) -> float:
    """PSNR of the held-out image in grey levels, by hand."""
    supernet.eval()
    (_, hr) = VALIDATION[0]
    lr = torch.from_numpy(downscale(hr, 2).astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        out = supernet(lr).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    return psnr(np.floor(out * 255 + 0.5).astype(np.uint8), hr, 2)


def test_a_point_of_the_front_is_judged_with_batch_norms_of_its_own(tmp_path: Path) -> None:
    """Against torch's ``update_bn``, on the crops that the search took for it."""
    space = small_space("quantnas-float", residual="adadm", bicubic=True)
    derived, again = derived_from(tmp_path / "run", space, of_some_effect)
    front = derived.result.front
    each = len(derived.draws) // len(front)
    assert len(front) > 1 and each > 0
    for i, point in enumerate(front):
        supernet = again()
        supernet.choose(tuple(choice_of(space, point.architecture).values()))
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
        rounded.choose(tuple(choice.values()))
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

    def prefers_large_kernels(supernet: QuantNASSupernet) -> None:
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
        assert remarks[0].endswith(f": hwnas train {derived.run.path} --candidate {int(file.stem)}")


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

    def prefers_the_dearest(supernet: QuantNASSupernet) -> None:
        torch.manual_seed(0)
        for layer, alpha in zip(supernet.layers, supernet.alphas, strict=True):
            dear = [float(spec.kernel == 5) + float(spec.weight_bits == 8) for spec in space.choices[layer]]
            alpha.copy_(torch.tensor(dear) + torch.randn(len(dear)))

    budgets = tuple(Budget(metric, 0.8 * centre(space, metric), (32, 32)) for metric in metrics)
    derived, again = derived_from(tmp_path / "run", space, prefers_the_dearest, budgets, points=6)
    log_p = {layer: p.detach().double().log().tolist() for layer, p in again().relaxed().items()}
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
    found = search(tmp_path / "run", small_space(residual="adadm"), sides=(32, 32, 10, 32, 32), steps_per_epoch=1)
    assert all(math.isfinite(point.psnr) for point in found.result.front)


def test_a_search_that_was_stopped_before_its_front_has_the_same_front(tmp_path: Path) -> None:
    space = small_space(residual="adadm", bits=(2, 4))
    whole = search(tmp_path / "run", space, learning_rate=0.05)
    resumed = search(tmp_path / "run", space, learning_rate=0.05)
    assert not resumed.steps
    assert [point.psnr for point in resumed.result.front] == [point.psnr for point in whole.result.front]
