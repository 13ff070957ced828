"""Against the sizes and lists of appendix D of QuantNAS, and against scipy for the randomness."""

import random
from collections import Counter

import pytest
import torch
from scipy.stats import chisquare

from hwnas.errors import UsageError
from hwnas.networks.quantnas import Cell
from hwnas.operators import OperatorSpec
from hwnas.operators.layers import FloatLayers
from hwnas.spaces import SPACES, LayerwiseSpace, SpaceOptions, named_architecture

LAYERS = ["head.0", "head.1", "body.0", "body.1", "skip", "upsample", "tail.0", "tail.1"]


def space(name: str = "quantnas", **options: object) -> LayerwiseSpace:
    return SPACES[name](SpaceOptions.model_validate(options))


def test_the_quantised_space_is_as_large_as_published() -> None:
    assert space().size == 7_077_888


def test_the_float_space_is_as_large_as_published() -> None:
    assert space("quantnas-float").size == 9_633_792


@pytest.mark.parametrize("bits", [(2,), (4, 8), (2, 4, 8), (3, 5, 6, 7), (8, 32)])
def test_each_layer_chooses_among_operators_times_widths(bits: tuple[int, ...]) -> None:
    operators = dict(zip(LAYERS, [4, 4, 4, 4, 3, 4, 3, 3], strict=True))
    choices = space(bits=bits).choices
    assert {layer: len(candidates) for layer, candidates in choices.items()} == {
        layer: n * len(bits) for layer, n in operators.items()
    }
    for candidates in choices.values():
        assert len(set(candidates)) == len(candidates)
        assert {spec.weight_bits for spec in candidates} == set(bits)
        assert all(spec.weight_bits == spec.activation_bits for spec in candidates)


def test_the_order_and_repetition_of_widths_do_not_matter() -> None:
    assert space(bits=(8, 4, 8)) == space(bits=(4, 8))


def test_the_lists_are_those_of_the_appendix() -> None:
    def names(candidates: tuple[OperatorSpec, ...]) -> set[str]:
        def name(s: OperatorSpec) -> str:
            ratio = "" if s.hidden is None else f" h{s.hidden / 36:g}"
            return f"{s.kind} {s.kernel}{ratio}{' g3' if s.groups == 3 else ''}"

        return {name(s) for s in candidates}

    plain, grouped = {"conv 3", "conv 5"}, {"conv 3 g3", "conv 5 g3"}
    separable = {"separable_conv 3 h1", "separable_conv 5 h1"}
    growth, decenc = {"growth 3 h2", "growth 5 h2"}, {"decenc 3 h0.5", "decenc 5 h0.5"}
    quantised = dict(
        zip(
            LAYERS,
            [
                *2 * [plain | grouped],
                *2 * [plain | separable],
                plain | {"conv 1"},
                plain | separable,
                *2 * [plain | {"conv 1"}],
            ],
            strict=True,
        )
    )
    ends = plain | grouped | growth | {"conv 1", "conv 1 g3"}
    body = plain | grouped | decenc | {"conv 1 g3"}
    floating = dict(
        zip(
            LAYERS,
            [ends, ends, body, body, plain | decenc, ends | separable | decenc, ends, ends],
            strict=True,
        )
    )
    assert {layer: names(c) for layer, c in space(bits=(4,)).choices.items()} == quantised
    assert {layer: names(c) for layer, c in space("quantnas-float").choices.items()} == floating


@pytest.mark.parametrize("name", ["quantnas", "quantnas-float"])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("channels", "cells"), [(12, 1), (24, 3), (12, 6)])
def test_a_random_architecture_enlarges_by_the_scale(name: str, scale: int, channels: int, cells: int) -> None:
    torch.manual_seed(0)
    rng = random.Random(scale)
    for residual in ("add", "adadm"):
        architecture = space(name, scale=scale, channels=channels, cells=cells, residual=residual).sample(rng)
        network = architecture.build(FloatLayers())
        assert network(torch.rand(2, 3, 9, 7)).shape == (2, 3, 9 * scale, 7 * scale)
        assert sum(isinstance(m, Cell) for m in network.modules()) == cells


def test_adadm_is_for_quantised_networks_unless_told() -> None:
    def has_adadm(name: str, **options: object) -> bool:
        network = space(name, channels=12, **options).first.build(FloatLayers())
        return any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())

    assert has_adadm("quantnas") and not has_adadm("quantnas-float")
    assert has_adadm("quantnas-float", residual="adadm") and not has_adadm("quantnas", residual="add")


def test_the_published_architecture_is_in_the_published_space() -> None:
    published = named_architecture("quantnas-body3")
    choices = space().choices
    assert published.wiring == space().wiring
    assert all(published.operators[layer] in choices[layer] for layer in LAYERS)


@pytest.mark.parametrize("name", ["quantnas", "quantnas-float"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 32}, "groups = 3 does not divide .*_channels = 32"),
        ({"channels": 0}, "channels"),
        ({"cells": 0}, "cells"),
        ({"scale": 5}, "scale"),
        ({"bits": (9,)}, "weight_bits = 9 .*2 to 8"),
        ({"bits": (4, 1)}, "weight_bits = 1 .*2 to 8"),
    ],
)
def test_an_impossible_space_is_a_wrong_request_that_names_the_option(name: str, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=f"space {name}: .*{message}") as caught:
        space(name, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_space_is_answered_with_the_known() -> None:
    with pytest.raises(UsageError, match="no space is called 'darts'; there are: agd, autodeeplab, falsr, falsr-rgb, "):
        SPACES["darts"]


def test_samples_are_uniform_over_the_candidates_of_each_layer_and_independent_between_layers() -> None:
    rng = random.Random(7)
    s = space(channels=12)
    samples = [s.sample(rng) for _ in range(2400)]
    p_values = [
        chisquare([Counter(a.operators[layer] for a in samples)[c] for c in s.choices[layer]]).pvalue
        for layer in LAYERS
    ]
    pairs = Counter((a.operators["body.0"], a.operators["body.1"]) for a in samples)
    p_values.append(chisquare([pairs[c, d] for c in s.choices["body.0"] for d in s.choices["body.1"]]).pvalue)
    # Nine looks at once: 1 % for all of them together. The seed is fixed, so this never flickers.
    assert min(p_values) > 0.01 / len(p_values)


def test_layers_not_named_take_their_first_candidate() -> None:
    s = space(channels=12)
    chosen = s.architecture({"skip": 3}, name="mine")
    assert chosen.name == "mine"
    assert chosen.operators["skip"] == s.choices["skip"][3]
    assert all(chosen.operators[layer] == s.choices[layer][0] for layer in LAYERS if layer != "skip")
