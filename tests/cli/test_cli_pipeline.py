"""From photographs to enlarged photographs, as one command and step by step."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from PIL import Image
from safetensors import safe_open
from scipy.ndimage import zoom
from skimage.metrics import peak_signal_noise_ratio

from hwnas.exporters.onnx import summarise

BUDGET_BITOPS = 50e6


def _front(run: Path) -> list[dict[str, str]]:
    with (run / "front.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(np.int16)


def _integer_weights(path: Path) -> int:
    """Weights of four dimensions that an ONNX file stores as integers."""
    kinds = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    return sum(t.data_type in kinds and len(t.dims) == 4 for t in onnx.load(path).graph.initializer)


# One command.


def test_a_run_leaves_all_that_was_promised(finished: Any) -> None:
    names = {path.name for path in finished.path.iterdir()}
    promised = (
        "config.yaml",
        "architecture.json",
        "front.csv",
        "weights.safetensors",
        "model.onnx",
        "summary.md",
    )
    assert set(promised) <= names
    stages = {path.parent.name for path in (finished.path / "events").rglob("events.out.tfevents.*")}
    assert stages == {"search", "train"}
    assert {path.name for path in finished.path.rglob(".*")} == {".lock"}, "temporary files stay behind"


def test_json_is_one_object_and_nothing_else_on_stdout(finished: Any) -> None:
    found = finished.answer.json
    assert finished.answer.out.count("\n") == 1
    assert Path(found["model"]) == finished.path / "model.onnx"
    assert found["bicubic_psnr"] > 20
    assert found["psnr"] > 20
    assert "Traceback" not in finished.answer.err
    assert "Warning" not in finished.answer.err


def test_the_front_ascends_and_has_one_chosen_point_within_the_budget(finished: Any) -> None:
    rows = _front(finished.path)
    costs = [float(row["bitops"]) for row in rows]
    assert costs == sorted(costs)
    chosen = [row for row in rows if row["chosen"] == "1"]
    assert len(chosen) == 1
    assert float(chosen[0]["bitops"]) <= BUDGET_BITOPS
    files = [json.loads((finished.path / row["architecture"]).read_text()) for row in rows]
    architecture = json.loads((finished.path / "architecture.json").read_text())
    assert [file["operators"] for file in files].count(architecture["operators"]) == 1


def test_cost_counts_of_the_chosen_architecture_what_the_front_states(hwnas: Any, finished: Any) -> None:
    chosen = next(row for row in _front(finished.path) if row["chosen"] == "1")
    assert hwnas("cost", finished.path, "--json").json["value"] == float(chosen["bitops"])


def test_the_settings_of_a_run_are_stored(finished: Any) -> None:
    settings = yaml.safe_load((finished.path / "config.yaml").read_text())
    assert settings["budgets"] == ["50MBitOps"]
    assert settings["space"]["channels"] == 6
    assert settings["search"]["epochs"] == 3
    assert settings["train"]["crop"] == settings["search"]["crop"] == 8


def test_the_summary_states_the_measured_and_the_counted(finished: Any) -> None:
    page = (finished.path / "summary.md").read_text()
    found = finished.answer.json
    for number in (f"{found['psnr']:.2f}", f"{found['bicubic_psnr']:.2f}", "50 MBitOps", "seed 0"):
        assert number in page
    assert "| bitops at 32x32 |" in page and "| params |" in page


def test_the_model_describes_itself_and_passes_the_checker(finished: Any) -> None:
    model = onnx.load(finished.path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["scale"] == "4"


def test_weights_carry_their_architecture(finished: Any) -> None:
    with safe_open(finished.path / "weights.safetensors", framework="np") as file:
        record = json.loads(file.metadata()["hwnas"])
    assert record["architecture"] == json.loads((finished.path / "architecture.json").read_text())


# Step by step.


def test_search_train_export_evaluate_upscale(hwnas: Any, run: Path, low: Path, photographs: Path) -> None:
    # What `hwnas run` made after its search is made again by hand.
    before = (run / "weights.safetensors").read_bytes()
    for name in ("weights.safetensors", "model.onnx", "summary.md", "train/state.pt"):
        (run / name).unlink()
    trained = hwnas("train", run, "--json")
    assert trained.code == 0, trained.err
    assert set(trained.json) == {"run", "weights", "validation_psnr", "bicubic_psnr"}
    assert (run / "weights.safetensors").read_bytes() == before

    for option in ("--mixed", "--int8", "--fp32"):
        path = run / f"model{option}.onnx"
        exported = hwnas("export", run, option, "-o", path, "--json")
        assert exported.code == 0, exported.err
        found = exported.json
        assert found["parity"]["mean"] <= found["parity"]["tolerance_mean"]
        held = summarise(path)
        quantised, floating = held.quantised_convolutions, held.float_convolutions
        assert (quantised, floating) == ((0, floating) if option == "--fp32" else (quantised, 0))
        assert _integer_weights(path) == quantised
        scored = hwnas("evaluate", path, "--data", photographs, "--json")
        assert scored.code == 0, scored.err
        out = run / f"large{option}.png"
        enlarged = hwnas("upscale", path, low / "odd.png", out)
        assert enlarged.code == 0, enlarged.err
        assert Image.open(out).size == (63 * 4, 71 * 4)


def test_search_says_what_it_chose(searched: Any) -> None:
    found = searched.answer.json
    assert found["costs"]["bitops"] <= BUDGET_BITOPS
    assert Path(found["architecture"]).is_file()
    assert Path(found["front"]).is_file()
    assert not (searched.path / "weights.safetensors").exists()


def test_run_and_search_with_the_same_seed_find_the_same(finished: Any, searched: Any) -> None:
    for name in ("architecture.json", "front.csv"):
        assert (finished.path / name).read_bytes() == (searched.path / name).read_bytes()


def test_a_published_network_is_trained_in_eight_bits(espcn: Any) -> None:
    operators = json.loads((espcn.path / "architecture.json").read_text())["operators"]
    assert {(o["weight_bits"], o["activation_bits"]) for o in operators.values()} == {(8, 8)}
    assert _integer_weights(espcn.path / "model.onnx") == 3


def test_a_float_network_is_calibrated_for_integers_and_refused_as_mixed(
    hwnas: Any, tiny: tuple[str, ...], photographs: Path, tmp_path: Path
) -> None:
    run = tmp_path / "float"
    budget = ("--space", "quantnas-float", "--budget", "30GFLOPs")
    found = hwnas("run", *tiny, *budget, "--out", run, "--json")
    assert found.code == 0, found.err
    assert _integer_weights(run / "model.onnx") == 0

    refused = hwnas("export", run, "--mixed", "-o", tmp_path / "mixed.onnx")
    assert refused.code == 2
    assert refused.err.startswith("error: the network was trained in float")
    assert not (tmp_path / "mixed.onnx").exists()

    calibrated = hwnas("export", run, "--int8", "-o", tmp_path / "int8.onnx")
    assert calibrated.code == 0, calibrated.err
    assert "calibrated to 8 bits" in calibrated.out
    assert _integer_weights(tmp_path / "int8.onnx") > 0
    exact, rounded = (
        hwnas("evaluate", path, "--data", photographs, "--json").json["psnr"]
        for path in (run / "model.onnx", tmp_path / "int8.onnx")
    )
    assert rounded == pytest.approx(exact, abs=1)


def test_two_kinds_of_numbers_at_once_are_refused(hwnas: Any, finished: Any) -> None:
    answer = hwnas("export", finished.path, "--int8", "--fp32")
    assert answer.code == 2
    assert answer.err == "error: choose one of --fp32 and --int8\n"


# Evaluate.


def test_bicubic_is_scored_against_itself(hwnas: Any, photographs: Path) -> None:
    answer = hwnas("evaluate", "bicubic", "--data", photographs, "--scale", "2", "--json")
    found = answer.json
    assert (found["psnr"], found["ssim"]) == (found["bicubic_psnr"], found["bicubic_ssim"])
    assert [image["name"] for image in found["images"]] == ["0.png", "1.png", "2.png", "3.png"]
    mean = sum(image["psnr"] for image in found["images"]) / 4
    assert found["psnr"] == pytest.approx(mean)
    table = hwnas("evaluate", "bicubic", "--data", photographs, "--scale", "2").out
    assert f"{mean:.2f}" in table


def test_bicubic_scores_what_scikit_image_measures(hwnas: Any, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "HR").mkdir()
    (tmp_path / "LRx2").mkdir()
    hr = _pixels(photographs / "0.png").astype(np.uint8)
    lr = np.asarray(Image.fromarray(hr).resize((48, 48), Image.Resampling.BICUBIC))
    Image.fromarray(hr).save(tmp_path / "HR" / "0.png")
    Image.fromarray(lr).save(tmp_path / "LRx2" / "0.png")
    enlarged = hwnas("upscale", "bicubic", tmp_path / "LRx2" / "0.png", tmp_path / "sr.png", "--scale", "2")
    assert enlarged.code == 0, enlarged.err
    # Luma as MATLAB's rgb2ycbcr makes it of bytes: in bytes.
    weights = np.array([65.481, 128.553, 24.966]) / 255
    files = (tmp_path / "HR" / "0.png", tmp_path / "sr.png")
    luma = [np.round(_pixels(path) @ weights + 16)[2:-2, 2:-2] for path in files]
    expected = peak_signal_noise_ratio(*luma, data_range=255)
    found = hwnas("evaluate", "bicubic", "--data", tmp_path, "--scale", "2", "--json").json
    assert found["psnr"] == pytest.approx(expected, abs=0.002)


def test_the_exported_model_scores_what_the_run_scores(hwnas: Any, espcn: Any, photographs: Path) -> None:
    torch, onnx_ = (
        hwnas("evaluate", network, "--data", photographs, "--json").json
        for network in (espcn.path, espcn.path / "model.onnx")
    )
    assert {"psnr", "ssim", "bicubic_psnr", "images"} <= set(torch)
    assert onnx_["psnr"] == pytest.approx(torch["psnr"], abs=0.01)
    assert onnx_["ssim"] == pytest.approx(torch["ssim"], abs=0.001)
    assert onnx_["bicubic_psnr"] == torch["bicubic_psnr"]


# Upscale.


@pytest.mark.parametrize("model", ["", "model.onnx", "weights.safetensors"])
def test_tiles_make_the_image_that_the_whole_makes(
    hwnas: Any, espcn: Any, low: Path, tmp_path: Path, model: str
) -> None:
    for tile in ("0", "16"):
        answer = hwnas("upscale", espcn.path / model, low, tmp_path / tile, "--tile", tile)
        assert answer.code == 0, answer.err
    for name in ("even.png", "odd.png"):
        whole, tiled = (_pixels(tmp_path / tile / name) for tile in ("0", "16"))
        assert whole.std() > 1, "a flat image would prove nothing"
        assert np.abs(whole - tiled).max() <= 1


def test_tiles_of_a_searched_network_fit_together(hwnas: Any, finished: Any, low: Path, tmp_path: Path) -> None:
    for tile in ("0", "16"):
        answer = hwnas("upscale", finished.path, low / "even.png", tmp_path / f"{tile}.png", "--tile", tile)
        assert answer.code == 0, answer.err
    assert np.abs(_pixels(tmp_path / "0.png") - _pixels(tmp_path / "16.png")).max() <= 1


def test_the_enlargement_is_the_photograph(hwnas: Any, finished: Any, low: Path, tmp_path: Path) -> None:
    assert hwnas("upscale", finished.path, low / "even.png", tmp_path / "large.png").code == 0
    large, small = _pixels(tmp_path / "large.png"), _pixels(low / "even.png")
    assert large.shape == (384, 384, 3)
    assert peak_signal_noise_ratio(zoom(small, (4, 4, 1), order=1, mode="nearest"), large, data_range=255) > 20


def test_a_folder_is_enlarged_into_a_folder(hwnas: Any, low: Path, tmp_path: Path) -> None:
    answer = hwnas("upscale", "bicubic", low, tmp_path / "large", "--scale", "3")
    assert answer.code == 0, answer.err
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "large").iterdir()}
    assert sizes == {"even.png": (288, 288), "odd.png": (189, 213)}
    assert answer.out == ""
