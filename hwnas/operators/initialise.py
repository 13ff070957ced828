"""How convolutions start, where a network only adds detail to a bicubic enlargement.

Convolutions without biases, ReLUs before them and a target of zero mean have a trap: while the output is worse than
nothing, the nearest way down is to shut every ReLU, and short trainings never leave that (measured: bicubic's PSNR to
the digit after 500 steps). So the first convolution starts blind to brightness, which is no detail; branches and the
one that makes the pixels start small, when there is little to get rid of; and the output counts for little, so that
steps of Adam do not make it worse than nothing (`hwnas.networks.bicubic.DETAIL`).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Start = Literal["torch", "normal", "features", "detail", "branch", "pixels"]
"""``torch``: its own initialisation, as published; ``normal``: a deviation of 0.02, without biases (FALSR, section
VI-A); ``features``: normal, keeping the variance through ReLUs, without biases; ``detail``: as features, blind to
brightness; ``branch``: as features, but small at the end, for one of many residual branches, whose sum would explode;
``pixels``: as features, but close to zero at the end."""

DETAIL_GAIN = 4.0
BRANCH_GAIN = 0.3
LAST_GAIN: dict[Start, float] = {"branch": BRANCH_GAIN, "pixels": 0.1}
"""Of the operator's last convolution alone, so that candidates of one and of three convolutions start alike."""

NORMAL = 0.02


@torch.no_grad()
def initialise(operator: nn.Module, start: Start) -> None:
    """Draw the weights of an operator's convolutions anew.

    Args:
        operator: float, quantised or of a supernet; its convolutions registered in the order of computation.
        start: what the operator is for.
    """
    if start == "torch":
        return
    # By module: learned quantisation steps are parameters of four dimensions too.
    found = [(getattr(m, "weight", None), getattr(m, "bias", None)) for m in operator.modules()]
    convolutions = [(w, b) for w, b in found if isinstance(w, nn.Parameter) and w.dim() == 4]
    if not convolutions:
        return
    for weight, bias in convolutions:
        if start == "normal":
            nn.init.normal_(weight, std=NORMAL)
        else:
            nn.init.kaiming_normal_(weight)
        if bias is not None:
            bias.zero_()
    if start == "normal":
        return
    first, last = convolutions[0][0], convolutions[-1][0]
    # A kernel of one weight cannot be blind, and must not be zero.
    if start == "detail" and first[0].numel() > 1:
        first.sub_(first.mean((1, 2, 3), keepdim=True)).mul_(DETAIL_GAIN)
    last.mul_(LAST_GAIN.get(start, 1.0))
    # Cells add up maps of their own.
    for end in getattr(operator, "branch_ends", ()):
        end.weight.mul_(BRANCH_GAIN)
