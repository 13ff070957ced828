"""Paths and their shares: against the figures of the paper, products by hand, dynamic programming, and a QP solver."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from hwnas.networks.nearest import factors
from hwnas.networks.trilevel import CELL, UPSAMPLE
from hwnas.searches.trilevel.relaxation import Ordering, PathRelaxation, distribution, draw_widths
from hwnas.searches.trilevel.sparsestmax import sparsemax
from hwnas.spaces.paths import PathGraph, candidate_paths


def graph(network: str = "tree", backbone: str = "a", cells: int = 5) -> PathGraph:
    paths = candidate_paths(network, backbone, cells, 4)  # type: ignore[arg-type]
    return PathGraph(paths, network == "trellis", factors(4) if backbone == "a" else (1, 1))


@pytest.mark.parametrize(("backbone", "ends"), [("a", 35), ("b", 55)])
def test_the_tree_is_that_of_the_paper(backbone: str, ends: int) -> None:
    tree = graph("tree", backbone)
    assert len(tree.nodes) == 55 + 1  # and the stem
    kinds = [module.kind for module in tree.modules]
    assert (kinds.count(CELL), kinds.count(UPSAMPLE)) == (35, 20)
    assert len(tree.paths) == ends
    leaves = [p for p in tree.paths if not any(q[: len(p)] == p and q != p for q in tree.paths)]
    assert len(leaves) == 15 and all(len(path) == 7 for path in leaves)
    # Nothing is shared: each node has one module that writes it.
    assert len({module.target for module in tree.modules}) == len(tree.modules)


def test_a_trellis_shares_what_is_at_the_same_place() -> None:
    trellis = graph("trellis")
    assert len(trellis.paths) == 15 and all(len(path) == 7 for path in trellis.paths)
    assert len(set(trellis.ends)) == 1
    kinds = [module.kind for module in trellis.modules]
    assert (kinds.count(CELL), kinds.count(UPSAMPLE)) == (13, 10)


@pytest.mark.parametrize("network", ["tree", "trellis"])
def test_modules_come_after_what_they_read(network: str) -> None:
    for backbone in "ab":
        made = graph(network, backbone)
        for i, module in enumerate(made.modules):
            assert not module.source or any(earlier.target == module.source for earlier in made.modules[:i])
            assert all(later.target != module.source for later in made.modules[i:])
        for path, members in zip(made.paths, made.members, strict=True):
            chain = [made.modules[i] for i in members]
            assert [module.kind for module in chain] == list(path)
            assert all(a.target == b.source for a, b in pairwise(chain))
            assert chain[-1].resolution == (4 if backbone == "a" else 1)


def test_the_share_of_a_module_is_that_of_the_paths_through_it() -> None:
    tree = graph()
    relaxation = PathRelaxation(tree, "softmax", "none", 0.0)
    torch.manual_seed(0)
    paths, modules, edges = relaxation(torch.randn(35), 0.0)
    assert float(paths.sum()) == pytest.approx(1)
    for i, share in enumerate(modules.tolist()):
        through = sum(float(p) for p, members in zip(paths, tree.members, strict=True) if i in members)
        assert share == pytest.approx(through)
    assert edges.tolist() == [1] * len(tree.modules)


def test_paths_of_a_trellis_are_products_and_the_likeliest_is_viterbis() -> None:
    trellis = graph("trellis")
    relaxation = PathRelaxation(trellis, "softmax", "none", 0.0)
    torch.manual_seed(1)
    logits = torch.randn(relaxation.size)
    paths, modules, edges = relaxation(logits, 0.0)
    assert float(paths.sum()) == pytest.approx(1)
    for node in {module.source for module in trellis.modules}:
        assert sum(float(e) for e, m in zip(edges, trellis.modules, strict=True) if m.source == node) == pytest.approx(
            1
        )
    # The probability of being at a node, from those of the nodes before, and so of each module.
    at = {0: 1.0}
    for i, module in enumerate(trellis.modules):
        assert float(modules[i]) == pytest.approx(at[module.source] * float(edges[i]), abs=1e-6)
        at[module.target] = at.get(module.target, 0.0) + float(modules[i])
    best = {0: (0.0, ())}
    for i, module in enumerate(trellis.modules):
        score, so_far = best[module.source]
        longer = score + math.log(float(edges[i])), (*so_far, i)
        best[module.target] = max(best.get(module.target, (-math.inf, ())), longer)
    assert trellis.members[int(paths.argmax())] == best[trellis.ends[0]][1]


# Ordering (eq. 2)


def through_the_tree(tree: PathGraph) -> list[list[int]]:
    """All chains of paths, each one step longer, from a first to a last: the paths of equation 2."""
    children: dict[int, list[int]] = {}
    for parent, child in tree.parents:
        children.setdefault(parent, []).append(child)
    firsts = [i for i in range(len(tree.paths)) if i not in {child for _, child in tree.parents}]

    def below(i: int) -> list[list[int]]:
        return [[i, *rest] for child in children.get(i, []) for rest in below(child)] or [[i]]

    return [chain for first in firsts for chain in below(first)]


def ordering_term(tree: PathGraph, q: np.ndarray) -> float:
    return float(sum(q[b] - q[a] for chain in through_the_tree(tree) for a, b in pairwise(chain)))


@pytest.mark.parametrize("backbone", ["a", "b"])
def test_as_printed_the_ordering_moves_nothing(backbone: str) -> None:
    tree = graph("tree", backbone, 3)
    torch.manual_seed(2)
    logits = torch.randn(len(tree.paths), dtype=torch.float64)
    for weight in (1e-5, 1.0):
        literal = PathRelaxation(tree, "sparsestmax", "literal", weight)
        plain = PathRelaxation(tree, "sparsestmax", "none", 0.0)
        torch.testing.assert_close(literal(logits, 0.5)[0], plain(logits, 0.5)[0])
        # It is the sum over paths of their last less their first, of the logits.
        moved = literal._ordered(logits) - logits
        torch.testing.assert_close(moved, torch.full_like(moved, weight * ordering_term(tree, logits.numpy())))


@pytest.mark.parametrize("backbone", ["a", "b"])
def test_projected_it_is_the_minimum_of_equation_2_with_q_in_the_term(backbone: str) -> None:
    tree = graph("tree", backbone, 3)
    size, weight = len(tree.paths), 0.3
    beta = np.random.default_rng(3).normal(size=size) * 0.2
    relaxation = PathRelaxation(tree, "sparsemax", "projected", weight)
    found = relaxation(torch.from_numpy(beta), 0.0)[0].numpy()
    result = minimize(
        lambda q: np.sum((q - beta) ** 2) + weight * ordering_term(tree, q),
        np.full(size, 1 / size),
        bounds=[(0, 1)] * size,
        constraints=[{"type": "eq", "fun": lambda q: q.sum() - 1}],
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    np.testing.assert_allclose(found, result.x, atol=1e-5)
    assert not np.allclose(found, sparsemax(torch.from_numpy(beta)).numpy(), atol=1e-3)


def test_a_hinge_presses_on_what_rises_and_on_nothing_else() -> None:
    tree = graph("tree", "b", 3)
    relaxation = PathRelaxation(tree, "softmax", "hinge", 0.5)
    q = torch.rand(len(tree.paths), dtype=torch.float64, requires_grad=True)
    expected = 0.5 * sum(max(0.0, float((q[b] - q[a]).detach())) for a, b in tree.parents)
    penalty = relaxation.penalty(q)
    assert float(penalty.detach()) == pytest.approx(expected)
    falling = torch.tensor([-float(len(path)) for path in tree.paths])
    assert float(relaxation.penalty(falling)) == 0
    assert relaxation.ordered_share(falling) == 1
    assert relaxation.ordered_share(-falling) == 0


@pytest.mark.parametrize("ordering", ["literal", "projected", "none"])
def test_other_orderings_have_no_penalty(ordering: Ordering) -> None:
    relaxation = PathRelaxation(graph("tree", "b", 3), "softmax", ordering, 1.0)
    assert float(relaxation.penalty(torch.rand(19))) == 0


def test_a_hinge_orders_what_would_not_be() -> None:
    """Descent on a loss that wants a deep path: with the hinge, those before it come to count as much."""
    tree = graph("tree", "b", 3)
    deepest = max(range(len(tree.paths)), key=lambda i: len(tree.paths[i]))
    shares = {}
    for ordering, weight in (("none", 0.0), ("hinge", 1.0)):
        relaxation = PathRelaxation(tree, "softmax", ordering, weight)  # type: ignore[arg-type]
        logits = torch.zeros(len(tree.paths), requires_grad=True)
        adam = torch.optim.Adam([logits], 0.05)
        for _ in range(200):
            paths = relaxation(logits, 0.0)[0]
            loss = -0.1 * paths[deepest] + relaxation.penalty(paths)
            adam.zero_grad()
            loss.backward()
            adam.step()
        shares[ordering] = relaxation.ordered_share(relaxation(logits.detach(), 0.0)[0].round(decimals=4))
    assert shares["hinge"] > shares["none"]


# Distributions and widths


def test_the_radius_grows_with_the_search() -> None:
    logits = torch.tensor([0.01, 0.02, 0.0, -0.01])
    shares = [distribution("sparsestmax", logits, progress) for progress in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(shares[0], sparsemax(logits))
    assert (shares[0] > 0).all() and shares[2].tolist() == [0, 1, 0, 0]
    assert float(shares[0].max()) < float(shares[1].max()) < 1
    torch.testing.assert_close(distribution("softmax", logits, 1.0), logits.softmax(-1))


def test_widths_are_drawn_as_often_as_they_are_likely_and_their_scores_have_gradients() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([[[0.0, 1.0, 2.0]]], requires_grad=True)
    draws = [draw_widths(logits) for _ in range(4000)]
    counts = np.bincount([chosen[0][0] for chosen, _ in draws], minlength=3) / 4000
    np.testing.assert_allclose(counts, logits.detach()[0, 0].softmax(-1), atol=0.03)
    assert all(float(scores.detach()) == pytest.approx(1) for _, scores in draws[:50])
    draws[0][1].sum().backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0
