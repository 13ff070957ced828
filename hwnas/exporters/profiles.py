"""What each runtime wants of an integer network: one trained network, one graph for each.

Sources: the runtimes' documentation, and what was measured with them (docs/results.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from hwnas.quantization.placement import Placement
from hwnas.registry import Registry


@dataclass(frozen=True, slots=True)
class Profile:
    """The form of a graph.

    Attributes:
        description: one line for people.
        placement: what a network is trained with for this runtime.
        integers: type of the feature maps: ``unsigned``, with a zero point of 128 where values are negative, or
            ``signed``, with none anywhere.
        clip: how a map of fewer than eight bits is narrowed: between its QuantizeLinear and DequantizeLinear
            (``integer``), before them (``float``), or before them and after another pair of the same step, so that all
            that it reads and makes is quantised (``quantised``; a Min where the map is rectified).
        integer_bias: biases are int32 with a DequantizeLinear, or else float.
        lookup: what turns one quantised map into another is written as a LeakyRelu, which ONNX Runtime computes by a
            table; a Relu, and nothing, it computes in float.
        folded_factors: a map may be made real by another step than the one it was quantised by, which multiplies it.
        shuffle: where pixels are shuffled: where the network does (``anywhere``), as integers between QuantizeLinear
            and DequantizeLinear (``integer``), or between two pairs of the same step, so that all that the shuffle
            reads and makes is quantised (``quantised``).
        enlarge: what bicubic enlargement is written as: a ``resize``, or a ``convolution`` and a shuffle of pixels.
        rules: what its graphs are checked for; see `hwnas.exporters.lint`.
    """

    description: str
    placement: Placement
    integers: Literal["unsigned", "signed"]
    clip: Literal["integer", "float", "quantised"]
    rules: Literal["cpu", "tensorrt", "qnn"]
    integer_bias: bool = True
    lookup: bool = False
    folded_factors: bool = False
    shuffle: Literal["anywhere", "integer", "quantised"] = "anywhere"
    enlarge: Literal["resize", "convolution"] = "resize"


PROFILES: Registry[Profile] = Registry("exporter profile", "hwnas.profiles")

_CPU = Profile(
    "ONNX Runtime on a CPU",
    Placement(),
    integers="unsigned",
    clip="integer",
    rules="cpu",
    lookup=True,
    folded_factors=True,
    shuffle="integer",
    enlarge="convolution",
)
for _name, _profile in {
    "onnxruntime-cpu": _CPU,
    "openvino": replace(_CPU, description="OpenVINO on Intel's CPUs, GPUs and NPUs"),
    "tflite": replace(_CPU, description="LiteRT, which chooses its own steps"),
    "tensorrt": Profile(
        "TensorRT on NVIDIA's GPUs",
        Placement(weight_bits=8, rectified_bits=7),
        integers="signed",
        clip="float",
        rules="tensorrt",
        integer_bias=False,
    ),
    "qnn": Profile(
        "Qualcomm's HTP, through ONNX Runtime",
        Placement(weight_bits=8),
        integers="unsigned",
        clip="quantised",
        rules="qnn",
        shuffle="quantised",
    ),
}.items():
    PROFILES.register(_name)(_profile)
