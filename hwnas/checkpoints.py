"""Checkpoints on disk: trained networks that describe themselves, and the state that a killed run resumes from.

No pickle is ever loaded: weights are safetensors, resume states are read with ``weights_only=True``.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import nn

from hwnas.architecture import Architecture, load_architecture
from hwnas.errors import HwnasError, first_line, first_problem
from hwnas.files import atomic_path
from hwnas.networks.adadm import freeze_normalisation
from hwnas.operators.edge_oriented import merged_state
from hwnas.operators.layers import FloatLayers
from hwnas.quantization.placement import Placement
from hwnas.run_directory import RunDirectory


class NetworkRecord(BaseModel):
    """What has to be known besides the tensors to build a trained network again.

    Attributes:
        architecture: its architecture.
        activations: quantiser of the activations: learned scales or HWGQ's constant ones; irrelevant in float.
        placement: how much of eight bits quantisers use; irrelevant in float.
        frozen: AdaDM and its batch norm use running statistics; see `freeze_normalisation`.
        validation_psnr: of the network at this point, in dB.
    """

    model_config = ConfigDict(extra="forbid")

    architecture: Architecture
    activations: Literal["learned", "hwgq"] = "learned"
    placement: Placement = Placement()
    frozen: bool = False
    validation_psnr: float | None = None

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        if self.architecture.is_quantised:
            from hwnas.quantization.brevitas_layers import build_quantised

            network = build_quantised(self.architecture, self.activations, placement=self.placement)
        else:
            network = self.architecture.build(FloatLayers())
        if self.frozen:
            freeze_normalisation(network)
        return network


def save_network(path: Path, record: NetworkRecord, network: nn.Module) -> None:
    """Write a network and its record as one safetensors file, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in merged_state(network).items()}
    data = to_safetensors(tensors, metadata={"hwnas": record.model_dump_json()})
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def is_ours(path: Path) -> bool:
    """Whether `save_network` wrote a file."""
    try:
        with safe_open(path, framework="pt") as file:
            return "hwnas" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def load_network(path: Path) -> tuple[NetworkRecord, nn.Module]:
    """A network written by `save_network`, in evaluation mode.

    Raises:
        HwnasError: if the file is missing, damaged, or not one of ours.
    """
    if not path.is_file():
        raise HwnasError(f"there are no trained weights at {path}; train by `hwnas train {path.parent}`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
        record = NetworkRecord.model_validate_json(metadata["hwnas"])
        network = record.build()
        network.load_state_dict(tensors)
    except KeyError as error:
        raise HwnasError(f"{path} was not written by hwnas: it does not say which architecture it is of") from error
    except ValidationError as error:
        raise HwnasError(f"{path}: {first_problem(error)}") from error
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = first_line(error)
        raise HwnasError(f"{path} is damaged ({reason}); train again, or restore a copy") from error
    return record, network.eval()


def load_run_network(run: RunDirectory) -> tuple[NetworkRecord, nn.Module]:
    """The trained network of a run, in evaluation mode.

    Raises:
        HwnasError: as `load_network`, or if the run's architecture is no longer the one that was trained.
    """
    record, network = load_network(run.weights)
    stated = load_architecture(run.architecture) if run.architecture.is_file() else record.architecture
    if stated.fingerprint != record.architecture.fingerprint:
        raise HwnasError(
            f"{run.architecture} was changed after {run.weights} had been trained; train it with another --out, or "
            "restore it"
        )
    return record, network


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors, numbers, strings, and lists and dicts of them, atomically."""
    # Through memory: a full disk is then an OSError like any other, not torch's own.
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with atomic_path(path) as temporary, buffer.getbuffer() as view:
        temporary.write_bytes(view)


def load_state(path: Path) -> dict[str, Any]:
    """What `save_state` wrote, on the CPU.

    Raises:
        HwnasError: if it is damaged or holds anything but plain values and tensors.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise HwnasError(f"checkpoint {path} is damaged; delete it to begin this stage again with --resume") from error
    if not isinstance(state, dict):
        raise HwnasError(f"checkpoint {path} is not one of hwnas; delete it to begin this stage again with --resume")
    return state
