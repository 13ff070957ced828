"""The search on small spaces: budgets, resuming, teachers, and every way to ask for what cannot be."""

import csv
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hwnas.checkpoints import NetworkRecord, save_network
from hwnas.cost_models import cost_model
from hwnas.errors import HwnasError, UsageError
from hwnas.operators.layers import FloatLayers
from hwnas.progress import Silent
from hwnas.searches.results import save_result
from hwnas.searches.trilevel.feasibility import cost_range
from hwnas.searches.trilevel.search import Trilevel, TrilevelSession
from hwnas.searches.trilevel.settings import TrilevelSettings
from hwnas.spaces import SPACES, SpaceOptions, named_architecture
from tests.trilevel.searching import small_space, small_task


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("name", ["trilevel-a", "trilevel-b", "autodeeplab", "agd"])
def test_what_is_found_is_within_the_budgets(tmp_path: Path, name: str) -> None:
    space = small_space(name, bicubic=True)
    flops, parameters = cost_model("flops"), cost_model("params")
    task = small_task(tmp_path, ["1GFLOPs@16x16", "1MParams"], space)
    limits = []
    for budget in task.budgets:
        reach = cost_range(space, budget)
        limits.append(replace(budget, limit=reach.minimum + 0.3 * (reach.maximum - reach.minimum)))
    result = Trilevel().run(replace(task, budgets=tuple(limits)))
    assert flops.architecture_cost(result.chosen, (16, 16)).value <= limits[0].limit
    assert parameters.architecture_cost(result.chosen).value <= limits[1].limit
    costs = [candidate.costs["flops"] for candidate in result.front]
    assert costs == sorted(costs)
    save_result(task.run, result, Trilevel.columns)
    with task.run.front.open(newline="") as file:
        assert sum(row["chosen"] == "1" for row in csv.DictReader(file)) == 1


def test_without_a_budget_the_likeliest_is_chosen(tmp_path: Path) -> None:
    result = Trilevel().run(small_task(tmp_path))
    assert result.chosen.fingerprint == result.front[-1].architecture.fingerprint


def test_the_tree_becomes_sparse_and_says_so(tmp_path: Path) -> None:
    told = Told()
    Trilevel().run(small_task(tmp_path, progress=told))
    epochs = [line for line in told.lines if line.startswith("search epoch")]
    assert "(warm-up, weights only)" in epochs[0] and "paths 9," in epochs[0]
    assert "paths 1," in epochs[-1] and "operators 1.00" in epochs[-1]


class Stop(Silent):
    """Ends the search, as Ctrl-C would, after some of its epochs."""

    def __init__(self, after: int) -> None:
        self.left = after

    def say(self, line: str) -> None:
        self.left -= line.startswith("search epoch")
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, after: int) -> None:
    whole = Trilevel().run(small_task(tmp_path / "whole", ["0.3GFLOPs"]))
    with pytest.raises(KeyboardInterrupt):
        Trilevel().run(small_task(tmp_path / "stopped", ["0.3GFLOPs"], progress=Stop(after)))
    assert Trilevel().run(small_task(tmp_path / "stopped", ["0.3GFLOPs"])) == whole
    # And once more, when nothing is left to do but to derive.
    assert Trilevel().run(small_task(tmp_path / "stopped", ["0.3GFLOPs"])) == whole


def test_alphas_and_weights_take_turns_and_the_warm_up_has_no_alphas(tmp_path: Path) -> None:
    session = TrilevelSession(small_task(tmp_path), small_task(tmp_path).settings)  # type: ignore[arg-type]
    before = [alpha.detach().clone() for alpha in session.supernet.alphas]
    modes: list[str] = []
    session.supernet.register_forward_pre_hook(lambda m, _: modes.append(m.mode) if m.training else None)
    session.run()
    assert all(not torch.equal(a, b) for a, b in zip(before, session.supernet.alphas, strict=True))
    warm_up = ["max", "min", "random", "random"] * 4
    searching = ["gumbel", "max", "min"] * 2 * 8  # an alpha step and a weight step each
    assert modes == warm_up + searching


def test_without_the_sandwich_a_step_is_one_forward(tmp_path: Path) -> None:
    task = small_task(tmp_path, sandwich=False, warmup_epochs=0, epochs=1)
    session = TrilevelSession(task, task.settings)  # type: ignore[arg-type]
    modes: list[str] = []
    session.supernet.register_forward_pre_hook(lambda m, _: modes.append(m.mode) if m.training else None)
    session.run()
    assert modes == ["gumbel"] * 2 * 4


def test_rates_are_those_of_the_two_stages(tmp_path: Path) -> None:
    task = small_task(tmp_path, learning_rate=1e-3, warmup_learning_rate=5e-3)
    session = TrilevelSession(task, task.settings)  # type: ignore[arg-type]
    rates = [session.learning_rate(step // 4, step) for step in range(12)]
    assert rates[:4] == [5e-3] * 4 and rates[4] == 1e-3
    assert all(a > b for a, b in itertools.pairwise(rates[4:])) and rates[-1] < 1e-4


@pytest.mark.parametrize("relaxation", ["softmax", "sparsemax"])
def test_other_relaxations_search_too(tmp_path: Path, relaxation: str) -> None:
    told = Told()
    Trilevel().run(small_task(tmp_path, progress=told, relaxation=relaxation, ordering="projected"))
    assert ("paths 9," in told.lines[2]) == (relaxation == "softmax")


def session_of(path: Path, budgets: tuple[str, ...] = (), **settings: Any) -> TrilevelSession:
    task = small_task(path, budgets, **settings)
    return TrilevelSession(task, TrilevelSettings.model_validate(task.settings))


def test_the_radius_grows_with_the_steps_after_the_warm_up(tmp_path: Path) -> None:
    session, seen = session_of(tmp_path), list[float]()
    session.supernet.register_forward_pre_hook(lambda m, _: seen.append(m.progress) if m.training else None)
    session.run()
    assert set(seen[:16]) == {0.0}
    assert list(dict.fromkeys(seen[16:])) == pytest.approx([step / 8 for step in range(1, 9)])


def test_alphas_and_weights_see_different_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, drawn = session_of(tmp_path), list[tuple[int, ...]]()
    pairs = type(session.task.data.train)
    sample = pairs.sample
    monkeypatch.setattr(
        pairs,
        "sample",
        lambda self, rng, batch, crop, images: drawn.append(tuple(images)) or sample(self, rng, batch, crop, images),
    )
    session.run()
    weights, alphas = session.halves
    assert not set(weights) & set(alphas)
    assert drawn == [tuple(weights)] * 4 + [tuple(alphas), tuple(weights)] * 8


def test_the_hinge_is_part_of_what_the_alphas_learn_from(tmp_path: Path) -> None:
    found = {}
    for weight in (0.0, 100.0):
        session = session_of(tmp_path / str(weight), ordering_weight=weight, relaxation="softmax")
        session.run()
        found[weight] = session.supernet.alphas[0].detach().clone()
        shares = session.supernet.relaxed().paths.detach()
    assert not torch.allclose(found[0.0], found[100.0])
    assert session.supernet.paths.ordered_share(shares) > 0.9


def test_a_budget_presses_on_widths_operators_and_paths(tmp_path: Path) -> None:
    free = session_of(tmp_path / "free", relaxation="softmax")
    bound = session_of(tmp_path / "bound", ("6MFLOPs@64x64",), relaxation="softmax")
    for session in (free, bound):
        session.run()
    for kind in range(3):
        assert not torch.allclose(free.supernet.alphas[kind], bound.supernet.alphas[kind], atol=1e-4)
    narrow = [float(s.supernet.relaxed().widths[..., 0].mean().detach()) for s in (free, bound)]
    assert narrow[1] > narrow[0]
    assert bound.pressures[0].multiplier > 0


def test_multipliers_are_remembered(tmp_path: Path) -> None:
    session = session_of(tmp_path, ("6MFLOPs@64x64",))
    session.run()
    again = session_of(tmp_path, ("6MFLOPs@64x64",))
    assert again.pressures[0].multiplier == session.pressures[0].multiplier > 0


def test_gradients_of_alphas_are_no_longer_than_allowed(tmp_path: Path) -> None:
    session, norms = session_of(tmp_path, alpha_gradient_clip=1e-6), list[float]()
    session.alphas.optimizer.register_step_pre_hook(
        lambda *_: norms.extend(float(a.grad.norm()) for a in session.supernet.alphas if a.grad is not None)
    )
    session.run()
    assert norms and max(norms) <= 1e-6 * (1 + 1e-4) and max(norms) > 0.9e-6


# Teachers


def teacher_file(path: Path, scale: int = 2) -> Path:
    """A small trained network, or what passes for one."""
    architecture = named_architecture("espcn", scale, bicubic=True)
    torch.manual_seed(0)
    save_network(path, NetworkRecord(architecture=architecture), architecture.build(FloatLayers()))
    return path


@pytest.mark.parametrize("cache", [True, False])
def test_a_supernet_is_searched_towards_a_teacher(tmp_path: Path, cache: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    teacher = {"network": str(teacher_file(tmp_path / "t.safetensors")), "cache": cache}
    told, alone = Told(), Told()
    Trilevel().run(small_task(tmp_path / "a", progress=told, teacher=teacher))
    Trilevel().run(small_task(tmp_path / "b", progress=alone))
    assert told.lines[0] != alone.lines[0]
    assert bool(list((tmp_path / "cache").rglob("teacher-*.npy"))) == cache
    # Nothing of the teacher is kept.
    state = torch.load(tmp_path / "a" / "search" / "state.pt", weights_only=True)
    other = torch.load(tmp_path / "b" / "search" / "state.pt", weights_only=True)
    assert state["supernet"].keys() == other["supernet"].keys()


@pytest.mark.parametrize(
    ("teacher", "named"),
    [
        ({"network": "esrgan"}, "esrgan needs weights; name their file with --teacher-weights"),
        ({"network": "nobody"}, "'nobody' is no run, no .safetensors file, and no published architecture"),
        ({"network": "nobody", "weights": "w.pth"}, "weights are of a published architecture, which nobody is not"),
        ({"network": "esrgan", "weights": "missing.pth"}, "there is no file missing.pth"),
        ({"network": "missing.safetensors"}, "there are no trained weights"),
    ],
)
def test_a_teacher_that_cannot_be_is_refused_before_anything_is_trained(
    tmp_path: Path, teacher: dict[str, Any], named: str
) -> None:
    task = small_task(tmp_path, teacher=teacher)
    with pytest.raises(HwnasError, match=named):
        Trilevel().check(task.space, (), task.settings)


def test_a_teacher_of_another_scale_is_refused(tmp_path: Path) -> None:
    task = small_task(tmp_path, teacher={"network": str(teacher_file(tmp_path / "t.safetensors", 4))})
    with pytest.raises(UsageError, match="enlarges by 4, and the network by 2; take one of x2"):
        Trilevel().check(task.space, (), task.settings)


# What cannot be


def test_a_budget_below_the_shortest_path_is_refused(tmp_path: Path) -> None:
    task = small_task(tmp_path, ["1KFLOPs"])
    least = cost_range(task.space, task.budgets[0]).minimum
    with pytest.raises(UsageError, match="its minimum is"):
        Trilevel().check(task.space, task.budgets, task.settings)
    Trilevel().check(task.space, (replace(task.budgets[0], limit=least),), task.settings)


def test_another_space_is_refused(tmp_path: Path) -> None:
    space = SPACES["quantnas"](SpaceOptions())
    with pytest.raises(UsageError, match="trilevel searches the spaces trilevel-a, .* not quantnas"):
        Trilevel().check(space, (), TrilevelSettings())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"network": "fixed", "path": (0, 0)}, "has 0 upsamplings, and x4 on backbone a takes 2"),
        ({"widths": (10, 16), "operators": ("conv3x3_g4",)}, "groups = 4 does not divide out_channels = 10"),
        ({"widths": (128,)}, "widths go up to 128, and channels are 64"),
        ({"widths": (8, 4)}, "give each once, ascending"),
        ({"operators": ("conv7x7",)}, "'conv7x7' is no operator of a cell"),
        ({"network": "fixed"}, "network 'fixed' has one path"),
        ({"residual": "adadm"}, "space trilevel-a has no residual"),
        ({"bits": (4, 8)}, "one bit width for all layers"),
        ({"layers": 1}, "layers"),
    ],
)
def test_a_space_that_cannot_be_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        SPACES["trilevel-a"](SpaceOptions.model_validate(options))
