"""Weights from elsewhere: published files of tensors, as safetensors or as torch's own. No code in them is ever run."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hwnas.architecture import Architecture
from hwnas.checkpoints import is_ours, load_network
from hwnas.errors import HwnasError, UsageError, first_line
from hwnas.operators import FLOAT_BITS
from hwnas.operators.layers import FloatLayers

_NESTING = re.compile(r"^network\.|\.convolutions\.0(?=\.)")
"""What our names of tensors have more than those of files from elsewhere; behind luma, a one besides."""

_DAMAGED = (LookupError, AttributeError, TypeError, AssertionError, struct.error)

_FEW = 3
"""Tensors of a file that are named where it has others than it should have."""

_WRAPPERS = ("params_ema", "params", "state_dict")
"""What files of torch call the tensors where they hold something besides; the first that is there counts."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a ``.pth`` or ``.pt`` of torch, on the CPU.

    Raises:
        UsageError: if there is no such file.
        HwnasError: if it cannot be read, or holds anything else.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}; check the path")
    try:
        if path.suffix not in (".pth", ".pt"):
            return _unwrapped(load_file(path))
        data = torch.load(path, map_location="cpu", weights_only=True)
    # Each layer of torch's reader has exceptions of its own for files that are damaged.
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, *_DAMAGED) as error:
        # What torch says of a damaged .pth is how to run the code in it.
        why = "damaged, or not tensors alone" if isinstance(error, pickle.UnpicklingError) else first_line(error)
        raise HwnasError(
            f"cannot read {path}: {why}; expected tensors in a .safetensors file, or a .pth of torch"
        ) from error
    if isinstance(data, Mapping):
        data = next((data[name] for name in _WRAPPERS if isinstance(data.get(name), Mapping)), data)
    if not isinstance(data, Mapping) or not all(isinstance(t, Tensor) and not t.is_sparse for t in data.values()):
        raise HwnasError(f"{path} holds something else than tensors by name; get the weights alone")
    return _unwrapped(data)


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What several GPUs have trained has ``module.`` before all names."""
    return {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}


def load_weights(architecture: Architecture, path: Path) -> nn.Module:
    """A float network with the weights of a file, ours or a published one, in evaluation mode.

    Args:
        architecture: whose weights they are to be.
        path: of the file; its tensors have the names of the network's, or those without what only wraps it
            (``cells.0.blocks.1.conv.weight``, ``fuse.bias``), or those that the wiring knows as published.

    Raises:
        UsageError: if there is no such file.
        HwnasError: if it cannot be read, or the weights are of another network: names the first tensor, in the order
            of computation, that does not fit.
    """
    there = read_tensors(path)
    network = architecture.build(FloatLayers())
    other = f"{path} does not hold weights of {architecture.name} x{architecture.scale}"
    name_it = "name the network, and the --scale, that they are of"
    found: dict[str, Tensor] = {}
    taken = set()
    for ours, own in network.state_dict().items():
        plain = _NESTING.sub("", ours)
        published = architecture.wiring.published_names(plain)
        unwrapped = ours.removeprefix("network.")
        names = (ours, unwrapped, plain, plain.removeprefix("1."), *published)
        theirs = next((name for name in names if name in there), None)
        if theirs is None:
            lacks, has = " or ".join(dict.fromkeys(published or (plain,))), ", ".join(list(there)[:_FEW])
            raise HwnasError(f"{other}: it has no tensor {lacks}, its first are {has or 'none'}; {name_it}")
        if there[theirs].shape != own.shape:
            raise HwnasError(
                f"{other}: {theirs} is {list(there[theirs].shape)} there, and {list(own.shape)} in the network; "
                f"{name_it}"
            )
        found[ours] = there[theirs].to(own.dtype)
        taken.add(theirs)
        if not found[ours].isfinite().all():
            raise HwnasError(f"{path}: {theirs} has values that are no numbers; get the file anew")
    if left := sorted(there.keys() - taken):
        raise HwnasError(f"{other}, which has no {left[0]}; {name_it}")
    network.load_state_dict(found)
    return network.eval()


def _adds_bicubic(architecture: Architecture) -> bool:
    return bool(getattr(architecture.wiring, "bicubic", False))


def _said(architecture: Architecture) -> str:
    enlargement = "with" if _adds_bicubic(architecture) else "without"
    return f"{architecture.name} x{architecture.scale} {enlargement} the bicubic enlargement"


def float_weights(architecture: Architecture, path: Path) -> dict[str, Tensor]:
    """The tensors of a network, by their names in float, from a trained one of ours or a published one.

    Args:
        architecture: whose weights they are to be; its widths do not matter.
        path: of a file that `hwnas train` wrote, or one as of `load_weights`.

    Raises:
        UsageError: if there is no such file.
        HwnasError: if it cannot be read, or the weights are of another network.
    """
    twin = architecture.with_bits(FLOAT_BITS).model_copy(update={"name": architecture.name})
    if not is_ours(path):
        published = load_weights(twin, path).state_dict()
        if _adds_bicubic(architecture):
            raise HwnasError(
                f"{path} is of a network that makes the whole image, and {architecture.name} here adds to the bicubic "
                "enlargement; a published one does not with --no-bicubic"
            )
        return published
    record, trained = load_network(path)
    if record.architecture.with_bits(FLOAT_BITS).fingerprint != twin.fingerprint:
        theirs, ours = _said(record.architecture), _said(architecture)
        what = f"{theirs}, and not of {ours}" if theirs != ours else f"another {theirs}"
        raise HwnasError(f"{path} is of {what}; name weights of this one, or ask for that by --scale or --[no-]bicubic")
    state = trained.state_dict()
    return {name: state[name] for name in twin.build(FloatLayers()).state_dict()}
