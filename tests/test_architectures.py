"""Architecture files against their schema, and receptive fields against perturbed pixels."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.architecture import Architecture, load_architecture, parse_architecture
from hwnas.errors import HwnasError
from hwnas.operators.layers import FloatLayers
from hwnas.spaces import SPACES, SpaceOptions, named_architecture

Change = Callable[[dict[str, Any]], Any]

SMALL = SPACES["quantnas"](SpaceOptions(channels=12, cells=1, residual="add"))
SMALL_FLOAT = SPACES["quantnas-float"](SpaceOptions(channels=12, cells=1))

architectures = st.builds(
    lambda space, seed: space.sample(random.Random(seed)),
    st.sampled_from([SMALL, SMALL_FLOAT]),
    st.integers(0, 2**32),
)


def body3_json(change: Change) -> str:
    data = json.loads(named_architecture("quantnas-body3").model_dump_json())
    change(data)
    return json.dumps(data)


def operator(data: dict[str, Any], layer: str, **fields: Any) -> None:
    data["operators"][layer].update(fields)


@settings(max_examples=40, deadline=None)
@given(architecture=architectures)
def test_an_architecture_survives_json(architecture: Architecture) -> None:
    again = parse_architecture(architecture.model_dump_json(), "text")
    assert again == architecture
    assert again.fingerprint == architecture.fingerprint


def test_an_architecture_survives_a_file(tmp_path: Path) -> None:
    architecture = named_architecture("srresnet", scale=3, bicubic=True)
    architecture.save(tmp_path / "deep" / "a.json")
    assert load_architecture(tmp_path / "deep" / "a.json") == architecture


@settings(max_examples=40, deadline=None)
@given(architecture=architectures, name=st.text())
def test_the_fingerprint_ignores_the_name(architecture: Architecture, name: str) -> None:
    assert architecture.model_copy(update={"name": name}).fingerprint == architecture.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda d: operator(d, "body.0", kernel=5),
        lambda d: operator(d, "body.0", groups=3),
        lambda d: operator(d, "body.1", hidden=24),
        lambda d: operator(d, "skip", weight_bits=7),
        lambda d: operator(d, "skip", activation_bits=7),
        lambda d: operator(d, "skip", bias=True),
        lambda d: operator(d, "skip", activation="none"),
        lambda d: operator(d, "skip", kind="decenc", hidden=18),
        lambda d: d["wiring"].update(residual="add"),
        lambda d: d["wiring"].update(bicubic=True),
        lambda d: d["wiring"].update(cells=4),
    ],
    ids=["kernel", "groups", "hidden", "weights", "activations", "bias", "relu", "kind", "adadm", "bicubic", "cells"],
)
def test_the_fingerprint_changes_with_anything_but_the_name(change: Change) -> None:
    published = named_architecture("quantnas-body3")
    assert parse_architecture(body3_json(change), "text").fingerprint != published.fingerprint


def test_the_fingerprint_does_not_depend_on_the_order_of_the_layers_in_the_file() -> None:
    def reverse(data: dict[str, Any]) -> None:
        data["operators"] = dict(reversed(data["operators"].items()))

    published = named_architecture("quantnas-body3")
    assert parse_architecture(body3_json(reverse), "text").fingerprint == published.fingerprint


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: operator(d, "body.0", kind="winograd"), r"operators\.body\.0: kind = 'winograd'"),
        (lambda d: d["operators"].pop("skip"), "layers are missing: skip"),
        (lambda d: d["operators"].update(neck=d["operators"]["skip"]), "no layer neck; it has head.0"),
        (lambda d: operator(d, "tail.1", out_channels=4), r"operators\.tail\.1\.out_channels is 4; .* needs 3"),
        (lambda d: operator(d, "skip", weight_bits=16), r"operators\.skip: weight_bits = 16"),
        (lambda d: operator(d, "skip", activation_bits="many"), r"operators\.skip\.activation_bits"),
        (lambda d: d["operators"]["skip"].pop("in_channels"), r"operators\.skip\.in_channels"),
        (lambda d: d["operators"]["body.1"].update(hidden=None), r"operators\.body\.1.*'hidden'"),
        (lambda d: d.update(schema_version=2, new="field"), "schema_version: version 2 is newer.*upgrade hwnas"),
        (lambda d: d.update(schema_version=0), "schema_version: version 0"),
        (lambda d: d["wiring"].update(scale=5), r"wiring.*scale"),
        (lambda d: d["wiring"].update(cells=0), r"wiring.*cells"),
        (
            lambda d: d["wiring"].update(kind="unet"),
            "wiring.*'unet' is unknown; there are: chain, falsr, quantnas, rfdn, rrdb, srresnet, trilevel",
        ),
        (lambda d: d["wiring"].update(kind=["quantnas"]), "wiring.*kind"),
        (lambda d: d.update(wiring=3), "wiring needs a 'kind'"),
        (lambda d: d.update(operators=[]), "operators"),
        (lambda d: d.update(weights="http://example.org"), "weights"),
    ],
)
def test_a_wrong_file_is_refused_by_its_name_and_that_of_the_field(change: Change, named: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(body3_json(change))
    with pytest.raises(HwnasError, match=named) as caught:
        load_architecture(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"kind: quantnas",
        named_architecture("espcn").model_dump_json().encode()[:-20],
        b"[" * 100_000,
        b'{"wiring":' * 100_000,
        b"\xff\xfe\x00",
        b"\x89PNG\r\n\x1a\n",
        b'{"schema_version": ' + b"9" * 5000 + b"}",
    ],
    ids=["empty", "yaml", "truncated", "deep list", "deep object", "utf-16", "png", "long number"],
)
def test_what_is_not_json_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "wrong.json"
    path.write_bytes(content)
    with pytest.raises(HwnasError, match=r"wrong\.json is not JSON .*expected an architecture") as caught:
        load_architecture(path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("content", "why"),
    [*((text, " holds no JSON object") for text in ("[]", "3", "null", '"espcn"')), ("{}", ": wiring")],
)
def test_json_that_is_no_architecture_is_refused(content: str, why: str) -> None:
    with pytest.raises(HwnasError, match=f"file{why}"):
        parse_architecture(content, "file")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match=r"cannot read .*nowhere\.json: No such file"):
        load_architecture(tmp_path / "nowhere.json")


def reach(architecture: Architecture) -> int:
    """Largest distance, in low-resolution pixels, from an input pixel to an output pixel that changes with it."""
    torch.manual_seed(0)
    network = architecture.build(FloatLayers()).double().eval()
    with torch.no_grad():
        for p in network.parameters():
            p.abs_()  # positive weights on a positive input: no ReLU or cancellation hides a dependence
    side = 2 * architecture.receptive_radius + 5
    middle = side // 2
    x = torch.rand(1, 3, side, side, dtype=torch.float64)
    y = x.clone()
    y[:, :, middle, middle] += 1
    with torch.no_grad():
        changed = (network(y) - network(x)).abs().amax((0, 1)) > 0
    rows, columns = changed.nonzero(as_tuple=True)
    at = torch.cat([rows, columns]) // architecture.scale
    return int((at - middle).abs().max())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("bicubic", [False, True])
def test_no_pixel_depends_on_one_beyond_the_receptive_radius(seed: int, scale: int, bicubic: bool) -> None:
    options = SpaceOptions(channels=6, cells=1 + seed % 2, scale=scale, residual="add", bicubic=bicubic)
    architecture = SPACES[("quantnas", "quantnas-float")[seed % 2]](options).sample(random.Random(seed))
    assert 0 < reach(architecture) <= architecture.receptive_radius


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("bicubic", [False, True])
def test_the_receptive_radius_of_espcn_is_that_of_its_three_convolutions(scale: int, bicubic: bool) -> None:
    architecture = named_architecture("espcn", scale=scale, bicubic=bicubic)
    assert reach(architecture) == 2 + 1 + 1
    assert 4 <= architecture.receptive_radius <= 4 + 2
