"""Which networks are measured, and what is told of them: exact where the truth is a sum."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.devices.target import load_target
from hwnas.errors import HwnasError
from hwnas.latency.fit import fit
from hwnas.latency.layerwise import LayerwiseDesign
from hwnas.latency.table import MeasuredNetwork, Survey
from hwnas.operators import OperatorSpec
from hwnas.spaces import SPACES, SpaceOptions
from hwnas.spaces.space import Choice, LayerwiseSpace

CPU = load_target("cpu")


def _truth(space: LayerwiseSpace, seed: int, by_bits: bool) -> dict[tuple[OperatorSpec, int], float]:
    """Milliseconds of each operator, at random; of each of its widths, if ``by_bits``."""
    rng = random.Random(seed)
    twins: dict[tuple[OperatorSpec, int], float] = {}
    values = {}
    for slot in space.wiring.slots:
        for spec in space.choices[slot.name]:
            alike = twins.setdefault((spec.float_twin, slot.resolution), rng.uniform(1, 10))
            key = spec, slot.resolution
            values.setdefault(key, alike * (rng.uniform(0.9, 1.1) if by_bits else 1))
    return values


def _survey(
    space: LayerwiseSpace, truth: dict[tuple[OperatorSpec, int], float], noise: float = 0.0, calibration: int = 40
) -> Survey:
    rng, reference = random.Random(0), LayerwiseDesign(space).reference(CPU)
    survey = Survey(size=(90, 160), space=space, reference=reference)
    whole = _ms(survey, reference, truth)
    purposes: dict[Choice, str] = dict.fromkeys(LayerwiseDesign(space).calibration(calibration), "calibration")
    purposes |= dict.fromkeys(LayerwiseDesign(space).operators(reference), "operator")
    networks = [
        MeasuredNetwork.model_validate(
            {"choice": c, "why": why, "rounds": 9, "ratio": _ms(survey, c, truth) / whole * (1 + rng.gauss(0, noise))}
        )
        for c, why in purposes.items()
    ]
    return survey.with_networks(networks).model_copy(update={"reference_ms": (whole,)})


def _ms(survey: Survey, choice: Choice, truth: dict[tuple[OperatorSpec, int], float]) -> float:
    operators = survey.space.chosen(choice).operators
    return 20 + sum(s.count * truth[operators[s.name], s.resolution] for s in survey.space.wiring.slots)


def test_every_distinct_operator_is_measured_once_where_it_weighs_most() -> None:
    space = SPACES["quantnas"](SpaceOptions())
    reference = LayerwiseDesign(space).reference(CPU)
    slots = list(space.wiring.slots)
    changed = []
    for choice in LayerwiseDesign(space).operators(reference):
        (layer,) = [i for i, (own, other) in enumerate(zip(choice, reference, strict=True)) if own != other]
        changed.append((space.choices[slots[layer].name][choice[layer]], slots[layer].resolution, slots[layer].count))
    keys = [(spec, resolution) for spec, resolution, _ in changed]
    assert len(keys) == len(set(keys))
    everything = {(spec, s.resolution) for s in slots for spec in space.choices[s.name]}
    of_reference = {(space.choices[s.name][reference[i]], s.resolution) for i, s in enumerate(slots)}
    assert everything <= set(keys) | of_reference
    for spec, resolution, count in changed:
        where = [s for s in slots if s.resolution == resolution and spec in space.choices[s.name]]
        assert count == max(s.count for s in where if space.choices[s.name][reference[slots.index(s)]] != spec)


def test_the_reference_has_the_fewest_operations() -> None:
    space = SPACES["quantnas"](SpaceOptions(bits=(4, 8)))
    names = [
        space.choices[layer][i] for layer, i in zip(space.choices, LayerwiseDesign(space).reference(CPU), strict=True)
    ]
    assert all(spec.weight_bits == 8 for spec in names), "four bits are no fewer on a CPU"
    assert names[4].kernel == 1 and names[0].groups == 3


def test_networks_at_random_have_all_candidates_equally_often(full_space: LayerwiseSpace) -> None:
    choices = LayerwiseDesign(full_space).calibration(24)
    for layer, candidates in enumerate(full_space.choices.values()):
        counts = [sum(choice[layer] == i for choice in choices) for i in range(len(candidates))]
        assert max(counts) - min(counts) <= 1
    assert LayerwiseDesign(full_space).calibration(24) == choices != LayerwiseDesign(full_space).calibration(24, seed=1)


def test_what_is_held_out_was_not_measured(full_space: LayerwiseSpace) -> None:
    measured = LayerwiseDesign(full_space).calibration(30)
    found = LayerwiseDesign(full_space).held_out(20, measured, seed=1)
    assert len(set(found)) == 20 and not set(found) & set(measured)
    tiny = LayerwiseSpace(
        name="tiny", wiring=full_space.wiring, choices={k: v[:1] for k, v in full_space.choices.items()}
    )
    assert LayerwiseDesign(tiny).held_out(5, [(0,) * 8], seed=1) == []


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_sum_is_found_exactly(seed: int) -> None:
    space = SPACES["quantnas"](SpaceOptions(cells=2, channels=6, scale=2, bits=(4, 8)))
    truth = _truth(space, seed, by_bits=False)
    survey = _survey(space, truth)
    model = fit(survey, CPU)
    for choice in LayerwiseDesign(space).held_out(20, (n.choice for n in survey.networks), seed):
        assert model.predict(survey.space.chosen(choice)) == pytest.approx(_ms(survey, choice, truth), rel=2e-3)
    assert model.uncertainty is not None and model.uncertainty < 5e-3
    assert min(model.operators.values()) == pytest.approx(0, abs=1e-9), "relative to the cheapest there"


def test_widths_that_differ_are_told_apart_and_noise_is_told(full_space: LayerwiseSpace) -> None:
    truth = _truth(full_space, 3, by_bits=True)
    exact, noisy = fit(_survey(full_space, truth), CPU), fit(_survey(full_space, truth, noise=0.05), CPU)
    survey = _survey(full_space, truth)
    choices = LayerwiseDesign(full_space).held_out(50, (n.choice for n in survey.networks), 1)
    for model, most in ((exact, 0.06), (noisy, 0.15)):
        errors = [model.predict(survey.space.chosen(c)) / _ms(survey, c, truth) - 1 for c in choices]
        assert max(map(abs, errors)) < most
    assert exact.uncertainty is not None and noisy.uncertainty is not None
    assert exact.uncertainty < noisy.uncertainty and 0.05 < noisy.uncertainty < 0.25


@pytest.mark.parametrize("count", [18, 19, 40])
def test_the_uncertainty_is_that_of_networks_left_out_of_the_fit(count: int, full_space: LayerwiseSpace) -> None:
    """Each is really left out here; of n errors, the next is within the ceil(0.95 (n + 1))-th 19 times in 20."""
    survey = _survey(full_space, _truth(full_space, 3, by_bits=True), noise=0.05, calibration=count)
    found = fit(survey, CPU).uncertainty
    if count < 19:
        assert found is None
        return
    errors = []
    for left_out in survey.networks:
        if left_out.why == "calibration":
            others = tuple(network for network in survey.networks if network is not left_out)
            without = survey.model_copy(update={"networks": others})
            predicted = fit(without, CPU).predict(survey.space.chosen(left_out.choice))
            errors.append(abs(1 - predicted / (left_out.ratio * survey.ms)))
    assert found == pytest.approx(sorted(errors)[math.ceil(0.95 * (len(errors) + 1)) - 1], rel=1e-3)


def test_what_a_search_proposed_says_nothing_of_networks_at_random(full_space: LayerwiseSpace) -> None:
    survey = _survey(full_space, _truth(full_space, 3, by_bits=True), calibration=18)
    proposed = [
        MeasuredNetwork(choice=choice, why="search", ratio=1.5, rounds=9)
        for choice in LayerwiseDesign(full_space).held_out(5, (n.choice for n in survey.networks), 2)
    ]
    assert fit(survey.with_networks(proposed), CPU).uncertainty is None, "18 are too few, and five do not count"
    again = [proposed[0].model_copy(update={"choice": survey.networks[0].choice})]
    assert survey.with_networks(again).networks[0].why == "calibration", "it is what it was, measured anew"


def test_a_faster_device_is_faster_everywhere(full_space: LayerwiseSpace) -> None:
    survey = _survey(full_space, _truth(full_space, 1, by_bits=True))
    model = fit(survey, CPU)
    architecture = survey.space.chosen(LayerwiseDesign(full_space).calibration(3)[1])
    assert model.at_speed(0.5).predict(architecture) == pytest.approx(model.predict(architecture) / 2)
    parts = [s.count * model.operators[architecture.operators[s.name], s.resolution] for s in full_space.wiring.slots]
    assert model.predict(architecture) == pytest.approx(model.constant + sum(parts))


def test_what_is_not_complete_is_not_fitted(full_space: LayerwiseSpace) -> None:
    survey = _survey(full_space, _truth(full_space, 1, by_bits=True))
    few = survey.model_copy(update={"networks": survey.networks[:3]})
    assert survey.is_complete and not few.is_complete
    with pytest.raises(HwnasError, match="lacks .* operators; go on with building it"):
        fit(few, CPU)
