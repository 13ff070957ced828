"""``hwnas export`` and ``hwnas check`` for every target, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from hwnas.exporters.openvino import OpenVinoExporter
from hwnas.exporters.parity import Tolerance

FAILURE, USAGE = 1, 2


@pytest.fixture(scope="session")
def for_jetson(hwnas: Any, tiny_training: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ESPCN in 8 bits, trained for integers that are signed everywhere."""
    path = tmp_path_factory.mktemp("for_jetson") / "run"
    answer = hwnas("train", "espcn", "--bits", "8", "--for", "jetson", *tiny_training, "--out", path)
    assert answer.code == 0, answer.err
    return Path(path)


def test_an_export_leaves_its_measurements_beside_the_file(hwnas: Any, espcn: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    answer = hwnas("export", espcn.path, "-o", path, "--json")
    assert answer.code == 0, answer.err
    report = json.loads((tmp_path / "model.onnx.json").read_text())
    assert report == answer.json
    assert (report["format"], report["target"], report["profile"]) == ("onnx", "cpu", "onnxruntime-cpu")
    assert report["size_bytes"] == path.stat().st_size
    assert report["runtime"].startswith("ONNX Runtime 1.")
    scores = report["scores"]
    assert scores["artifact"] == pytest.approx(scores["torch"], abs=0.01)
    assert scores["torch_float"] is not None and scores["images"] == 1


def test_a_benchmark_is_scored_as_evaluate_scores_it(hwnas: Any, espcn: Any, photographs: Path, tmp_path: Path) -> None:
    answer = hwnas("export", espcn.path, "-o", tmp_path / "model.onnx", "--data", photographs, "--json")
    assert answer.code == 0, answer.err
    scored = hwnas("evaluate", tmp_path / "model.onnx", "--data", photographs, "--json").json
    found = answer.json["scores"]
    assert (found["images"], found["artifact"], found["bicubic"]) == (4, scored["psnr"], scored["bicubic_psnr"])


@pytest.mark.parametrize("target", ["cpu", "jetson", "snapdragon", "openvino-cpu"])
def test_a_network_for_signed_integers_goes_everywhere(
    hwnas: Any, for_jetson: Path, tmp_path: Path, target: str
) -> None:
    path = tmp_path / "model.onnx"
    answer = hwnas(
        *("export", for_jetson, "--target", target, "--format", "onnx", "--input-size", "12x16", "-o", path, "--json")
    )
    assert answer.code == 0, answer.err
    assert answer.json["target"] == target
    checked = hwnas("check", path, "--target", target, "--json")
    assert (checked.code, checked.json["errors"]) == (0, 0)


def test_a_network_for_a_cpu_does_not_go_to_tensorrt(hwnas: Any, espcn: Any, tmp_path: Path) -> None:
    answer = hwnas("export", espcn.path, "--target", "jetson", "--format", "onnx", "-o", tmp_path / "model.onnx")
    message = answer.error(FAILURE)
    assert (
        "integers from 0 to 255" in message
        and "train the network for a target of that kind (hwnas train --for)" in message
    )
    assert list(tmp_path.iterdir()) == []


def test_a_check_names_what_is_broken(hwnas: Any, espcn: Any) -> None:
    answer = hwnas("check", espcn.path / "model.onnx", "--target", "jetson")
    assert answer.code == FAILURE
    assert (
        "symmetric" in answer.out
        and "error: " in answer.err
        and "export it by --target jetson --format onnx" in answer.err
    )
    found = hwnas("check", espcn.path / "model.onnx", "--target", "jetson", "--json")
    assert found.code == FAILURE
    assert found.json["errors"] == len([f for f in found.json["findings"] if f["level"] == "error"]) > 0
    nodes = {node.name for node in onnx.load(espcn.path / "model.onnx").graph.node}
    assert {f["node"] for f in found.json["findings"]} <= nodes


def test_bytes_and_halves(hwnas: Any, espcn: Any, low: Path, tmp_path: Path) -> None:
    for options in (("--uint8-io",), ("--fp16",), ("--uint8-io", "--fp16")):
        path = tmp_path / "model.onnx"
        answer = hwnas("export", espcn.path, *options, "-o", path)
        assert answer.code == 0, answer.err
        assert hwnas("upscale", path, low / "even.png", tmp_path / "large.png").code == 0
        assert Image.open(tmp_path / "large.png").size == (384, 384)


def test_a_file_of_one_size_is_scored_on_images_of_any(
    hwnas: Any, espcn: Any, tmp_path: Path, photographs: Path
) -> None:
    scores = []
    for size in ((), ("--input-size", "20x16"), ("--input-size", "30x40")):
        command = ("export", espcn.path, *size, "-o", tmp_path / "model.onnx", "--data", photographs, "--json")
        answer = hwnas(*command)
        assert answer.code == 0, answer.err
        scores.append(answer.json["scores"]["artifact"])
    # Photographs of 24x24: in windows that overlap the same, and almost the same where their sides are continued.
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)
    assert scores[2] == pytest.approx(scores[0], abs=0.1)


def test_an_openvino_file_is_verified_in_openvino(hwnas: Any, espcn: Any, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    answer = hwnas("export", espcn.path, "--target", "openvino-cpu", "-o", tmp_path / "model.xml", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["runtime"].startswith("OpenVINO 20")
    assert {path.name for path in tmp_path.iterdir()} == {"model.xml", "model.bin", "model.xml.json"}
    assert answer.json["size_bytes"] == sum((tmp_path / name).stat().st_size for name in ("model.xml", "model.bin"))


def test_nothing_is_left_of_an_openvino_file_that_computes_something_else(
    hwnas: Any, espcn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    monkeypatch.setattr(
        OpenVinoExporter,
        "tolerance",
        lambda *asked: Tolerance(-1, -1, share=1, detail=1),
    )
    answer = hwnas("export", espcn.path, "--target", "openvino-cpu", "-o", tmp_path / "model.xml")
    assert "does not compute what the network computes" in answer.only_error(FAILURE)
    assert list(tmp_path.iterdir()) == []


def test_adadm_is_frozen_when_asked_for_and_the_cost_told(
    hwnas: Any, tiny_training: tuple[str, ...], tmp_path: Path
) -> None:
    run, sets = tmp_path / "run", ("--set", "train.freeze=0")
    answer = hwnas("train", "quantnas-body3", "--bits", "8", "--no-bicubic", *tiny_training, *sets, "--out", run)
    assert answer.code == 0, answer.err
    reports = {}
    for name, asked in (("live", ()), ("frozen", ("--freeze-adadm",))):
        path = tmp_path / f"{name}.onnx"
        answer = hwnas("export", run, *asked, "-o", path, "--json")
        assert answer.code == 0, answer.err
        reports[name] = answer.json
    reduces = {
        name: any(node.op_type.startswith("Reduce") for node in onnx.load(tmp_path / f"{name}.onnx").graph.node)
        for name in reports
    }
    assert reduces == {"live": True, "frozen": False}
    assert "--freeze-adadm" in reports["live"]["notes"][0]
    psnr = {name: f"{report['scores']['torch']:.2f} dB" for name, report in reports.items()}
    told = f"AdaDM takes the statistics of training: {psnr['frozen']} in torch, {psnr['live']} with each image's own"
    assert reports["frozen"]["notes"][0] == told


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("--format", "gif"),
            USAGE,
            "no format is called 'gif'; there are: coreml, onnx, openvino, qnn, tensorrt, tflite",
        ),
        (("--target", "mars"), USAGE, "no target is called 'mars'"),
        (("-o", "model.gif"), USAGE, "must end in .onnx"),
        (("--input-size", "big"), USAGE, "'big' is not an input size"),
        (("--fp16", "--mixed"), USAGE, "choose one of --fp16 and --mixed"),
        (("--target", "openvino-cpu", "--pack-int4", "-o", "x.xml"), USAGE, "--pack-int4 is for ONNX files"),
        (("--target", "android", "--fp16", "-o", "x.tflite"), USAGE, "--fp16 cannot be had in TFLite files"),
        (("--format", "openvino", "-o", "x.xml"), USAGE, "openvino files are for --target openvino-cpu"),
        (
            ("--target", "ethos-u65", "--format", "qnn", "-o", "x.qnn.onnx"),
            USAGE,
            "qnn files are for --target snapdragon",
        ),
        (("-o", "model.qnn.onnx"), USAGE, "must end in .onnx"),
        (("--target", "jetson"), USAGE, "must end in .engine; for the graph alone, add --format onnx"),
        (("--data", "nowhere"), USAGE, "nowhere"),
        (("--pack-int4",), USAGE, "no layer has weights of 4 bits or fewer"),
        (("--freeze-adadm",), USAGE, "no AdaDM that takes statistics of each image"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    hwnas: Any, espcn: Any, arguments: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    output = () if "-o" in arguments else ("-o", tmp_path / "model.onnx")
    assert message in hwnas("export", espcn.path, *arguments, *output).error(code)


@pytest.mark.parametrize("content", [b"", b"not a network"])
def test_another_file_cannot_be_checked(hwnas: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.onnx").write_bytes(content)
    assert "other.onnx is not an ONNX file" in hwnas("check", tmp_path / "other.onnx").only_error(FAILURE)
    assert "there is no file" in hwnas("check", tmp_path / "none.onnx").only_error(USAGE)
