"""Registries with real plugins."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from hwnas.errors import UsageError
from hwnas.registry import Registry


def registry(group: str = "hwnas_tests.nobody") -> Registry[int]:
    things: Registry[int] = Registry("thing", group)
    things.register("two")(2)
    things.register("one")(1)
    return things


def test_a_registered_object_is_found_and_can_be_forgotten() -> None:
    things = registry()
    assert things["one"] == 1
    assert sorted(things) == ["one", "two"]
    assert "one" in things and "three" not in things
    things.remove("one")
    assert "one" not in things


def test_an_unknown_name_is_answered_with_the_known() -> None:
    with pytest.raises(UsageError, match="no thing is called 'three'; there are: one, two"):
        registry()["three"]


def test_a_name_is_taken_once() -> None:
    things = registry()
    with pytest.raises(ValueError, match="thing 'one' is registered already"):
        things.register("one")(3)
    assert things["one"] == 1


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed distribution with one plugin that works, some that do not, and one that shadows a built-in."""
    (tmp_path / "hwnas_tests_plugin.py").write_text("three = 3\nhundred = 100\n")
    (tmp_path / "hwnas_tests_broken.py").write_text("import a_module_that_nobody_has\n")
    info = tmp_path / "hwnas_tests_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hwnas-tests-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hwnas_tests.things]\n"
        "three = hwnas_tests_plugin:three\n"
        "one = hwnas_tests_plugin:hundred\n"
        "four = hwnas_tests_broken:four\n"
        "five = hwnas_tests_plugin:five\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hwnas_tests_plugin", raising=False)
    return "hwnas_tests.things"


def test_a_plugin_is_found_and_broken_ones_are_named_in_a_warning_and_skipped(plugins: str) -> None:
    things = registry(plugins)
    with pytest.warns(UserWarning) as caught:
        assert things["three"] == 3
    messages = sorted(str(w.message) for w in caught)
    assert len(messages) == 2
    assert "thing plugin 'five' (hwnas_tests_plugin:five) is broken and skipped" in messages[0]
    assert "thing plugin 'four' (hwnas_tests_broken:four) is broken and skipped" in messages[1]
    assert "a_module_that_nobody_has" in messages[1]
    assert sorted(things) == ["one", "three", "two"]
    with pytest.raises(UsageError, match="'four'; there are: one, three, two"):
        things["four"]


def test_a_plugin_does_not_replace_what_is_built_in(plugins: str) -> None:
    things = registry(plugins)
    with pytest.warns(UserWarning, match="broken"):
        assert sorted(things) == ["one", "three", "two"]
    assert things["one"] == 1


def test_plugins_cost_nothing_to_those_who_do_not_use_them(plugins: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry(plugins)["one"] == 1
    assert "hwnas_tests_plugin" not in sys.modules


def test_a_plugin_operator_can_be_built_and_costed_by_the_command_line_user(plugins: str, tmp_path: Path) -> None:
    """In a process of its own, as the registries of this one have loaded their plugins already."""
    (tmp_path / "hwnas_tests_plugin.py").write_text(
        "from hwnas.operators import ConvShape\n"
        "def build(spec, layers):\n"
        "    return layers.convolution(spec, ConvShape(spec.in_channels, spec.out_channels, (1, 1)))\n"
    )
    info = tmp_path / "hwnas_tests_plugin-1.0.dist-info"
    (info / "entry_points.txt").write_text("[hwnas.operators]\nplugged = hwnas_tests_plugin:build\n")
    script = (
        "from hwnas.operators import OperatorSpec\n"
        "from hwnas.cost_models import cost_model\n"
        "print(cost_model('flops').operator_cost("
        "OperatorSpec(kind='plugged', in_channels=3, out_channels=5), (10, 10)))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1500"
