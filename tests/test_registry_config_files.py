"""Registries with real plugins, settings in their order, and files on a disk that is full."""

import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hwnas.config import RunConfig, load_config, load_preset, make_config, merge, parse_assignment, read_settings
from hwnas.errors import HwnasError, UsageError
from hwnas.files import atomic_path, write_text
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


def test_later_settings_win_over_earlier_ones_and_leave_the_rest() -> None:
    preset = load_preset("tiny")
    file = {"seed": 3, "search": {"epochs": 5, "batch": 2}}
    line = parse_assignment("search.epochs=9")
    config = make_config([preset, file, line])
    assert config.search.epochs == 9  # type: ignore[attr-defined]
    assert config.search.batch == 2  # type: ignore[attr-defined]
    assert config.search.crop == preset["search"]["crop"]  # type: ignore[attr-defined]
    assert config.seed == 3
    assert config.train.epochs == preset["train"]["epochs"]
    assert make_config([line, file]).search.epochs == 5  # type: ignore[attr-defined]


def test_merging_changes_none_of_its_layers() -> None:
    lower, upper = {"a": {"b": 1}, "c": 1}, {"a": {"d": 2}, "c": {"e": 3}}
    assert merge(lower, upper) == {"a": {"b": 1, "d": 2}, "c": {"e": 3}}
    assert (lower, upper) == ({"a": {"b": 1}, "c": 1}, {"a": {"d": 2}, "c": {"e": 3}})


nested = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers()),
    lambda inner: st.dictionaries(st.sampled_from("abc"), st.integers() | inner),
    max_leaves=8,
)


@given(nested, nested)
def test_every_value_of_the_last_layer_survives_merging(lower: dict, upper: dict) -> None:
    def leaves(settings: dict, path: tuple[str, ...] = ()) -> dict:
        found = {}
        for key, value in settings.items():
            found.update(leaves(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value})
        return found

    merged = merge(lower, upper)
    assert leaves(upper).items() <= leaves(merged).items()
    assert merge(merged, upper) == merged
    assert merge({}, lower) == lower


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=1", {"seed": 1}),
        ("search.epochs=3", {"search": {"epochs": 3}}),
        ("space.bits=[2, 4]", {"space": {"bits": [2, 4]}}),
        ("data=a=b", {"data": "a=b"}),
        ("search.penalty=", {"search": {"penalty": None}}),
        ("space.adadm=false", {"space": {"adadm": False}}),
        ("train.learning_rate=1e-3", {"train": {"learning_rate": "1e-3"}}),  # YAML 1.1; pydantic reads it as a number
    ],
)
def test_an_assignment_is_a_nested_setting(text: str, expected: dict) -> None:
    assert parse_assignment(text) == expected


def test_an_exponent_without_a_point_is_a_number_all_the_same() -> None:
    assert make_config([parse_assignment("train.learning_rate=2e-3")]).train.learning_rate == 0.002


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs", "write --set name=value"),
        ("=3", "write --set name=value"),
        ("seed=[1", "the value is not YAML"),
        ("seed=!!python/object/apply:os.system [echo]", "the value is not YAML"),
        ("seed=2020-13-45", "the value is not YAML"),
        ("seed=" + "[" * 5000, "the value is not YAML"),
    ],
    ids=["no =", "no name", "unclosed", "code", "no date", "deep"],
)
def test_what_is_no_assignment_is_answered_with_how_to_write_one(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_assignment(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"speed": 1}, "no setting speed; did you mean seed?"),
        ({"search": {"epoch": 1}}, r"no setting search\.epoch; did you mean epochs?"),
        ({"search": {"epochs": 0}}, r"settings: search\.epochs: .*greater than 0"),
        ({"search": {"quantization": "binary"}}, r"settings: search\.quantization: .*'noise'"),
        ({"search": None}, "settings: search: "),
        ({"train": {"lr": 1}}, r"no setting train\.lr; there are: epochs"),
        ({"space": {"bits": "many"}}, r"settings: space\.bits"),
        ({"seed": "x"}, "settings: seed: "),
        ({"algorithm": ["quantnas"]}, "settings: algorithm: "),
        ({"algorithm": "darts"}, "no algorithm is called 'darts'; there are: .*quantnas"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make_config([settings])
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_is_answered_with_the_known() -> None:
    with pytest.raises(UsageError, match="no preset is called 'huge'; there are: tiny, small, paper"):
        load_preset("huge")
    with pytest.raises(UsageError, match="no preset"):
        load_preset("../presets/tiny")


@pytest.mark.parametrize("name", ["tiny", "small", "paper"])
def test_a_preset_is_valid_and_survives_being_saved(name: str, tmp_path: Path) -> None:
    config = make_config([load_preset(name), {"budgets": ["5GBitOps", "300KParams"], "space": {"bits": [2, 8]}}])
    config.save(tmp_path / "run" / "config.yaml")
    assert load_config(tmp_path / "run" / "config.yaml") == config


def test_the_paper_preset_is_the_papers() -> None:
    config = make_config([load_preset("paper")])
    search = config.search.model_dump()
    assert (search["epochs"], search["batch"], search["crop"] * config.space.scale) == (20, 16, 180)
    assert (search["alpha_learning_rate"], search["gradient_clip"], search["optimizer"]) == (3e-4, 5, "sgd")
    assert (config.space.cells, config.space.channels, config.space.bicubic) == (3, 36, False)
    assert (config.train.epochs, config.data) == (30, "div2k")


def test_settings_from_nothing_are_the_defaults() -> None:
    config = make_config([])
    assert isinstance(config, RunConfig)
    assert (config.algorithm, config.seed, config.budgets) == ("quantnas", 0, ())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"!!python/object/apply:os.system ['touch owned']", "is not YAML"),
        (b"seed: !!python/object:hwnas.config.RunConfig {}", "is not YAML"),
        (b"seed: !!python/name:os.system", "is not YAML"),
        (b"seed: [1", "is not YAML"),
        (b"seed: 2020-13-45", "is not YAML"),
        (b"seed: 0x_", "is not YAML"),
        (b"? [1]\n: 2", "is not YAML"),
        (b"a: " + b"[" * 5000, "is not YAML"),
        (b"\x00", "is not YAML"),
        (b"\xff\xfe\xff", "cannot read"),
        (b"", "holds no settings; expected lines such as 'seed: 1'"),
        (b"- seed", "holds no settings"),
        (b"42", "holds no settings"),
    ],
    ids=[
        "call",
        "object",
        "name",
        "unclosed",
        "date",
        "hex",
        "key",
        "deep",
        "null",
        "bytes",
        "empty",
        "list",
        "number",
    ],
)
def test_a_hostile_or_broken_settings_file_is_refused(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(HwnasError, match=message) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_a_settings_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match=r"cannot read .*nowhere\.yaml: No such file"):
        read_settings(tmp_path / "nowhere.yaml")


def test_saved_settings_are_plain_yaml(tmp_path: Path) -> None:
    make_config([load_preset("tiny")]).save(tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert "!" not in text
    assert yaml.safe_load(text)["search"]["epochs"] == load_preset("tiny")["search"]["epochs"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    write_text(path, "new: ü")
    assert path.read_text(encoding="utf-8") == "new: ü"
    assert names(tmp_path) == ["a.txt"]


def test_the_folder_is_made_and_the_temporary_file_keeps_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "some" / "folder" / "image.png"
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == path.parent
        assert not path.exists()
        temporary.write_bytes(b"png")
    assert names(path.parent) == ["image.png"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_block_keeps_the_old_file_and_leaves_no_temporary_one(
    error: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "atomic", "")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HwnasError, match=r"cannot write .*file/a\.txt: .*choose another folder"):
        write_text(tmp_path / "file" / "a.txt", "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(HwnasError, match=r"cannot write .*folder: "):
        write_text(tmp_path / "folder", "text")
    assert names(tmp_path) == ["file", "folder"]


WRITE = """
import sys
from pathlib import Path
from hwnas.errors import HwnasError
from hwnas.files import write_text
try:
    write_text(Path(sys.argv[1]), "x" * 1_000_000)
except HwnasError as error:
    print(error)
    sys.exit(7)
"""


def write_a_megabyte(path: Path, prefix: tuple[str, ...] = (), largest: int | None = None) -> str:
    """What a process prints that tries to; it must fail with `HwnasError`."""

    def limit() -> None:
        assert largest is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    done = subprocess.run(
        [*prefix, sys.executable, "-c", WRITE, str(path)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        preexec_fn=limit if largest else None,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    return done.stdout


def test_a_file_larger_than_allowed_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    message = write_a_megabyte(path, largest=100_000)
    assert f"cannot write {path}: File too large; free some space or choose another folder" in message
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk of 256 kB takes the right to mount one")
    try:
        path = disk / "a.txt"
        path.write_text("old")
        message = write_a_megabyte(path)
        assert f"cannot write {path}: No space left on device; free some space" in message
        assert path.read_text() == "old"
        assert names(disk) == ["a.txt"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
