"""Against the published numbers, fvcore on whole networks, and sums done by hand."""

import json
import random
from math import prod

import pytest
import torch
from torch import nn

from hwnas.architecture import Architecture, parse_architecture
from hwnas.budget import Budget
from hwnas.cost_models import COST_MODELS, cost_model
from hwnas.cost_models.counting import traced_macs
from hwnas.cost_models.memory import peak_activation_bytes
from hwnas.errors import UsageError
from hwnas.networks import parse_wiring
from hwnas.operators import OperatorSpec
from hwnas.operators.layers import FloatLayers
from hwnas.searches.feasibility import require_feasible
from hwnas.spaces import SPACES, SpaceOptions, named_architecture

ODD = (17, 23)


def cost(metric: str, architecture: Architecture, size: tuple[int, int] | None = None) -> float:
    return cost_model(metric).architecture_cost(architecture, size).value


def body3(cells: int = 3) -> Architecture:
    data = json.loads(named_architecture("quantnas-body3").model_dump_json())
    data["wiring"]["cells"] = cells
    return parse_architecture(json.dumps(data), "published")


@pytest.mark.parametrize(
    ("architecture", "bitops"),
    [
        (body3(), 4_628_938_752),
        (body3().with_bits(4), 1_873_870_848),
        (body3().with_bits(8), 7_495_483_392),
        (named_architecture("espcn", bits=8), 2_428_502_016),
    ],
    ids=["body 3", "4 bit", "8 bit", "espcn"],
)
def test_bitops_at_32x32_are_the_published_ones(architecture: Architecture, bitops: int) -> None:
    assert cost("bitops", architecture) == bitops


def test_body_6_rounds_to_what_is_published() -> None:
    assert f"{cost('bitops', body3(cells=6)):.3e}" == "5.839e+09"


def test_the_published_architecture_has_the_published_convolution_parameters() -> None:
    parts = cost_model("params").architecture_cost(body3()).layers
    assert sum(part.value for part in parts if part.layer != "(wiring)") == 85_212


def test_srresnet_costs_what_the_papers_say() -> None:
    low = 9 * (3 * 64 + 2 * 16 * 64 * 64 + 64 * 256)  # head, blocks, first upsampling
    middle, high = 9 * 64 * 256, 9 * (64 * 64 + 64 * 3)
    macs = 256**2 * (low + 4 * middle + 16 * high)
    assert macs // 10**6 == 166_207
    assert cost("flops", named_architecture("srresnet")) == macs
    assert cost("params", named_architecture("srresnet")) == 1_517_571


@pytest.mark.parametrize("seed", range(50))
def test_the_sum_over_operators_is_what_fvcore_counts_on_the_whole_network(seed: int) -> None:
    torch.manual_seed(0)
    rng = random.Random(seed)
    options = SpaceOptions(
        scale=rng.choice([2, 3, 4]),
        cells=rng.choice([1, 2]),
        channels=rng.choice([12, 24]),
        residual=("add", "batch-norm", "original-adadm", "adadm")[seed % 4],
        bicubic=seed % 3 == 0,
    )
    architecture = SPACES[("quantnas", "quantnas-float")[seed // 2 % 2]](options).sample(rng)
    network = architecture.build(FloatLayers())
    assert cost("flops", architecture, ODD) == traced_macs(network, 3, ODD)
    assert cost("params", architecture, ODD) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ["espcn", "srresnet", "quantnas-body3"])
def test_so_it_is_for_the_published_architectures(name: str) -> None:
    architecture = named_architecture(name, scale=3)
    network = architecture.build(FloatLayers())
    assert cost("flops", architecture, (5, 9)) == traced_macs(network, 3, (5, 9))
    assert cost("params", architecture) == sum(p.numel() for p in network.parameters())


def test_tracing_agrees_with_the_textbook_formula() -> None:
    conv = nn.Conv2d(6, 9, (3, 5), padding=(1, 2), groups=3)
    assert traced_macs(conv, 6, ODD) == 17 * 23 * 9 * (6 // 3) * 15


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(4, 8), (8, 4), (2, 32), (32, 32), (5, 5)])
def test_differing_widths_multiply(weight_bits: int, activation_bits: int) -> None:
    spec = OperatorSpec(kind="conv", in_channels=5, out_channels=7, kernel=5).with_bits(weight_bits, activation_bits)
    macs = 25 * 5 * 7 * prod(ODD)
    assert cost_model("flops").operator_cost(spec, ODD) == macs
    assert cost_model("bitops").operator_cost(spec, ODD) == macs * weight_bits * activation_bits
    assert cost_model("params").operator_cost(spec, ODD) == 25 * 5 * 7


@pytest.mark.parametrize("metric", ["bitops", "flops", "params", "memory"])
@pytest.mark.parametrize("name", ["espcn", "quantnas-body3"])
def test_the_rows_of_the_table_add_up(metric: str, name: str) -> None:
    found = cost_model(metric).architecture_cost(named_architecture(name))
    assert sum(row.value for row in found.layers) == found.value
    assert (found.metric, found.unit, found.input_size) == (
        metric,
        cost_model(metric).unit,
        cost_model(metric).default_input_size,
    )


def test_a_search_table_prices_every_architecture_as_the_cost_model_does() -> None:
    space = SPACES["quantnas"](SpaceOptions(channels=12, cells=2))
    rng = random.Random(3)
    for metric in ("bitops", "flops", "params"):
        model = cost_model(metric)
        table, constant = model.table(space, ODD), model.space_constant(space, ODD)
        for _ in range(10):
            chosen = {layer: rng.randrange(len(row)) for layer, row in table.items()}
            expected = cost(metric, space.architecture(chosen), ODD)
            assert constant + sum(table[layer][i] for layer, i in chosen.items()) == expected


def weight_bytes(architecture: Architecture) -> float:
    """Each convolution's weights at their width, biases at 32 bit; from the built network."""
    total = 0.0
    for slot in architecture.wiring.slots:
        spec = architecture.operators[slot.name]
        c, o, h, k = spec.in_channels, spec.out_channels, spec.hidden or 0, spec.kernel
        weights = {
            "conv": k * k * c * o // spec.groups,
            "separable_conv": k * h * (c + o),
            "growth": k * k * h * (c + o),
            "decenc": k * k * h * (c + h + o),
        }[spec.kind]
        biases = o if spec.bias else 0
        total += slot.count * (weights * spec.weight_bits / 8 + biases * 4)
    return total


@pytest.mark.parametrize(
    "architecture",
    [
        body3(),
        named_architecture("espcn", bits=4),
        named_architecture("srresnet"),
        SPACES["quantnas-float"](SpaceOptions(bits=(3, 6))).sample(random.Random(1)),
    ],
    ids=["body 3", "espcn", "srresnet", "random"],
)
def test_memory_is_the_weights_at_their_widths_and_the_peak_of_the_maps(architecture: Architecture) -> None:
    layers = cost_model("memory").architecture_cost(architecture, (8, 8)).layers
    assert sum(row.value for row in layers[:-1]) == weight_bytes(architecture)
    assert layers[-1].value == peak_activation_bytes(architecture, (8, 8))


@pytest.mark.parametrize("bits", [2, 4, 8, 32])
def test_peak_of_espcn_as_computed_by_hand(bits: int) -> None:
    """Input 3, maps of 64 and 32, 48 sub-pixel channels and the shuffled output, pixel for pixel.

    Every convolution reads an activation, so the input and both hidden maps are kept at ``bits``; the 48 channels are
    kept at eight bits in a quantised network, and their shuffled copy, the output, is float.
    """
    pixels = 10 * 14
    edge_bits = 32 if bits == 32 else 8
    alive_together = [
        3 * bits + 64 * bits,
        64 * bits + 32 * bits,
        32 * bits + 48 * edge_bits,
        48 * edge_bits + 48 * 32,
    ]
    architecture = named_architecture("espcn", bits=bits)
    assert peak_activation_bytes(architecture, (10, 14)) == pixels * max(alive_together) / 8


def test_peak_of_espcn_at_scale_2_is_at_its_wide_maps() -> None:
    """At scale 2 there are 12 sub-pixel channels only, and the 64 and 32 channels are the most."""
    architecture = named_architecture("espcn", scale=2, bits=8)
    assert peak_activation_bytes(architecture, (10, 14)) == 10 * 14 * (64 + 32)


def test_peak_of_a_residual_network_as_computed_by_hand() -> None:
    """SRResNet of one block at x2, 8 bits: four times six sub-pixel maps, float before the shuffle."""
    wiring = {"kind": "srresnet", "channels": 6, "blocks": 1, "scale": 2}
    architecture = Architecture.model_validate(
        {
            "wiring": wiring,
            "operators": {
                slot.name: OperatorSpec(
                    kind="conv",
                    in_channels=slot.in_channels,
                    out_channels=slot.out_channels,
                    weight_bits=8,
                    activation_bits=8,
                )
                for slot in parse_wiring(wiring).slots
            },
        }
    )
    # In the block 6 channels of one byte for x, the branch and the sum; then 24 channels of four bytes, and again as
    # 6 channels at four times the pixels, which only an activation reads: one byte.
    assert peak_activation_bytes(architecture, (10, 14)) == 10 * 14 * (24 * 4 + 24 * 1)


def test_the_peak_grows_with_the_image_and_the_weights_do_not() -> None:
    small, large = (
        cost_model("memory").architecture_cost(named_architecture("srresnet"), (8, n)).layers for n in (8, 24)
    )
    assert large[-1].value == 3 * small[-1].value
    assert large[:-1] == small[:-1]


def test_no_search_can_be_held_to_memory() -> None:
    space = SPACES["quantnas"](SpaceOptions(channels=12))
    with pytest.raises(UsageError, match="memory does not add up over operators"):
        require_feasible(space, [Budget("memory", 1e9, (32, 32))])
    with pytest.raises(ValueError, match="memory does not add up"):
        cost_model("memory").table(space, (32, 32))


def test_an_unknown_metric_is_answered_with_the_known() -> None:
    with pytest.raises(UsageError, match=r"no metric is called 'watts'; there are: .*bitops.*flops.*memory.*params"):
        cost_model("watts")
    assert "watts" not in COST_MODELS
