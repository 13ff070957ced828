"""QuantNAS, table 1: uniform quantisation, EdMIPS and our search, by BitOps.

    python benchmarks/tables/quantnas_1.py --data t91-bsd200 --test Set14 --docs

Where the paper fixes a penalty and takes what comes out, our searches here are held to the published BitOps; EdMIPS has
the paper's penalty, and widths of weights and activations apart. BitOps are of all convolutions, as everywhere here;
those that the paper gives for SRResNet, and hence EdMIPS, are of another convention that it does not tell. All networks
add a bicubic enlargement, which is what makes short trainings useful; the paper's do not. Entropy, rates, and the part
of the training in which AdaDM is frozen, are those of the preset tiny.
"""

from __future__ import annotations

from driver import main
from published import RUN, Published, Row

SLOWER = ("--set", "train.learning_rate=0.0005")
"""SRResNet dies at the 0.002 of the preset tiny: held-out PSNR stands still from the first epoch on."""


def _uniform(network: str, bits: int, method: str, gbitops: float, psnr: float) -> Row:
    options = (*("--activations", "hwgq") * (method == "HWGQ"), *SLOWER * (network == "srresnet"))
    return Row(
        f"{network}-{method.lower()}-{bits}",
        {"network": network, "method": f"{method}, {bits} bits"},
        (("train", network, "--bits", str(bits), "--bicubic", *options),),
        {"GBitOps": gbitops, "Set14 dB": psnr},
    )


def _searched(cells: int, gbitops: float, psnr: float) -> Row:
    # Of 4.6 published it is really 4.629: room for what is rounded away.
    budget = f"{gbitops + 0.03:.2f}GBitOps"
    options = ("--cells", str(cells), "--bits", "4,8", "--residual", "adadm", "--bicubic", "--budget", budget)
    return Row(
        f"ours-{cells}",
        {"network": f"ours, {cells} cells", "method": "QuantNAS, 4 and 8 bits"},
        (("search", *options), ("train", RUN)),
        {"GBitOps": gbitops, "Set14 dB": psnr},
    )


def rows() -> list[Row]:
    mixed = ("search", "--fixed", "srresnet", "--separate", "--bits", "4,8", "--bicubic", "--quantization", "shared")
    mixed += ("--penalty", "1e-3", "--set", "search.entropy=0", "--set", "search.learning_rate=0.0005", *SLOWER)
    return [
        _uniform("espcn", 8, "LSQ", 2.3, 27.26),
        _uniform("espcn", 8, "HWGQ", 2.3, 27.00),
        _searched(3, 4.6, 27.814),
        _searched(6, 9.3, 27.988),
        _uniform("srresnet", 4, "LSQ", 23.3, 27.88),
        _uniform("srresnet", 4, "HWGQ", 23.3, 27.42),
        Row(
            "srresnet-edmips",
            {"network": "srresnet", "method": "EdMIPS, 4 and 8 bits"},
            (mixed, ("train", RUN)),
            {"GBitOps": 19.4, "Set14 dB": 27.919},
        ),
    ]


if __name__ == "__main__":
    title = "QuantNAS, table 1: uniform quantisation, EdMIPS and our search"
    note = (
        "The entropy term weighs 0.002 in ours, and 1e-4 in the paper; EdMIPS has none. SRResNet is searched and "
        "trained at a rate of 0.0005."
    )
    main(Published("quantnas-1", title, rows, note=note))
