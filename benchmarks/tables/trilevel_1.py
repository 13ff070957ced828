"""TrilevelNAS, table 1: what the published networks cost, and what they score when they are trained here.

    python benchmarks/tables/trilevel_1.py --data t91-bsd200 --test Set5 --test Set14 --docs

The paper's are trained on DIV2K, towards ESRGAN and then with a perceptual loss; here on those given, with a bicubic
enlargement added. Its AGD is one that its authors searched anew; `agd` here is that of AGD's own, for which they tell
0.41 M parameters and 108.6 GMACs. SRGAN's network is SRResNet. Of the pruned ESRGAN, TPSR and AGD-AutoDeepLab there are
no architectures.
"""

from __future__ import annotations

from driver import main
from published import Published, Row

from hwnas.spaces.lookup import find_architecture

PUBLISHED = {
    "esrgan": (16.70, 1176.6, 30.44, 26.28),
    "srresnet": (1.52, 166.7, 29.40, 26.02),
    "agd": (0.56, 117.7, 30.36, 27.21),
    "trilevel-a": (0.34, 117.4, 30.34, 27.29),
    "trilevel-b": (0.24, 15.4, 29.80, 27.06),
}
"""Millions of parameters, GMACs at 256x256, PSNR on Set5 and Set14."""


def _row(name: str, trained: bool) -> Row:
    millions, gmacs, *psnrs = PUBLISHED[name]
    labels = {"network": name, "trained here": "yes" if trained else "no"}
    published = {"K parameters": 1000 * millions, "GMACs": gmacs, "Set5 dB": psnrs[0], "Set14 dB": psnrs[1]}
    if trained:
        return Row(f"{name}-trained", labels, (("train", name, "--bicubic"),), published, series=name)
    return Row(name, labels, (), published, architecture=lambda: find_architecture(name))


def rows() -> list[Row]:
    return [*(_row(name, False) for name in PUBLISHED), *(_row(name, True) for name in ("trilevel-b", "agd"))]


if __name__ == "__main__":
    title = "TrilevelNAS, table 1: what the published networks cost, and score when they are trained here"
    note = "The paper's `agd` is one that its authors searched anew; its SRGAN is `srresnet`."
    main(Published("trilevel-1", title, rows, x="GMACs 256x256", note=note))
