"""Half-wave Gaussian quantisation (HWGQ): a ReLU and a uniform quantiser with a constant step for each width.

Source: Cai et al., "Deep learning with low precision by half-wave Gaussian quantization" (CVPR 2017). The
steps are the MSE-optimal ones for a ReLU of a standard normal distribution, so they expect maps of about unit
variance.
"""

from __future__ import annotations

from torch import Tensor

from hwnas.quantization.lsq import fake_quantise, integer_range

HWGQ_STEP: dict[int, float] = {
    2: 0.65077,
    3: 0.35341,
    4: 0.19325,
    5: 0.10549,
    6: 0.05726,
    7: 0.03087,
    8: 0.01653,
}
"""Bits to step. QuantNAS publishes them with gaps at 5, 6 and 7, filled here by the same optimum."""


def hwgq_quantise(x: Tensor, bits: int) -> Tensor:
    """ReLU, rounded to multiples of the step of ``bits`` and clipped at the largest of them.

    The gradient is that of HWGQ's clipped ReLU: it passes between zero and the largest level, and only there.

    Args:
        x: any shape, before its ReLU.
        bits: width, 2..8.
    """
    low, high = integer_range(bits, signed=False)
    return fake_quantise(x, x.new_tensor(HWGQ_STEP[bits]), low, high)
