"""FALSR's published networks against the figures of the paper, the released weights, and an independent reading."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from hwnas.architecture import Architecture, parse_architecture
from hwnas.cost_models import cost_model
from hwnas.data.degradation import upscale
from hwnas.errors import HwnasError
from hwnas.evaluation import evaluate
from hwnas.inference import PublishedFALSR, TorchUpscaler
from hwnas.metrics import psnr
from hwnas.networks.falsr import FALSRWiring
from hwnas.networks.luma import LUMA, ReplaceLuma
from hwnas.networks.npu import for_neural_processors
from hwnas.networks.shuffle import DepthToSpace
from hwnas.operators import OperatorSpec, build_operator
from hwnas.operators.layers import FloatLayers
from hwnas.spaces import named_architecture
from hwnas.spaces.falsr import CELLS, Cell, assemble
from hwnas.weights import load_weights

SHARED = Path(__file__).resolve().parents[3] / "shared"
published = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared, with the published weights, is not there")


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "skips"),
    [("falsr-a", 1_021_401, 235.00, 13), ("falsr-b", 324_745, 74.50, 13), ("falsr-c", 426_569, 97.96, 8)],
)
def test_published_networks_have_the_published_size(name: str, parameters: int, macs: float, skips: int) -> None:
    architecture = named_architecture(name)
    assert cost_model("params").architecture_cost(architecture).value == parameters
    assert round(cost_model("flops").architecture_cost(architecture, (480, 480)).value / 1e9, 2) == macs
    wiring = architecture.wiring
    assert isinstance(wiring, FALSRWiring)
    assert sum(map(sum, wiring.macro)) == skips


def test_there_are_192_cells_160_of_them_distinct() -> None:
    assert len(set(CELLS)) == 192
    assert len({cell.canonical for cell in CELLS}) == 160
    assert len({cell.canonical.spec(32, False) for cell in CELLS}) == 160


@pytest.mark.parametrize("name", ["conv_f64_k3_b4", "dense_f64_k3_b4_isskip", "conv_f64_k3_b4_isskip_", ""])
def test_what_is_no_cell_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no cell of FALSR"):
        Cell.parse(name)


@published
@pytest.mark.parametrize("name", ["falsr-a", "falsr-b", "falsr-c"])
def test_the_wiring_reads_what_the_decoded_graph_reads(name: str) -> None:
    chromosome = json.loads((SHARED / "weights/falsr/chromosomes.json").read_text())[name.upper()]
    nodes = ["fea", *(f"cell{i}" for i in range(7))]
    wiring = named_architecture(name).wiring
    assert isinstance(wiring, FALSRWiring)
    inputs = [[nodes[i] for i in sources] for sources in wiring.inputs]
    assert inputs == list(chromosome["inputs"].values())
    assert [list(row) for row in wiring.macro] == chromosome["macro"]


# Written anew from the description of the network, on a plain dictionary of weights.


def conv(w: dict[str, Tensor], name: str, x: Tensor, groups: int = 1) -> Tensor:
    weight = w[f"{name}.weight"]
    return functional.conv2d(x, weight, w[f"{name}.bias"], padding=weight.shape[-1] // 2, groups=groups)


def reference_cell(w: dict[str, Tensor], i: int, cell: Cell, x: Tensor) -> Tensor:
    prefix = f"cells.{i}"
    outs = []
    if cell.kind == "conv_cell":
        for j in range(cell.repeats):
            x = conv(w, f"{prefix}.blocks.{j}.conv", x, cell.groups).relu()
            outs.append(x)
        return outs[0] + outs[-1] if cell.residual and cell.repeats > 1 else outs[-1]
    x = start = conv(w, f"{prefix}.supple", x)
    for j in range(cell.repeats):
        y = conv(w, f"{prefix}.blocks.{j}.expand", x).relu()
        y = conv(w, f"{prefix}.blocks.{j}.dw", y, y.shape[1]).relu()
        x = x + conv(w, f"{prefix}.blocks.{j}.project", y)
    return start + x if cell.residual and cell.repeats > 1 else x


def reference(w: dict[str, Tensor], cells: list[Cell], macro: list[list[int]], y: Tensor) -> Tensor:
    n = len(cells)
    nodes = [conv(w, "fea", y).relu()]

    def read(destination: int) -> Tensor:
        # c_i^j is 1 where the input of block i goes to the block after block j.
        chosen = {
            i - 1 for i in range(1, n + 1) for j in range(i, n + 1) if macro[i - 1][j - i] and j + 1 == destination
        }
        return torch.cat([nodes[k] for k in sorted(chosen | {destination - 1})], 1)

    for d in range(1, n + 1):
        nodes.append(reference_cell(w, d - 1, cells[d - 1], read(d)))
    x = conv(w, "fuse", read(n + 1)).relu() + nodes[0]
    batch, _, height, width = x.shape
    # Depth to space: channel (dy * 2 + dx) * 8 + c.
    x = x.reshape(batch, 2, 2, 8, height, width).permute(0, 3, 4, 1, 5, 2).reshape(batch, 8, 2 * height, 2 * width)
    return conv(w, "yout", x)


def plain_weights(network: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name.removeprefix("network.").replace("convolutions.0.", ""): tensor
        for name, tensor in network.state_dict().items()
    }


@pytest.mark.parametrize("seed", range(6))
def test_a_network_computes_what_its_description_says(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = 4
    cells = [CELLS[int(i)] for i in torch.randint(192, (n,), generator=generator)]
    macro = [torch.randint(2, (n - i,), generator=generator).tolist() for i in range(n)]
    network = assemble("random", cells, macro).build(FloatLayers())
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    y = torch.rand(2, 1, 9, 11, generator=generator)
    with torch.no_grad():
        assert isinstance(network.network, torch.nn.Module)
        torch.testing.assert_close(network.network(y), reference(plain_weights(network), cells, macro, y))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["falsr-b", "falsr-b-rgb"])
def test_other_scales_and_colours_build_and_train(name: str, scale: int) -> None:
    architecture = named_architecture(name, scale)
    network = architecture.build(FloatLayers())
    out = network(torch.rand(1, 3, 6, 7))
    assert out.shape == (1, 3, 6 * scale, 7 * scale)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert parse_architecture(architecture.model_dump_json(), "text") == architecture


def test_weights_start_as_published() -> None:
    network = named_architecture("falsr-a").build(FloatLayers())
    weights = torch.cat([p.flatten() for p in network.parameters() if p.dim() == 4])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert not any(p.any() for p in network.parameters() if p.dim() == 1)


def test_colours_are_those_of_the_bicubic_enlargement() -> None:
    network = named_architecture("falsr-b").build(FloatLayers()).eval()
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        out, large = network(x), functional.interpolate(x, scale_factor=2.0, mode="bicubic")
        y = network.network((x * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True))
    # Pb and Pr of BT.601, as scikit-image has them.
    chroma = torch.tensor([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    torch.testing.assert_close(
        torch.einsum("pc,bchw->bphw", chroma, out), torch.einsum("pc,bchw->bphw", chroma, large), atol=1e-5, rtol=0
    )
    luma = (out * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    torch.testing.assert_close(luma, y, atol=1e-6, rtol=0)


def test_a_grey_image_stays_grey() -> None:
    network = named_architecture("falsr-c").build(FloatLayers()).eval()
    grey = np.random.default_rng(0).integers(0, 256, (12, 12, 1)).astype(np.uint8).repeat(3, 2)
    out = TorchUpscaler(network)(grey)
    assert (out == out[..., :1]).all()


def test_depth_to_space_is_that_of_onnx() -> None:
    x = torch.rand(1, 12, 3, 4)
    node = onnx.helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2, mode="DCR")
    x_type, y_type = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xy")
    graph = onnx.helper.make_graph([node], "shuffle", [x_type], [y_type])
    (expected,) = ReferenceEvaluator(onnx.helper.make_model(graph)).run(None, {"x": x.numpy()})
    np.testing.assert_array_equal(DepthToSpace(2)(x).numpy(), expected)


@pytest.mark.parametrize("scale", [2, 3])
@pytest.mark.parametrize("name", ["falsr-b", "falsr-b-rgb"])
@pytest.mark.parametrize("bicubic", [False, True])
def test_the_form_for_neural_processors_computes_the_same(name: str, scale: int, bicubic: bool) -> None:
    network = named_architecture(name, scale, bicubic=bicubic).build(FloatLayers()).eval()
    x = torch.rand(1, 3, 10, 12)
    with torch.no_grad():
        torch.testing.assert_close(for_neural_processors(network)(x), network(x), atol=1e-5, rtol=1e-4)


def wiring_json(**changes: Any) -> str:
    data = json.loads(named_architecture("falsr-b").model_dump_json())
    data["wiring"].update(changes)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"macro": [[1]]}, "macro has rows of"),
        ({"macro": [[2, 1, 0, 0, 0, 1, 0], *[[0] * (6 - i) for i in range(6)]]}, "wiring.*macro"),
        ({"filters": []}, "filters"),
        ({"filters": [16] * 33}, "filters"),
        ({"filters": [10**9] * 7}, "filters"),
        ({"filters": [48] * 7}, "out_channels is 16; the wiring needs 48"),
        ({"colour": "cmyk"}, "colour"),
    ],
)
def test_a_wrong_wiring_is_refused_by_its_field(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(HwnasError, match=named):
        parse_architecture(wiring_json(**changes), "wrong.json")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kind": "conv_cell", "residual": True}, "leave 'residual' out"),
        ({"kind": "conv_cell", "hidden": 8}, "no 'hidden'"),
        ({"kind": "inverted_bottleneck"}, "needs 'hidden'"),
        ({"kind": "inverted_bottleneck", "hidden": 8, "groups": 2}, "no groups"),
        ({"kind": "conv", "repeats": 2}, "is no cell"),
        ({"kind": "growth", "hidden": 8, "repeats": 2}, "is no cell"),
    ],
)
def test_a_cell_that_cannot_be_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        build_operator(OperatorSpec(in_channels=8, out_channels=8, **fields), FloatLayers())


# The published weights


@published
def test_the_released_network_computes_the_golden_output() -> None:
    golden = np.load(SHARED / "weights/falsr/golden-A-Set5-img_002.npz")
    network = load_weights(named_architecture("falsr-a"), SHARED / "weights/falsr/FALSR-A.safetensors")
    with torch.inference_mode():
        y = network.network(torch.from_numpy(golden["y_in"])[None, None])[0, 0].numpy()
    np.testing.assert_allclose(y, golden["y_out"], atol=1e-5, rtol=0)


FIGURES = {
    "falsr-a": {"Set5": (37.8219, 0.95946), "Set14": (33.5484, 0.91683)},
    "falsr-b": {"Set5": (37.6140, 0.95852), "Set14": (33.2916, 0.91438)},
    "falsr-c": {"Set5": (37.6604, 0.95863), "Set14": (33.2593, 0.91401)},
}


def require_figures(name: str, images: str) -> None:
    network = load_weights(named_architecture(name), SHARED / f"weights/falsr/{name.upper()}.safetensors")
    assert isinstance(network, ReplaceLuma)
    found = evaluate(PublishedFALSR(network, 2), SHARED / "data" / images, 2)
    psnr, ssim = FIGURES[name][images]
    assert found.psnr == pytest.approx(psnr, abs=1e-3)
    assert found.ssim == pytest.approx(ssim, abs=1e-4)


@published
def test_networks_whose_luma_is_a_part_of_colours_are_scored_like_those_that_make_it() -> None:
    network = load_weights(named_architecture("falsr-b"), SHARED / "weights/falsr/FALSR-B.safetensors")
    image = np.asarray(Image.open(SHARED / "data/Set5/LRx2/img_005.png").convert("RGB"))
    a, b = PublishedFALSR(network, 2)(image), PublishedFALSR(nn.Sequential(network), 2)(image)
    # What is cut off rather than rounded may differ by a level where sums differ in the last bit.
    assert np.abs(a.astype(int) - b).max() <= 1 and np.mean(a != b) < 1e-3


@published
def test_the_published_figures_come_out() -> None:
    require_figures("falsr-b", "Set5")


@published
@pytest.mark.slow
@pytest.mark.parametrize("images", ["Set5", "Set14"])
@pytest.mark.parametrize("name", FIGURES)
def test_all_published_figures_come_out(name: str, images: str) -> None:
    require_figures(name, images)


@published
def test_the_released_network_beats_bicubic_in_colour_too() -> None:
    network = load_weights(named_architecture("falsr-b"), SHARED / "weights/falsr/FALSR-B.safetensors")
    lr, hr = (
        np.asarray(Image.open(SHARED / f"data/Set5/{part}/img_002.png").convert("RGB")) for part in ("LRx2", "HR")
    )
    assert psnr(TorchUpscaler(network)(lr), hr, 2) > psnr(upscale(lr, 2), hr, 2) + 5


def of(name: str) -> Architecture:
    return named_architecture(name)


@published
def test_weights_of_another_network_are_refused_by_the_first_tensor() -> None:
    weights = SHARED / "weights/falsr/FALSR-A.safetensors"
    with pytest.raises(HwnasError, match=r"has no tensor cells\.0\.supple\.weight"):
        load_weights(of("falsr-b"), weights)
    with pytest.raises(HwnasError, match=r"fea\.weight is \[32, 1, 3, 3\] there, and \[32, 3, 3, 3\] in the network"):
        load_weights(of("falsr-a-rgb"), weights)
    with pytest.raises(HwnasError, match="has no tensor upsample"):
        load_weights(named_architecture("falsr-a", 4), weights)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = plain_weights(of("falsr-c").build(FloatLayers()))
    state["cells.2.supple.bias"][3] = float("nan")
    save_file(state, tmp_path / "c.safetensors")
    with pytest.raises(HwnasError, match=r"cells\.2\.supple\.bias has values that are no numbers"):
        load_weights(of("falsr-c"), tmp_path / "c.safetensors")


def test_weights_that_are_too_large_for_the_network_are_refused(tmp_path: Path) -> None:
    state = {n: t.double() for n, t in plain_weights(of("falsr-c").build(FloatLayers())).items()}
    state["fea.weight"][0, 0, 0, 0] = 1e300
    save_file(state, tmp_path / "c.safetensors")
    with pytest.raises(HwnasError, match=r"fea\.weight has values that are no numbers"):
        load_weights(of("falsr-c"), tmp_path / "c.safetensors")


def test_weights_in_narrow_floats_are_read(tmp_path: Path) -> None:
    state = {n: t.to(torch.float8_e4m3fn) for n, t in plain_weights(of("falsr-c").build(FloatLayers())).items()}
    save_file(state, tmp_path / "c.safetensors")
    network = load_weights(of("falsr-c"), tmp_path / "c.safetensors")
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_weights_with_a_tensor_too_many_are_refused(tmp_path: Path) -> None:
    state = plain_weights(of("falsr-b").build(FloatLayers()))
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "b.safetensors")
    load_weights(of("falsr-b"), tmp_path / "b.safetensors")
    save_file({**state, "zz.extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(HwnasError, match="has no zz.extra"):
        load_weights(of("falsr-b"), tmp_path / "more.safetensors")


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 64])
def test_a_damaged_weights_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(HwnasError, match=r"cannot read .*w\.safetensors"):
        load_weights(of("falsr-b"), tmp_path / "w.safetensors")
    with pytest.raises(HwnasError, match=r"there is no file .*absent\.safetensors"):
        load_weights(of("falsr-b"), tmp_path / "absent.safetensors")
