"""Settings in their order, and settings files that are hostile or broken."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from hwnas.config import RunConfig, load_config, load_preset, make_config, merge, parse_assignment, read_settings
from hwnas.errors import HwnasError, UsageError
from hwnas.pipeline import space_of
from hwnas.searches import SEARCHES, Search, SearchResult, SearchTask
from hwnas.spaces.space import layerwise


def test_later_settings_win_over_earlier_ones_and_leave_the_rest() -> None:
    preset = load_preset("tiny")
    file = {"seed": 3, "search": {"epochs": 5, "batch": 2}}
    line = parse_assignment("search.epochs=9")
    config = make_config([preset, file, line])
    assert config.search.epochs == 9  # type: ignore[attr-defined]
    assert config.search.batch == 2  # type: ignore[attr-defined]
    assert config.search.crop == preset["algorithms"]["quantnas"]["search"]["crop"]  # type: ignore[attr-defined]
    assert config.seed == 3
    assert config.train.epochs == preset["train"]["epochs"]
    assert make_config([line, file]).search.epochs == 5  # type: ignore[attr-defined]


def test_a_preset_says_of_each_algorithm_what_concerns_it() -> None:
    class Plain(Search):
        class Settings(BaseModel):
            model_config = ConfigDict(extra="forbid")
            tries: int = 10

        def run(self, task: SearchTask) -> SearchResult:
            raise NotImplementedError

    SEARCHES.register("plain")(Plain())
    try:
        settings = [
            {"algorithms": {"plain": {"search": {"tries": 20}}, "quantnas": {"search": {"epochs": 1}}}},
            {"algorithm": "plain"},
        ]
        assert make_config(settings).search == Plain.Settings(tries=20)
        assert make_config([*settings, {"search": {"tries": 30}}]).search == Plain.Settings(tries=30)
        assert make_config([load_preset("tiny"), {"algorithm": "plain"}]).search == Plain.Settings()
        later = {"algorithms": {"plain": {"search": {"tries": 40}}}}
        assert make_config([*settings, {"search": {"tries": 30}}, later]).search == Plain.Settings(tries=40)
        with pytest.raises(UsageError, match="there are: tries$"):
            make_config([*settings, {"search": {"epochs": 3}}])
    finally:
        SEARCHES.remove("plain")


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
        ("space.residual=add", {"space": {"residual": "add"}}),
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
        ({"search": 3}, "settings: search"),
        ({"algorithms": [1]}, "settings: algorithms: expected settings under the name of each"),
        ({"algorithms": None}, "settings: algorithms: expected"),
        ({"algorithms": {"quantnas": 3}}, "settings: algorithms: expected"),
        ({"algorithms": {"qnantnas": {"search": {"epochs": 3}}}}, "settings: algorithms: there is no 'qnantnas'"),
        ({"algorithms": {3: {}}}, "settings: algorithms: there is no 3"),
        ({"algorithms": {"quantnas": {"search": {"epochz": 3}}}}, r"no setting search\.epochz; did you mean epochs\?"),
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
    assert (search["epochs"], search["batch"], search["crop"] * 4) == (20, 16, 180)
    assert (search["alpha_learning_rate"], search["gradient_clip"], search["optimizer"]) == (3e-4, 5, "sgd")
    wiring = layerwise(space_of(config), "this test").wiring.model_dump()
    assert (wiring["cells"], wiring["channels"], wiring["bicubic"], wiring["scale"]) == (3, 36, False, 4)
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
    with pytest.raises(HwnasError, match=r"there is no file .*nowhere\.yaml"):
        read_settings(tmp_path / "nowhere.yaml")


def test_saved_settings_are_plain_yaml(tmp_path: Path) -> None:
    make_config([load_preset("tiny")]).save(tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert "!" not in text
    assert yaml.safe_load(text)["search"]["epochs"] == load_preset("tiny")["algorithms"]["quantnas"]["search"]["epochs"]
