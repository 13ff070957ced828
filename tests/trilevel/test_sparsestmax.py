"""Sparsestmax against golden vectors, all supports by brute force, a numerical solver, and finite differences."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.autograd import gradcheck

from hwnas.searches.trilevel.sparsestmax import largest_radius, sparsemax, sparsestmax

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden" / "sparsestmax.json"


@pytest.mark.skipif(not GOLDEN.is_file(), reason="../shared, with the golden vectors, is not there")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_golden_vectors_come_out(dtype: torch.dtype) -> None:
    cases = json.loads(GOLDEN.read_text())["cases"]
    assert len(cases) == 10
    for case in cases:
        logits = torch.tensor(case["input"], dtype=dtype, requires_grad=True)
        weights = sparsestmax(logits, case["r"])
        weights.backward(torch.tensor(case["grad_out"], dtype=dtype))
        assert logits.grad is not None and logits.grad.dtype == weights.dtype == dtype
        np.testing.assert_allclose(weights.detach(), case["output"], atol=1e-6, rtol=0)
        np.testing.assert_allclose(logits.grad, case["grad_in"], atol=1e-6, rtol=0)
        assert weights.nonzero().flatten().tolist() == sorted(case["support"])


def distance(q: np.ndarray) -> float:
    return float(np.linalg.norm(q - 1 / len(q)))


def nearest_of_all_supports(z: np.ndarray, radius: float) -> np.ndarray:
    """On each face the nearest point of its plane, and of the circle on it; of those that are allowed the nearest."""
    size, best = len(z), (math.inf, z)
    for k in range(1, size + 1):
        for support in map(list, itertools.combinations(range(size), k)):
            inside = z[support]
            from_mean = inside - inside.mean()
            found = [inside + (1 - inside.sum()) / k]
            squared = radius**2 + 1 / size - 1 / k
            if k > 1 and squared >= 0 and from_mean.any():
                found.append(1 / k + math.sqrt(squared) * from_mean / np.linalg.norm(from_mean))
            for part in found:
                q = np.zeros(size)
                q[support] = part
                if q.min() >= -1e-12 and distance(q) >= radius - 1e-9:
                    best = min(best, (float(np.sum((q - z) ** 2)), q), key=lambda pair: pair[0])
    return best[1]


def case(seed: int, largest: int) -> tuple[np.ndarray, float]:
    """Logits and a radius, from nearly equal to far apart."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, largest + 1))
    return rng.normal(size=size) * rng.choice([0.05, 0.3, 1.0, 2.0]), rng.uniform(0, largest_radius(size))


@pytest.mark.parametrize("seed", range(60))
def test_it_is_the_nearest_of_all_supports(seed: int) -> None:
    z, radius = case(seed, 8)
    found = sparsestmax(torch.from_numpy(z), radius).numpy()
    np.testing.assert_allclose(found, nearest_of_all_supports(z, radius), atol=1e-9)


def solved(z: np.ndarray, radius: float, start: np.ndarray) -> np.ndarray:
    result = minimize(
        lambda q: np.sum((q - z) ** 2),
        start,
        jac=lambda q: 2 * (q - z),
        bounds=[(0, 1)] * len(z),
        constraints=[
            {"type": "eq", "fun": lambda q: q.sum() - 1, "jac": np.ones_like},
            {
                "type": "ineq",
                "fun": lambda q: np.sum((q - 1 / len(q)) ** 2) - radius**2,
                "jac": lambda q: 2 * (q - 1 / len(q)),
            },
        ],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 200},
    )
    return np.asarray(result.x)


@pytest.mark.parametrize("seed", range(200))
def test_a_numerical_solver_finds_nothing_nearer(seed: int) -> None:
    z, radius = case(1000 + seed, 55)
    found = sparsestmax(torch.from_numpy(z), radius).numpy()
    assert found.min() >= 0 and found.sum() == pytest.approx(1) and distance(found) >= radius - 1e-9
    rng = np.random.default_rng(seed)
    start = 0.9 * found + 0.1 * rng.dirichlet(np.ones(len(z)))
    for q in (solved(z, radius, start), solved(z, radius, rng.dirichlet(np.ones(len(z))))):
        allowed = q.min() > -1e-9 and abs(q.sum() - 1) < 1e-9 and distance(q) > radius - 1e-7
        assert not allowed or np.sum((q - z) ** 2) > np.sum((found - z) ** 2) - 1e-6


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("size", [2, 4, 35, 55])
def test_the_gradient_is_that_of_finite_differences(size: int, share: float) -> None:
    torch.manual_seed(size)
    logits = torch.randn(3, size, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: sparsestmax(x, share * largest_radius(size)), (logits,), eps=1e-7, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=20),
    st.floats(0, 1.2),
)
def test_it_is_a_distribution_so_far_from_the_uniform_one(logits: list[float], radius: float) -> None:
    q = sparsestmax(torch.tensor(logits, dtype=torch.float64), radius)
    assert q.min() >= 0 and float(q.sum()) == pytest.approx(1)
    assert distance(q.numpy()) >= min(radius, largest_radius(len(logits))) - 1e-9
    # Nobody is behind one with a smaller logit; among equals anybody may be ahead.
    z = torch.tensor(logits, dtype=torch.float64)
    assert (q[:, None] >= q[None, :] - 1e-12)[z[:, None] > z[None, :]].all()


def test_without_a_radius_it_is_sparsemax() -> None:
    # Martins & Astudillo, section 2: of two entries it is a clipped line.
    for t in (-3.0, -0.5, 0.0, 0.7, 3.0):
        q = sparsemax(torch.tensor([t, 0.0]))
        assert float(q[0]) == pytest.approx(min(1.0, max(0.0, (t + 1) / 2)))


def test_of_equals_the_first_counts_as_larger() -> None:
    one_hot = sparsestmax(torch.zeros(4), 2.0)
    assert one_hot.tolist() == [1, 0, 0, 0]
    q = sparsestmax(torch.tensor([0.5, 1.0, 1.0, 0.0]), 0.8)
    assert int(q.argmax()) == 1 and q[1] > q[2]
    logits = torch.zeros(5, requires_grad=True)
    sparsestmax(logits, 0.5).square().sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_rows_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5)
    together = sparsestmax(logits, 0.6)
    for i, j in itertools.product(range(2), range(3)):
        torch.testing.assert_close(together[i, j], sparsestmax(logits[i, j], 0.6))


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="radius is -0.1"):
        sparsestmax(torch.zeros(3), -0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_the_same() -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, 35)
    for radius in (0.0, 0.4, 0.9):
        torch.testing.assert_close(sparsestmax(logits.cuda(), radius).cpu(), sparsestmax(logits, radius))
