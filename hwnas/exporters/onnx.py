"""ONNX files: what ONNX Runtime runs, and what most device toolchains start from.

Quantised layers become QuantizeLinear and DequantizeLinear pairs around int8 weights (QCDQ); below 8 bits a
Clip narrows the integers, since the standard's convolutions have no narrower type.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor, nn

from hwnas.errors import HwnasError, UsageError, first_line
from hwnas.exporters.base import EXPORTERS, Exporter, ExportJob, ExportOptions
from hwnas.exporters.graph import adapt
from hwnas.exporters.graph.enlarge import ENLARGE
from hwnas.exporters.graph.options import INT4_OPSET, bytes_in_and_out, fix_size, pack_int4
from hwnas.exporters.graph.order import shorten_names
from hwnas.exporters.lint import check_model, require_rules
from hwnas.exporters.parity import FLOAT_TOLERANCE, HALF_TOLERANCE, SOURCE_TOLERANCE, require_source
from hwnas.exporters.profiles import PROFILES, Profile
from hwnas.exporters.runtime import OnnxArtifact
from hwnas.files import atomic_path

OPSET = 17
"""The first that has all we write, and old enough for the runtimes of devices."""

INPUT_NAME = "lr"
OUTPUT_NAME = "sr"

_INTEGER_TYPES = {
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
    onnx.TensorProto.INT4,
    onnx.TensorProto.UINT4,
}


@dataclass(frozen=True, slots=True)
class OnnxSummary:
    """What became of a network in a file.

    Attributes:
        opset: version of the standard operators.
        size_bytes: size of the file.
        quantised_convolutions: convolutions whose weights are stored as integers.
        float_convolutions: the others, but for that of the bicubic enlargement.
        packed: layers whose weights are stored two in a byte.
        packed_bytes: what these take.
    """

    opset: int
    size_bytes: int
    quantised_convolutions: int
    float_convolutions: int
    packed: int = 0
    packed_bytes: int = 0


def export_onnx(
    network: nn.Module,
    path: Path,
    sample: Tensor,
    metadata: Mapping[str, str],
    profile: Profile | None = None,
    options: ExportOptions | None = None,
) -> None:
    """Write ``network`` as one ONNX file, with input ``lr`` [1, 3, height, width] and output ``sr``.

    Args:
        network: float, or made of `hwnas.quantization.brevitas_layers.BrevitasLayers`; it is not changed.
        path: where to write, atomically.
        sample: an input, [1, 3, h, w] in [0, 1]; its size does not matter.
        metadata: properties stored in the file.
        profile: the form that the runtime wants; None for that of ONNX Runtime on a CPU, which all is verified in.
        options: what is asked for besides; None for images of any size, in float.

    Raises:
        HwnasError: if an activation's step was never started, the profile cannot hold the network's numbers or what
            is asked for, or the file cannot be written.
    """
    from hwnas.quantization.brevitas_layers import uncalibrated  # brevitas takes a second to import

    if steps := uncalibrated(network):
        raise HwnasError(
            f"the quantisers of {len(steps)} layers have seen no images, so their steps are unknown; "
            "train or calibrate the network before it is exported"
        )
    options, profile = options or ExportOptions(), profile or PROFILES["onnxruntime-cpu"]
    # Brevitas attaches export handlers to the layers, and leaves them in export mode when an export fails.
    network = copy.deepcopy(network).eval()
    arguments: dict[str, Any] = {
        "input_names": [INPUT_NAME],
        "output_names": [OUTPUT_NAME],
        "dynamic_axes": {
            INPUT_NAME: {2: "height", 3: "width"},
            OUTPUT_NAME: {2: "sr_height", 3: "sr_width"},
        },
        "opset_version": INT4_OPSET if options.pack_int4 else OPSET,
        # The newer exporter rejects integer weights, and writes a second file beside the first.
        "dynamo": False,
        # Brevitas' default leaves the arithmetic of the steps in the graph.
        "keep_initializers_as_inputs": False,
    }
    with atomic_path(path) as temporary:
        # The exporter's remarks on tracing and deprecation are for us, not for who runs it.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            from brevitas.export import export_onnx_qcdq  # warns when it is imported

            if _is_quantised(network):
                try:
                    export_onnx_qcdq(network, args=sample, export_path=str(temporary), **arguments)
                # Of integers that floats cannot tell apart it says that a tensor is not valid.
                except RuntimeError as error:
                    raise HwnasError(f"the network has integers that cannot be written: {first_line(error)}") from error
            else:
                torch.onnx.export(network, (sample,), str(temporary), **arguments)
        graph_model = ir.load(temporary)
        adapt(graph_model, profile)
        if options.half:
            graph_model = _halved(graph_model)
        _apply(graph_model, options, profile, int(metadata.get("scale", 1)))
        require_rules(graph_model.graph, profile)
        model = ir.to_proto(graph_model)
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, temporary)


def write_source(network: nn.Module, path: Path, job: ExportJob) -> None:
    """`export_onnx` for an exporter: what runtimes and compilers are given, held against the network node by node.

    Raises:
        HwnasError: also if the graph computes something else than the network.
    """
    export_onnx(network, path, job.samples[0], job.metadata, job.profile, job.options)
    tolerance = SOURCE_TOLERANCE if _is_quantised(network) else FLOAT_TOLERANCE
    if job.options.half:
        tolerance = HALF_TOLERANCE
    require_source(network, OnnxArtifact(path, optimised=False), job.samples, tolerance)


def _is_quantised(network: nn.Module) -> bool:
    from brevitas.nn.mixin.base import QuantLayerMixin

    return any(isinstance(module, QuantLayerMixin) for module in network.modules())


def _apply(model: ir.Model, options: ExportOptions, profile: Profile, scale: int) -> None:
    if options.takes_bytes:
        bytes_in_and_out(model.graph, profile.integers == "signed")
    if options.pack_int4 and not pack_int4(model.graph):
        raise UsageError("--pack-int4: no layer has weights of 4 bits or fewer; leave it out")
    if options.size is not None:
        fix_size(model.graph, options.size, scale)
    RemoveUnusedNodesPass()(model)
    shorten_names(model.graph)


def _halved(model: ir.Model) -> ir.Model:
    """The network in 16-bit floats; what goes in and comes out stays as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on weights too small for sixteen bits
        from onnxruntime.transformers.float16 import convert_float_to_float16

        halved: ir.Model = ir.from_proto(convert_float_to_float16(ir.to_proto(model), keep_io_types=True))
    # It appends its casts.
    halved.graph.sort()
    return halved


class OnnxExporter(Exporter):
    """One .onnx file, verified in ONNX Runtime on the CPU."""

    name = "onnx"
    suffix = ".onnx"

    def write(self, network: nn.Module, path: Path, job: ExportJob) -> None:
        write_source(network, path, job)

    def notes(self, path: Path, profile: Profile) -> tuple[str, ...]:
        summary = summarise(path)
        sentences = [
            f"opset {summary.opset}; {summary.quantised_convolutions} integer and {summary.float_convolutions} float "
            "convolutions"
        ]
        if summary.packed:
            unpacked = (summary.size_bytes + summary.packed_bytes) / 1000
            sentences.append(
                f"weights of {summary.packed} layers are stored two in a byte, {unpacked:.0f} kB otherwise; runtimes "
                "compute these layers in float or in 8 bits, and no faster"
            )
        advice = {finding.message: finding.node for finding in reversed(check_model(path, profile))}
        sentences += [f"{node}: {message}" for message, node in advice.items()]
        return tuple(sentences)

    def open(self, path: Path) -> OnnxArtifact:
        return OnnxArtifact(path)


EXPORTERS.register(OnnxExporter.name)(OnnxExporter())


def summarise(path: Path) -> OnnxSummary:
    """Read what is in an ONNX file.

    Raises:
        HwnasError: if the file cannot be read or is not ONNX.
    """
    try:
        model = onnx.load(path)
    except OSError as error:
        raise HwnasError(f"cannot read {path}: {error.strerror}") from error
    except DecodeError as error:
        raise HwnasError(f"{path} is not an ONNX file, or is damaged; export the network again") from error
    integers = {tensor.name for tensor in model.graph.initializer if tensor.data_type in _INTEGER_TYPES}
    producers = {output: node for node in model.graph.node for output in node.output}

    def has_integer_weights(conv: onnx.NodeProto) -> bool:
        name = conv.input[1]
        while (node := producers.get(name)) is not None and node.op_type in ("DequantizeLinear", "Clip"):
            name = node.input[0]
        return name in integers

    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and not node.name.startswith(ENLARGE)]
    quantised = sum(map(has_integer_weights, convolutions))
    # Zero points are packed too, but there is one weight for each.
    packed = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT4 and len(t.dims) > 1]
    return OnnxSummary(
        opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        size_bytes=path.stat().st_size,
        quantised_convolutions=quantised,
        float_convolutions=len(convolutions) - quantised,
        packed=len(packed),
        packed_bytes=sum(len(tensor.raw_data) for tensor in packed),
    )
