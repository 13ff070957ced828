"""Targets: those that come with hwnas, the user's own, and what they compute in."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas.cost_models import cost_model
from hwnas.devices.target import Target, add_target, load_target, make_target, read_target, target_names
from hwnas.errors import HwnasError, UsageError
from hwnas.operators import OperatorSpec
from hwnas.spaces import named_architecture

SHIPPED = ["android", "cpu", "cuda", "ethos-u65", "ethos-u85", "jetson", "openvino-cpu", "openvino-npu", "snapdragon"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWNAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_those_that_come_with_it_are_sound() -> None:
    assert target_names() == SHIPPED
    for name in SHIPPED:
        target = load_target(name)
        assert make_target(target.model_dump(), name) == target


def test_one_of_your_own_is_found_and_may_take_the_place_of_a_shipped_one(home: Path) -> None:
    board = load_target("jetson").model_copy(update={"name": "board", "host": "me@board", "compute_bits": (8, 16)})
    assert add_target(board) == home / "targets" / "board.toml"
    assert load_target("board") == board and "board" in target_names()
    add_target(load_target("cpu").model_copy(update={"threads": 4, "description": 'fast \U0001f680 "one"'}))
    assert load_target("cpu").threads == 4 and target_names().count("cpu") == 1


def test_what_has_a_host_is_not_this_machine(home: Path) -> None:
    board = make_target({**load_target("cpu").model_dump(), "name": "board", "host": "me@board"}, "board")
    assert board.connection == "ssh" and load_target("cpu").connection == "local"
    phone = make_target({**load_target("android").model_dump(), "name": "phone", "host": "1234"}, "phone")
    assert phone.connection == "adb"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runtime = ", "is not TOML"),
        ("\xff\xfe", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("", "Field required"),
        ("host = 3", "host"),
        ("wings = 2", "'wings' is no setting of a target; there are: .*threads"),
        ("threads = 0", "threads"),
        ("compute_bits = [32, 8]", "no widths in ascending order"),
        ("compute_bits = [9]", "no widths in ascending order"),
        ('connection = "telnet"', "connection"),
        ('runtime = "spells"', "runtime 'spells' is not known; there are: .*onnxruntime"),
        ('artifact = "scroll"', "artifact 'scroll' is not known"),
        ('profile = "side"', "profile 'side' is not known"),
        ('name = "other"', "name 'other' is not the file's"),
    ],
)
def test_a_damaged_one_is_named_with_what_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    lines = {
        "description": '"x"',
        "runtime": '"onnxruntime"',
        "artifact": '"onnx"',
        "profile": '"onnxruntime-cpu"',
        "compute_bits": "[8]",
    }
    if text and "=" in text:
        lines.pop(text.partition(" =")[0], None)
        text = "".join(f"{key} = {value}\n" for key, value in lines.items()) + text
    path.write_text(text, encoding="latin-1")
    with pytest.raises(HwnasError, match=rf"mine\.toml.*{message}"):
        read_target(path)


def test_one_that_is_not_there_is_a_matter_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        read_target(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="no target is called 'toaster'; there are: android, .*hwnas targets add"):
        load_target("toaster")


@pytest.mark.parametrize(
    ("bits", "computes", "effective"),
    [
        ((8, 32), (4, 4), 8),
        ((8, 32), (8, 8), 8),
        ((8, 32), (4, 8), 8),
        ((8, 32), (8, 32), 32),
        ((4, 8), (3, 2), 4),
        ((8,), (32, 32), 8),
        ((32,), (8, 8), 32),
    ],
)
def test_widths_are_rounded_up_to_one_that_is_there(
    bits: tuple[int, ...], computes: tuple[int, int], effective: int
) -> None:
    spec = OperatorSpec(kind="conv", in_channels=3, out_channels=8).with_bits(*computes)
    target = Target.model_validate({**load_target("cpu").model_dump(), "compute_bits": bits})
    assert target.computes(spec) == effective
    macs = 3 * 8 * 9 * 10 * 10
    assert target.effective_bitops(spec, computes[0] * computes[1] * macs) == effective**2 * macs


def test_effective_bitops_are_those_of_a_network_of_wider_layers() -> None:
    """QuantNAS's published network has 4-bit bodies: where these are computed in 8 bits, it costs what 8 bits do."""
    nominal = named_architecture("quantnas-body3")
    wide = nominal.with_bits(8)
    bitops, effective = cost_model("bitops"), cost_model("effective-bitops@jetson")
    assert effective.architecture_cost(nominal).value == bitops.architecture_cost(wide).value
    assert bitops.architecture_cost(nominal).value < bitops.architecture_cost(wide).value
    assert effective.architecture_cost(wide).value == bitops.architecture_cost(wide).value
