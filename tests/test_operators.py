"""Against the operators' definitions in appendix D of QuantNAS, written out as formulas."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from hwnas.cost_models import cost_model
from hwnas.operators import OPERATORS, ConvShape, LayerFactory, OperatorSpec, build_operator, register_operator
from hwnas.operators.layers import FloatLayers

C_IN, C_OUT, HIDDEN = 6, 9, 12

KINDS = [
    ({"kind": "conv", "kernel": 1}, C_IN * C_OUT),
    ({"kind": "conv", "kernel": 3}, 9 * C_IN * C_OUT),
    ({"kind": "conv", "kernel": 5}, 25 * C_IN * C_OUT),
    ({"kind": "edge_oriented", "kernel": 3}, 9 * C_IN * C_OUT),
    ({"kind": "conv", "kernel": 1, "groups": 3}, C_IN * C_OUT // 3),
    ({"kind": "conv", "kernel": 3, "groups": 3}, 9 * C_IN * C_OUT // 3),
    ({"kind": "conv", "kernel": 5, "groups": 3}, 25 * C_IN * C_OUT // 3),
    ({"kind": "separable_conv", "kernel": 3, "hidden": HIDDEN}, 3 * C_IN * HIDDEN + 3 * HIDDEN * C_OUT),
    ({"kind": "separable_conv", "kernel": 5, "hidden": HIDDEN}, 5 * C_IN * HIDDEN + 5 * HIDDEN * C_OUT),
    ({"kind": "growth", "kernel": 3, "hidden": HIDDEN}, 9 * (C_IN * HIDDEN + HIDDEN * C_OUT)),
    ({"kind": "growth", "kernel": 5, "hidden": HIDDEN}, 25 * (C_IN * HIDDEN + HIDDEN * C_OUT)),
    ({"kind": "decenc", "kernel": 3, "hidden": HIDDEN}, 9 * (C_IN * HIDDEN + HIDDEN * HIDDEN + HIDDEN * C_OUT)),
    ({"kind": "decenc", "kernel": 5, "hidden": HIDDEN}, 25 * (C_IN * HIDDEN + HIDDEN * HIDDEN + HIDDEN * C_OUT)),
]
each_kind = pytest.mark.parametrize(("fields", "parameters"), KINDS, ids=lambda v: str(v).replace(" ", ""))


def make_spec(**fields: object) -> OperatorSpec:
    return OperatorSpec.model_validate({"kind": "conv", "in_channels": C_IN, "out_channels": C_OUT} | fields)


def build(**fields: object) -> nn.Module:
    return build_operator(make_spec(**fields), FloatLayers())


@each_kind
def test_height_and_width_stay_and_the_channels_become_those_asked_for(fields: dict, parameters: int) -> None:
    torch.manual_seed(0)
    assert build(**fields)(torch.randn(2, C_IN, 7, 11)).shape == (2, C_OUT, 7, 11)


@each_kind
def test_an_operator_has_the_parameters_of_its_formula(fields: dict, parameters: int) -> None:
    assert sum(p.numel() for p in build(**fields).parameters()) == parameters


@each_kind
def test_every_convolution_is_preceded_by_its_activation_and_nothing_follows_the_last(
    fields: dict, parameters: int
) -> None:
    torch.manual_seed(0)
    order: list[str] = []
    operator = build(**fields)
    for module in operator.modules():
        if not list(module.children()) and not isinstance(module, nn.ModuleList):
            module.register_forward_hook(lambda m, *_: order.append(type(m).__name__))
    out = operator(torch.randn(1, C_IN, 6, 6))
    convolutions = {"conv": 1, "edge_oriented": 1, "separable_conv": 2, "growth": 2, "decenc": 3}[fields["kind"]]
    assert order == ["ReLU", "Conv2d"] * convolutions
    assert out.min() < 0, "a ReLU would have removed what is negative"


@each_kind
def test_what_is_negative_in_the_input_is_not_seen(fields: dict, parameters: int) -> None:
    torch.manual_seed(0)
    operator, x = build(**fields), torch.randn(1, C_IN, 6, 6)
    assert torch.equal(operator(x), operator(x.relu()))
    signed = build(**fields, activation="none")
    signed.load_state_dict(operator.state_dict())
    assert not torch.allclose(signed(x), signed(x.relu()))


def test_a_separable_convolution_is_dense_and_has_one_column_then_one_row() -> None:
    convs = [m for m in build(kind="separable_conv", kernel=5, hidden=HIDDEN).modules() if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size, c.groups, c.padding) for c in convs] == [((5, 1), 1, (2, 0)), ((1, 5), 1, (0, 2))]


def test_a_bias_belongs_to_every_convolution_or_to_none() -> None:
    def biases(bias: bool) -> list[bool]:
        operator = build(kind="decenc", hidden=HIDDEN, bias=bias)
        return [m.bias is not None for m in operator.modules() if isinstance(m, nn.Conv2d)]

    assert biases(True) == [True] * 3
    assert biases(False) == [False] * 3


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (
            {"kind": "winograd"},
            r"kind = 'winograd' .*conv, conv_cell, decenc, depthwise_block, edge_oriented, growth, inverted",
        ),
        ({"kernel": 4}, "kernel = 4 is even"),
        ({"kernel": 0}, "kernel"),
        ({"groups": 4}, "groups = 4 does not divide in_channels = 6"),
        ({"groups": 2}, "groups = 2 does not divide out_channels = 9"),
        ({"weight_bits": 1}, "weight_bits = 1 .*2 to 8, or 32"),
        ({"activation_bits": 9}, "activation_bits = 9 .*2 to 8, or 32"),
        ({"activation_bits": 8}, "weight_bits = 32 with activation_bits = 8: float weights need float activations"),
        ({"weight_bits": 16}, "weight_bits = 16 .*2 to 8, or 32"),
        ({"in_channels": 0}, "in_channels"),
        ({"dilation": 2}, "dilation"),
        ({"activation": "gelu"}, "activation"),
    ],
)
def test_a_bad_spec_is_refused_by_the_name_of_its_field(fields: dict, named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        make_spec(**fields)


@pytest.mark.parametrize("kind", ["separable_conv", "growth", "decenc"])
def test_operators_of_several_convolutions_ask_for_the_channels_between(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind}.*'hidden'"):
        build(kind=kind)


def test_other_widths_leave_the_rest_of_a_spec_alone() -> None:
    spec = make_spec(kind="growth", hidden=HIDDEN, kernel=5)
    assert spec.with_bits(4) == make_spec(kind="growth", hidden=HIDDEN, kernel=5, weight_bits=4, activation_bits=4)
    assert spec.with_bits(4, 8).activation_bits == 8
    assert spec.with_bits(4, 8).float_twin == spec
    assert spec.with_bits(8, 32).is_quantised and not spec.is_quantised


def test_a_users_operator_is_costed_without_further_code() -> None:
    """Squeeze and excitation: a branch that pools globally costs the same at any size, a convolution does not."""

    class Excited(nn.Module):
        def __init__(self, spec: OperatorSpec, layers: LayerFactory) -> None:
            super().__init__()
            self.activation = layers.activation(spec)
            self.spatial = layers.convolution(spec, ConvShape(spec.in_channels, spec.out_channels, (3, 3)))
            self.gate = layers.convolution(spec, ConvShape(spec.out_channels, spec.out_channels, (1, 1)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.spatial(self.activation(x))
            return x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()

    register_operator("test_excited")(Excited)
    try:
        spec = make_spec(kind="test_excited").with_bits(4, 8)
        macs = 9 * C_IN * C_OUT * 17 * 23 + C_OUT * C_OUT
        assert cost_model("flops").operator_cost(spec, (17, 23)) == macs
        assert cost_model("bitops").operator_cost(spec, (17, 23)) == 4 * 8 * macs
        assert cost_model("params").operator_cost(spec, (17, 23)) == 9 * C_IN * C_OUT + C_OUT * C_OUT
        with pytest.raises(ValueError, match="test_excited"):
            register_operator("test_excited")(Excited)
    finally:
        OPERATORS.remove("test_excited")
    with pytest.raises(ValidationError, match="test_excited"):
        make_spec(kind="test_excited")
