"""From a trained network to one that can be written: which numbers it computes in, and how they came about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor, nn

from hwnas.checkpoints import NetworkRecord
from hwnas.data.images import ImageArray
from hwnas.data.sources import TrainingData
from hwnas.errors import UsageError
from hwnas.evaluation import evaluate_pairs
from hwnas.exporters.profiles import Profile
from hwnas.inference import TorchUpscaler
from hwnas.networks.adadm import freeze_normalisation, is_data_dependent
from hwnas.operators import FLOAT_BITS

Precision = Literal["fp32", "int8", "mixed"]

CALIBRATION_BATCHES = 16


@dataclass(frozen=True)
class Deployable:
    """A network ready to be written.

    Attributes:
        record: what it is.
        network: in evaluation mode.
        how: one sentence on how its numbers came about.
    """

    record: NetworkRecord
    network: nn.Module
    how: str


def make_deployable(
    record: NetworkRecord,
    network: nn.Module,
    precision: Precision,
    data: TrainingData | None,
    crop: int,
    profile: Profile,
    say: Callable[[str], None] = lambda _: None,
) -> Deployable:
    """The network at the precision that the user asked for.

    Args:
        record: of the trained network.
        network: the trained network.
        precision: ``fp32``: without quantisers; ``mixed``: each layer at the bits it was trained at; ``int8``: every
            convolution in 8-bit integers. Layers trained at 8 bits or fewer keep their weights, float ones are
            calibrated.
        data: photographs to calibrate with; needed for ``int8`` where there are float layers.
        crop: side of the calibration crops in low-resolution pixels.
        profile: of the runtime; decides where a float network is quantised.
        say: is told of photographs that are too small for crops.

    Raises:
        UsageError: if the network has no bits to export at.
        HwnasError: if calibration fails.
    """
    architecture = record.architecture
    float_layers = [name for name, spec in architecture.operators.items() if spec.weight_bits == FLOAT_BITS]
    if precision == "mixed":
        if not architecture.is_quantised:
            raise UsageError("the network was trained in float; export it with --fp32, or with --int8 to calibrate it")
        return Deployable(record, network, "each layer at the bits it was trained at")
    if precision == "fp32":
        if not architecture.is_quantised:
            return Deployable(record, network, "as trained, in float")
        return float_twin(record, network)
    if not float_layers:
        narrow = sum(spec.weight_bits < 8 for spec in architecture.operators.values())
        how = "as trained" + (f"; {narrow} layers of fewer than 8 bits are stored in 8-bit integers" if narrow else "")
        return Deployable(record, network, how)
    if data is None:
        raise UsageError("--int8 of a float network calibrates it on photographs; name them with --data")
    from hwnas.quantization.brevitas_layers import quantise_trained

    operators = {
        name: spec.with_bits(8) if name in float_layers else spec for name, spec in architecture.operators.items()
    }
    integer = record.model_copy(
        update={
            "architecture": architecture.model_copy(update={"operators": operators}),
            # Layers that were trained quantised keep their integers.
            "placement": record.placement if architecture.is_quantised else profile.placement,
        }
    )
    quantised = integer.build()
    rng = np.random.default_rng(0)
    room = data.train.room_for(crop, say)
    batches = (data.train.sample(rng, 8, crop, room)[0] for _ in range(CALIBRATION_BATCHES))
    quantise_trained(network.state_dict(), quantised, batches)
    how = (
        f"{len(float_layers)} float layers calibrated to 8 bits on {8 * CALIBRATION_BATCHES} crops, not trained further"
    )
    return Deployable(integer, quantised, how)


def freeze_adadm(
    record: NetworkRecord, network: nn.Module, pairs: Sequence[tuple[str, ImageArray, ImageArray]]
) -> tuple[NetworkRecord, nn.Module, str]:
    """Have AdaDM use its running statistics, so that it is an affine map, and a sentence on what that costs.

    Args:
        record: of the network.
        network: is changed.
        pairs: name, low resolution and high resolution of the images to measure the cost on.

    Raises:
        UsageError: if there is nothing to freeze.
    """
    if not is_data_dependent(network):
        raise UsageError("the network has no AdaDM that takes statistics of each image; leave --freeze-adadm out")

    def psnr() -> float:
        return evaluate_pairs(TorchUpscaler(network), pairs, record.architecture.scale).psnr

    before = psnr()
    freeze_normalisation(network)
    cost = f"AdaDM takes the statistics of training: {psnr():.2f} dB in torch, {before:.2f} dB with each image's own"
    return record.model_copy(update={"frozen": True}), network, cost


def float_twin(record: NetworkRecord, network: nn.Module) -> Deployable:
    """A quantised network without its quantisers."""
    twin = record.model_copy(update={"architecture": record.architecture.with_bits(FLOAT_BITS)})
    unquantised = twin.build()
    unquantised.load_state_dict(_float_state(network))
    return Deployable(
        twin, unquantised.eval(), "trained with quantisers, which are left out: not what training optimised"
    )


def _float_state(network: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in network.state_dict().items() if "_quant." not in key}
