"""This machine as a device: what is told of it, what is refused, and what is left behind."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from scipy import stats

from hwnas.devices import Device, Measurement, Timing, open_device, runner_device
from hwnas.devices.measurement import Fingerprint, paired_ratio
from hwnas.devices.runner.common import Refused
from hwnas.devices.runner.timing import median_interval, quantile
from hwnas.devices.runner.trtexec import parse_profile, parse_size, parse_times, parse_version
from hwnas.devices.target import load_target
from hwnas.errors import HwnasError
from hwnas.exporters import ExportOptions
from hwnas.exporters.onnx import export_onnx
from hwnas.operators.layers import FloatLayers
from hwnas.progress import Silent
from hwnas.spaces import named_architecture


def _device(target: str = "cpu", **changes: object) -> Device:
    return open_device(load_target(target).model_copy(update=changes))


def test_layers_are_those_of_the_runtime(espcn: Path) -> None:
    (found,) = _device().measure([espcn], Timing((48, 64), rounds=5, seconds=0, layers=True), Silent())
    convolutions = [layer for layer in found.layers if "Conv" in layer.kind]
    assert len(convolutions) == 3
    assert max(found.layers, key=lambda layer: layer.ms) in convolutions
    assert found.peak_bytes is not None and found.peak_bytes > 48 * 64 * 64 * 4, "one map of 64 channels at least"


def test_it_stops_when_it_is_certain_and_not_before_its_rounds(espcn: Path) -> None:
    (sure,) = _device().measure([espcn], Timing((16, 16), rounds=12, precision=10.0, enough=1, seconds=60), Silent())
    assert len(sure.rounds_ms) == 12
    (never,) = _device().measure([espcn], Timing((16, 16), rounds=3, precision=0.0, seconds=0.3), Silent())
    assert len(never.rounds_ms) > 3


@pytest.mark.parametrize("n", [6, 9, 25, 100, 500])
def test_the_interval_of_a_median_is_between_order_statistics(n: int) -> None:
    """The count of samples below the median is binomial; scipy knows its quantiles."""
    low, high = median_interval(random.Random(n).sample(range(n), n))  # type: ignore[misc]
    below = int(stats.binom.ppf(0.025, n, 0.5)) - 1
    assert (low, high) == (max(below, 0), n - 1 - max(below, 0))
    assert stats.binom.cdf(low, n, 0.5) <= 0.025
    assert median_interval([1.0] * 5) is None, "five cannot be certain to 95 %"


@pytest.mark.parametrize("n", [501, 1075, 5000, 100_000])
def test_the_interval_of_many_is_that_of_the_normal_limit(n: int) -> None:
    low, high = median_interval(random.Random(n).sample(range(n), n))  # type: ignore[misc]
    expected = stats.binom.ppf(0.025, n, 0.5) - 1
    assert abs(low - expected) <= 1 and low + high == n - 1


@pytest.mark.parametrize(("likeness", "least"), [(0.0, 0.92), (0.6, 0.86), (0.8, 0.8)])
def test_an_interval_of_turns_that_are_alike_is_wider(likeness: float, least: float) -> None:
    """Of a clock that drifts: x' = a x + noise. Taken for independent, they would hold 76 % and 58 % of the time."""
    rng, held, runs = random.Random(7), 0, 400
    for _ in range(runs):
        x, turns = rng.gauss(0, 1), []
        for _ in range(200):
            turns.append(x)
            x = likeness * x + math.sqrt(1 - likeness**2) * rng.gauss(0, 1)
        interval = median_interval(turns)
        held += interval is not None and interval[0] <= 0 <= interval[1]
    assert held / runs >= least


def test_an_interval_is_of_turns_and_not_of_the_inferences_within(espcn: Path) -> None:
    mark = Fingerprint(
        hardware="x", machine="y", system="z", runtime="r", runtime_version="1", provider="cpu", threads=1
    )
    turns = tuple((float(i),) * 50 for i in (1, 6, 2, 5, 3, 4))
    found = Measurement(method="measured", rounds_ms=turns, fingerprint=mark)
    assert found.interval == (1.0, 6.0), "300 inferences, but six turns"


def test_a_file_of_one_size_is_timed_at_no_other(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    network = named_architecture("espcn", 2).build(FloatLayers()).eval()
    export_onnx(network, path, torch.rand(1, 3, 8, 8), {"scale": "2"}, None, ExportOptions(size=(8, 12)))
    with pytest.raises(HwnasError, match="takes images of 8x12 only; time it with --input-size 8x12"):
        _device().measure([path], Timing((24, 32), rounds=1), Silent())
    assert _device().measure([path], Timing((8, 12), rounds=1, seconds=0), Silent())


def test_a_network_among_others_takes_what_it_takes_alone(espcn: Path) -> None:
    """Threads of those that wait do not take the cores of the one whose turn it is."""
    timing = Timing((90, 160), rounds=9, seconds=0)
    alone = _device(threads=2).measure([espcn], timing, Silent())[0].p50
    among = _device(threads=2).measure([espcn] * 8, timing, Silent())[0].p50
    assert among < 2.5 * alone, "four times, when they spin"


@pytest.mark.parametrize(("runtime", "provider"), [("litert", "gpu"), ("tensorrt", "cuda")])
def test_a_provider_that_a_runtime_does_not_have_is_refused(runtime: str, provider: str) -> None:
    with pytest.raises(HwnasError, match=f"only, not on {provider}"):
        _device(runtime=runtime, provider=provider).probe()


def test_percentiles_and_ratios() -> None:
    mark = Fingerprint(
        hardware="x", machine="y", system="z", runtime="r", runtime_version="1", provider="cpu", threads=1
    )
    one, two = (
        Measurement(method="measured", rounds_ms=rounds, fingerprint=mark)
        for rounds in (((2.0,), (4.0, 4.0), (8.0,)), ((1.0,), (2.0,), (4.0, 4.0)))
    )
    assert paired_ratio(one, two) == (2.0, None)
    assert one.p50 == 4 and quantile([1.0, 2.0], 0.25) == 1.25
    assert one.is_noisy and not Measurement(method="measured", rounds_ms=((1.0,),), fingerprint=mark).is_noisy
    few, enough = (Measurement(method="measured", rounds_ms=((1.0,),) * n, fingerprint=mark) for n in (9, 100))
    assert few.tail(90) is None and enough.tail(90) == enough.tail(99) == 1.0, "a tail has to have samples in it"


def test_a_provider_that_is_not_there_is_an_error_and_no_fall_back() -> None:
    with pytest.raises(HwnasError, match="has no CUDAExecutionProvider; it has .*CPUExecutionProvider"):
        _device("cuda").probe()


def test_an_emulator_is_not_timed() -> None:
    pytest.importorskip("onnxruntime_qnn", reason="the extra 'qnn' is not installed")
    with pytest.raises(HwnasError, match=r"has no QNNExecutionProvider|QNN emulates the HTP"):
        _device("snapdragon", connection="local").probe()


def test_what_is_no_network_of_super_resolution_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.onnx"
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ports = [value(name, onnx.TensorProto.FLOAT, [1, 5, None, None]) for name in "xy"]
    graph = onnx.helper.make_graph([node], "g", [ports[0]], [ports[1]])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    with pytest.raises(HwnasError, match="none of super-resolution"):
        _device().measure([path], Timing((8, 8), rounds=1), Silent())


def test_weights_in_another_file_are_sent_too(espcn: Path, tmp_path: Path) -> None:
    path, timing = tmp_path / "outside.onnx", Timing((24, 32), rounds=1, seconds=0)
    onnx.save(onnx.load(espcn), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert path.stat().st_size < espcn.stat().st_size / 2
    assert _device().measure([path], timing, Silent())
    model = onnx.load(espcn)
    kernel = model.graph.initializer.pop(0)
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [kernel.name], value=kernel))
    onnx.save(model, tmp_path / "constant.onnx", save_as_external_data=True, location="constant.bin",
              size_threshold=0, convert_attribute=True)  # fmt: skip
    assert (tmp_path / "constant.bin").stat().st_size > 1000
    assert _device().measure([tmp_path / "constant.onnx"], timing, Silent()), "a constant's value is a weight too"
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(HwnasError, match="keeps its weights in another file, which cannot be read"):
        _device().measure([path], timing, Silent())


def test_weights_outside_of_its_folder_are_not_read(espcn: Path, tmp_path: Path) -> None:
    """An ONNX file may name any file as its weights; this machine's secrets are not to be sent to a device."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "outside.onnx"
    onnx.save(onnx.load(espcn), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (folder / "weights.bin").rename(tmp_path / "secret")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(HwnasError, match="cannot be read"):
        _device().measure([path], Timing((24, 32), rounds=1, seconds=0), Silent())


def test_a_network_that_takes_half_precision_is_timed(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    kind = onnx.TensorProto.FLOAT16
    ports = [onnx.helper.make_tensor_value_info(name, kind, [1, 3, None, None]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [ports[0]], [ports[1]])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    assert _device().measure([path], Timing((24, 32), rounds=1, seconds=0), Silent())


def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(HwnasError, match=r"cannot start /none: No such file.*check the target's python"):
        _device(python="/none").probe()


def test_a_python_may_be_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").symlink_to(sys.prefix)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _device(python="~/own/bin/python").probe().fingerprint.runtime == "onnxruntime"


def test_kill_minus_nine_leaves_nothing(espcn: Path, tmp_path: Path, wait_for: Callable[..., None]) -> None:
    code = (
        "import sys; from pathlib import Path; from hwnas.devices import Timing, open_device\n"
        "from hwnas.devices.target import load_target; from hwnas.progress import Silent\n"
        "timing = Timing((180, 320), rounds=100000)\n"
        "open_device(load_target('cpu')).measure([Path(sys.argv[1])], timing, Silent())\n"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen([sys.executable, "-c", code, str(espcn)], env={**os.environ, "TMPDIR": str(temporary)})
    try:
        wait_for(lambda: any(temporary.glob("hwnas-*/0.onnx")), "the runner never got its file", 60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_for(lambda: not any(temporary.glob("hwnas-*")), "files are left")


def test_what_trtexec_exports_is_read() -> None:
    """In the form that its sources and documentation show; the program was not to be had."""
    trace = [
        {"startComputeMs": 0.1, "endComputeMs": 1.3, "h2dMs": 0.2, "computeMs": 1.2, "d2hMs": 0.1, "latencyMs": 1.5},
        {"startComputeMs": 1.4, "endComputeMs": 2.5, "h2dMs": 0.2, "computeMs": 1.1, "d2hMs": 0.1, "latencyMs": 1.4},
    ]
    assert parse_times(trace) == [1.2, 1.1]
    assert parse_times([{"computeMs": float(i)} for i in range(300)]) == [float(i) for i in range(100, 300)]
    with pytest.raises(Refused, match="no times"):
        parse_times([{"latency": 1.0}])
    profile = [{"count": 50}, {"name": "conv + relu", "timeMs": 55.0, "averageMs": 1.1, "percentage": 100.0}]
    said = "[I] Input binding for lr with dimensions 1x3x180x320 is created."
    assert parse_size(said) == (180, 320) and parse_size("nothing") is None
    assert parse_profile(profile) == [{"name": "conv + relu", "kind": "", "ms": 1.1}]


@pytest.mark.parametrize(("tag", "version"), [("v101300", "10.13.0"), ("v8601", "8.6.1"), ("v100001", "10.0.1")])
def test_the_version_of_trtexec_is_read(tag: str, version: str) -> None:
    assert parse_version(f"&&&& RUNNING TensorRT.trtexec [TensorRT {tag}] # trtexec --help") == version
    with pytest.raises(Refused, match="which TensorRT"):
        parse_version("usage: trtexec")


TRTEXEC = f"""#!{sys.executable}
import json, sys
options = dict(argument.partition("=")[::2] for argument in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v101300] # trtexec")
if "--onnx" in options:
    assert "--stronglyTyped" in options and options["--shapes"] == "lr:1x3x24x32"
    open(options["--saveEngine"], "wb").write(b"engine")
print("[I] Input binding for lr with dimensions 1x3x24x32 is created.")
if "--exportTimes" in options:
    assert "--noDataTransfers" in options and "--useSpinWait" in options
    assert open(options["--loadEngine"], "rb").read() == b"engine"
    json.dump([{{"computeMs": 1.0}}, {{"computeMs": 3.0}}], open(options["--exportTimes"], "w"))
if "--exportProfile" in options:
    json.dump([{{"count": 10}}, {{"name": "all", "averageMs": 2.0}}], open(options["--exportProfile"], "w"))
    # here it may fail, or hang
"""


def test_trtexec_is_given_the_graph_its_shapes_and_the_engine(
    espcn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = _with_trtexec(TRTEXEC, tmp_path, monkeypatch)
    (found,) = device.measure([espcn], Timing((24, 32), rounds=2, seconds=0, layers=True), Silent())
    assert found.rounds_ms == ((1.0, 3.0), (1.0, 3.0)) and found.p50 == 2.0
    assert found.fingerprint.runtime_version == "10.13.0" and found.layers[0].name == "all"
    (engine := tmp_path / "built.engine").write_bytes(b"engine")
    (found,) = device.measure([engine], Timing((24, 32), rounds=1, seconds=0), Silent())
    assert found.p50 == 2.0
    with pytest.raises(HwnasError, match="takes images of 24x32 only; time it with --input-size 24x32"):
        device.measure([engine], Timing((1080, 1920), rounds=1, seconds=0), Silent())


def test_trtexec_that_fails_says_why(espcn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = "    print('[E] Error[2]: no memory'); print('&&&& FAILED'); sys.exit(1)"
    device = _with_trtexec(TRTEXEC.replace("    # here it may fail, or hang", failing), tmp_path, monkeypatch)
    with pytest.raises(HwnasError, match=r"trtexec failed: \[E\] Error\[2\]: no memory"):
        device.measure([espcn], Timing((24, 32), rounds=2, seconds=0, layers=True), Silent())


def test_a_tensorrt_that_chooses_types_itself_builds_nothing(
    espcn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = _with_trtexec(TRTEXEC.replace("v101300", "v8601"), tmp_path, monkeypatch)
    with pytest.raises(HwnasError, match=r"TensorRT 8\.6\.1 there does not keep to the types of a graph"):
        device.measure([espcn], Timing((24, 32), rounds=1, seconds=0), Silent())


@pytest.mark.slow
def test_trtexec_that_hangs_is_ended(
    espcn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., None]
) -> None:
    hanging = "    import os, time; open(sys.argv[0] + '.pid', 'w').write(str(os.getpid())); time.sleep(600)"
    device = _with_trtexec(TRTEXEC.replace("    # here it may fail, or hang", hanging), tmp_path, monkeypatch)
    monkeypatch.setattr(runner_device, "PATIENCE", 0.01)
    with pytest.raises(HwnasError, match="it hangs"):
        device.measure([espcn], Timing((24, 32), rounds=2, seconds=0, layers=True), Silent())
    pid = (tmp_path / "trtexec.pid").read_text()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "trtexec is still there")


def _with_trtexec(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """This machine, with a stand-in that has the options and files of the documentation."""
    path = folder / "trtexec"
    path.write_text(program)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return _device("jetson", connection="local")
