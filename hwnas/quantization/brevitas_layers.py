"""Brevitas layers for the derived network: trained with quantisers in place, exported as integers.

Brevitas supplies the layers and their export. The quantisers are ours, put in where it lets them be injected:
LSQ's gradients (its own differ outside the clipping range, and keep five maps for the backward where one is
enough), steps rather than thresholds, and a state that is always complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Literal

import torch
from brevitas import config
from brevitas.core.bit_width import BitWidthConst
from brevitas.core.quant import RescalingIntQuant
from brevitas.core.scaling import ConstScaling
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.inject import ExtendedInjector
from brevitas.inject.enum import FloatToIntImplType
from brevitas.nn import QuantConv2d, QuantIdentity, QuantReLU
from brevitas.proxy import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from brevitas.quant import Int32Bias
from torch import Tensor, nn

from hwnas.architecture import Architecture
from hwnas.errors import HwnasError
from hwnas.operators.edge import Edge, replace_edges
from hwnas.operators.layers import FloatLayers
from hwnas.operators.spec import FLOAT_BITS, ConvShape, OperatorSpec
from hwnas.quantization.hwgq import HWGQ_STEP
from hwnas.quantization.lsq import (
    WeightStep,
    fake_quantise,
    integer_range,
    lsq_quantise,
    mse_step,
    positive_step,
)
from hwnas.quantization.placement import Placement

Activations = Literal["learned", "hwgq"]

SAMPLED_VALUES = 8192
"""Values of a map that its step is chosen on: enough for a step, and cheap beside the convolutions."""


class _InjectedWeightStep(WeightStep):
    """`WeightStep` under the names by which Brevitas injects its arguments."""

    def __init__(self, tracked_parameter_list: list[nn.Parameter], bit_width: int) -> None:
        (weight,) = tracked_parameter_list
        super().__init__(weight, bit_width)

    def forward(self, weight: Tensor, threshold: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(weight)


class ActivationStep(nn.Module):
    """The learned step of a map, started with the mean of the best steps for the first training forwards.

    While it collects, the mean so far is in use and nothing is learned. Before the first training forward, an
    evaluation takes the step that suits its own input; an export refuses.
    """

    def __init__(self, bit_width: int, signed: bool, collect_steps: int) -> None:
        super().__init__()
        self.low, self.high = integer_range(bit_width, signed)
        self.collect_steps = collect_steps
        self.collected = 0
        self.value = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, threshold: Tensor) -> Tensor:
        if self.training and self.collected < self.collect_steps:
            self.collected += 1
            with torch.no_grad():
                self.value.lerp_(self._best_step(x), 1 / self.collected)
            return positive_step(self.value.detach())
        return positive_step(self.value) if self.collected else self._best_step(x)

    def _best_step(self, x: Tensor) -> Tensor:
        # An odd stride, or a map of even width would be sampled in the same columns of every row.
        values = x.detach().flatten()[:: x.numel() // SAMPLED_VALUES | 1].float()
        return mse_step(values[None], self.low, self.high)[0]

    # The count belongs to the state: a training resumed while collecting has to go on collecting.
    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.collected)

    def set_extra_state(self, state: Tensor) -> None:
        self.collected = int(state)


class _One(nn.Module):
    """Brevitas divides thresholds by the largest integer to get steps; ours are steps already."""

    def __init__(self) -> None:  # injection reads the signature; torch's own takes anything
        super().__init__()

    def forward(self, bit_width: Tensor) -> Tensor:
        return torch.ones_like(bit_width)


class _Quantise(nn.Module):
    """`fake_quantise` under the signature of Brevitas."""

    def __init__(self, bit_width: int, signed: bool) -> None:
        super().__init__()
        self.bits = bit_width
        self.low, self.high = integer_range(bit_width, signed)

    def forward(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        return fake_quantise(x, scale, self.low, self.high)


class _QuantiseWeight(_Quantise):
    """`lsq_quantise` likewise."""

    def forward(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        return lsq_quantise(x, scale, self.bits)


class _Quantiser(ExtendedInjector):
    tensor_quant = RescalingIntQuant
    int_quant = _Quantise
    int_scaling_impl = _One
    zero_point_impl = ZeroZeroPoint
    bit_width_impl = BitWidthConst
    float_to_int_impl_type = FloatToIntImplType.ROUND
    narrow_range = False


class _WeightQuantiser(_Quantiser):
    proxy_class = WeightQuantProxyFromInjector
    int_quant = _QuantiseWeight
    scaling_impl = _InjectedWeightStep
    signed = True


class _ActivationQuantiser(_Quantiser):
    proxy_class = ActQuantProxyFromInjector
    scaling_impl = ActivationStep


class _ConstantQuantiser(_Quantiser):
    proxy_class = ActQuantProxyFromInjector
    scaling_impl = ConstScaling
    signed = False


_REBUILD_ON_LOAD = config.REINIT_ON_STATE_DICT_LOAD


def _before_load(*args: object) -> None:
    config.REINIT_ON_STATE_DICT_LOAD = False


def _after_load(*args: object) -> None:
    config.REINIT_ON_STATE_DICT_LOAD = _REBUILD_ON_LOAD


def _keep_quantisers_on_load(layer: nn.Module) -> nn.Module:
    """Have ``layer`` load a state into the parameters it has.

    Brevitas builds new quantisers first; the parameters of the old ones stay behind in the optimiser, and a
    training resumed from a checkpoint no longer learns its steps.
    """
    layer.register_load_state_dict_pre_hook(_before_load)
    layer.register_load_state_dict_post_hook(_after_load)
    return layer


def _has_integer_bias(spec: OperatorSpec) -> bool:
    """Whether the biases of an operator are rounded to multiples of input step times weight step.

    ONNX Runtime does so where input and weights are integers, which at 4 bits moves the output by whole grey
    levels: the training has to know. The convolution then needs the step of its input, which comes with it as
    a quantised tensor.
    """
    return spec.bias and spec.is_fully_quantised


def _activation(kind: type[nn.Module], quantiser: type[_Quantiser], spec: OperatorSpec) -> nn.Module:
    return _keep_quantisers_on_load(kind(act_quant=quantiser, return_quant_tensor=_has_integer_bias(spec)))


class BrevitasLayers:
    """A `LayerFactory` of quantised layers; a width of 32 gives plain torch layers.

    Args:
        activations: ``learned`` steps, or the constant ones of ``hwgq``. A map that may be negative has a
            learned step in both: HWGQ is half-wave and undefined for negative values.
        collect_steps: training forwards on which learned activation steps are started.
        placement: what the runtime asks for.
    """

    def __init__(
        self, activations: Activations = "learned", collect_steps: int = 100, placement: Placement | None = None
    ) -> None:
        self.activations = activations
        self.collect_steps = collect_steps
        self.placement = placement or Placement()
        self._float = FloatLayers()

    def activation(self, spec: OperatorSpec) -> nn.Module:
        if spec.activation_bits == FLOAT_BITS:
            return self._float.activation(spec)
        if spec.activation == "none":
            quantiser = self._learned(spec.activation_bits, signed=True)
            return _activation(QuantIdentity, quantiser, spec)
        bits = min(spec.activation_bits, self.placement.rectified_bits)
        if self.activations == "hwgq":
            quantiser = _ConstantQuantiser.let(bit_width=bits, scaling_init=HWGQ_STEP[bits])
        else:
            quantiser = self._learned(bits, signed=False)
        return _activation(QuantReLU if spec.activation == "relu" else QuantIdentity, quantiser, spec)

    def edge(self, edge: Edge) -> nn.Module:
        """A quantiser of eight bits in the place of a mark."""
        bits = 8 if edge.signed else self.placement.rectified_bits
        return _keep_quantisers_on_load(QuantIdentity(act_quant=self._learned(bits, edge.signed)))

    def _learned(self, bits: int, signed: bool) -> type[_Quantiser]:
        quantiser: type[_Quantiser] = _ActivationQuantiser.let(
            bit_width=bits, signed=signed, collect_steps=self.collect_steps
        )
        return quantiser

    def convolution(self, spec: OperatorSpec, shape: ConvShape) -> nn.Module:
        if spec.weight_bits == FLOAT_BITS:
            return self._float.convolution(spec, shape)
        layer = QuantConv2d(
            shape.in_channels,
            shape.out_channels,
            shape.kernel,
            padding=shape.padding,
            groups=shape.groups,
            bias=spec.bias,
            weight_quant=_WeightQuantiser.let(bit_width=min(spec.weight_bits, self.placement.weight_bits)),
            bias_quant=Int32Bias if _has_integer_bias(spec) else None,
        )
        return _keep_quantisers_on_load(layer)


class _ImageLayers(BrevitasLayers):
    """The same for the operator that reads the image: bytes, so that steps of 1/255 lose nothing."""

    _seen = False

    def activation(self, spec: OperatorSpec) -> nn.Module:
        if self._seen or spec.activation_bits != 8:
            return super().activation(spec)
        self._seen = True
        return _activation(QuantIdentity, _ConstantQuantiser.let(bit_width=8, scaling_init=1 / 255), spec)


def build_quantised(
    architecture: Architecture,
    activations: Activations = "learned",
    collect_steps: int = 100,
    placement: Placement | None = None,
) -> nn.Module:
    """The network with its quantisers in place; the arguments are those of `BrevitasLayers`."""
    arguments = activations, collect_steps, placement
    layers = BrevitasLayers(*arguments)
    network = architecture.build(layers, _ImageLayers(*arguments))
    # A float operator is there for its precision, which bytes before it would take away.
    if architecture.is_fully_quantised:
        replace_edges(network, layers.edge)
    return network


def uncalibrated(network: nn.Module) -> list[str]:
    """Names of the activation steps of ``network`` that no training forward or calibration has started."""
    return [name for name, step in network.named_modules() if isinstance(step, ActivationStep) and not step.collected]


@torch.no_grad()
def calibrate(network: nn.Module, batches: Iterable[Tensor], anew: bool = True) -> None:
    """Start the activation steps of ``network``, without training, and leave it in evaluation mode.

    Nothing else changes: batch norms keep their statistics.

    Args:
        network: made of `BrevitasLayers`.
        batches: inputs, [B, 3, H, W] in [0, 1]; at most the layers' ``collect_steps`` of them are used.
        anew: those that were started before, too.

    Raises:
        HwnasError: if there are steps to start and no batches.
    """
    network.eval()
    steps = [m for m in network.modules() if isinstance(m, ActivationStep) and (anew or not m.collected)]
    if not steps:
        return
    for step in steps:
        step.collected = 0
        step.train()
    for batch in islice(batches, max(step.collect_steps for step in steps)):
        network(batch)
    network.eval()
    if uncalibrated(network):
        raise HwnasError("calibration needs at least one batch of images; none were given")
    for step in steps:
        step.collected = step.collect_steps


def quantise_trained(state: Mapping[str, Tensor], quantised_network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Quantise the float layers of a trained network without training it further (PTQ).

    Weight steps minimise the squared rounding error of each output channel; activation steps are calibrated. Those of
    layers that were trained quantised stay. The quantised network is left in evaluation mode.

    Args:
        state: of the same architecture with some or all widths at 32.
        quantised_network: made of `BrevitasLayers`; takes the weights.
        batches: inputs for `calibrate`.

    Raises:
        HwnasError: if the state belongs to another architecture, or there are no batches.
    """
    try:
        missing, unexpected = quantised_network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise HwnasError(f"the float weights are of another architecture: {error}") from error
    # A float network lacks what belongs to quantisers, and nothing else.
    wrong = [key for key in missing if "_quant." not in key] + list(unexpected)
    if wrong:
        raise HwnasError(f"the float weights are of another architecture; they differ in {wrong[0]}")
    for layer in quantised_network.modules():
        if isinstance(layer, QuantConv2d) and not layer.weight_quant.tensor_quant.scaling_impl.started:
            steps = layer.weight_quant.tensor_quant.scaling_impl
            steps.start(mse_step(layer.weight.detach().flatten(1), *integer_range(steps.bits, signed=True)))
    calibrate(quantised_network, batches, anew=False)
