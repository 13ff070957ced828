"""An upscaler whose output is known beforehand, and the files that are none."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwnas.errors import HwnasError
from hwnas.exporters.artifact import ArtifactUpscaler
from hwnas.exporters.runtime import OnnxArtifact

FLOAT = TensorProto.FLOAT


def _upscaler(path: Path) -> ArtifactUpscaler:
    return ArtifactUpscaler(OnnxArtifact(path))


def _write(
    path: Path, node: onnx.NodeProto, input_shape: list, *, scale: str | None = None, dtype: int = FLOAT
) -> Path:
    """A file with one node from ``x`` to ``y``; 'scales' are there for a Resize."""
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info("x", dtype, input_shape)],
        [helper.make_tensor_value_info("y", dtype, None)],
        [helper.make_tensor("scales", FLOAT, [4], [1, 1, 3, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if scale is not None:
        helper.set_model_props(model, {"scale": scale})
    onnx.save(model, path)
    return path


def _nearest(path: Path, input_shape: list | None = None, scale: str | None = None) -> Path:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest", nearest_mode="floor")
    node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    return _write(path, node, input_shape or [1, 3, "h", "w"], scale=scale)


def test_every_grey_level_comes_out_as_it_went_in(tmp_path: Path) -> None:
    upscaler = _upscaler(_nearest(tmp_path / "nearest.onnx", scale="3"))
    image = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    upscaled = upscaler(image)
    assert upscaled.dtype == np.uint8
    np.testing.assert_array_equal(upscaled, image.repeat(3, axis=0).repeat(3, axis=1))


def test_a_file_without_the_property_is_asked_with_a_small_image(tmp_path: Path) -> None:
    assert _upscaler(_nearest(tmp_path / "nearest.onnx")).scale == 3
    assert _upscaler(_nearest(tmp_path / "fixed.onnx", [1, 3, 5, 7])).scale == 3


def test_halves_are_rounded_up(tmp_path: Path) -> None:
    """As the evaluation does, and not to even: the property is told by levels of which every second would differ."""
    node = helper.make_node("Mul", ["x", "half"], ["y"])
    path = _write(tmp_path / "halves.onnx", node, [1, 3, "h", "w"], scale="1")
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("half", FLOAT, [], [0.5]))
    onnx.save(model, path)
    levels = np.arange(1, 256, 2, dtype=np.uint8)
    # In 32 bits a byte over 255, halved and times 255 is a half exactly, or next to one.
    exact = levels[(levels.astype(np.float32) / np.float32(255) * np.float32(0.5) * 255) % 1 == 0.5]
    assert len(exact) > 60
    upscaled = _upscaler(path)(np.broadcast_to(exact[:, None, None], (len(exact), 4, 3)).copy())
    np.testing.assert_array_equal(upscaled[:, 0, 0], exact // 2 + 1)


def test_pixels_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    path = _write(tmp_path / "nan.onnx", helper.make_node("Log", ["x"], ["y"]), [1, 3, "h", "w"], scale="1")
    assert _upscaler(path)(np.full((2, 2, 3), 255, np.uint8)).max() == 0
    with pytest.raises(HwnasError, match=r"nan\.onnx makes pixels that are no numbers"):
        _upscaler(path)(np.zeros((2, 2, 3), np.uint8))


def test_values_beyond_the_range_are_clipped(tmp_path: Path) -> None:
    path = _write(tmp_path / "bright.onnx", helper.make_node("Neg", ["x"], ["y"]), [1, 3, "h", "w"], scale="1")
    assert _upscaler(path)(np.full((2, 2, 3), 200, np.uint8)).max() == 0


@pytest.mark.parametrize("size", [(5, 7), (4, 4), (12, 3), (23, 40)])
def test_an_image_of_another_size_than_a_fixed_one_is_enlarged_in_windows(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    upscaler = _upscaler(_nearest(tmp_path / "fixed.onnx", [1, 3, 5, 7]))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(upscaler(image), image.repeat(3, axis=0).repeat(3, axis=1))


def test_a_truncated_file_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = _nearest(tmp_path / "nearest.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(HwnasError, match=r"nearest\.onnx is not an ONNX file, or is damaged"):
        _upscaler(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("content", [b"", b"no onnx at all", b"\x89PNG\r\n\x1a\n"])
def test_a_file_of_another_kind_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.onnx").write_bytes(content)
    with pytest.raises(HwnasError, match=r"other\.onnx is not an ONNX file"):
        _upscaler(tmp_path / "other.onnx")


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match=r"there is no file .*none\.onnx"):
        _upscaler(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [([1, 1, "h", "w"], FLOAT), ([3, "h", "w"], FLOAT), ([1, 3, "h", "w"], TensorProto.DOUBLE)],
)
def test_a_network_for_other_inputs_says_what_it_takes(tmp_path: Path, shape: list, dtype: int) -> None:
    path = _write(tmp_path / "other.onnx", helper.make_node("Neg", ["x"], ["y"]), shape, dtype=dtype)
    with pytest.raises(HwnasError, match="its inputs are x: tensor"):
        _upscaler(path)


@pytest.mark.parametrize(("operation", "made"), [("Flatten", r"\[1, 768\]"), ("Neg", r"\[1, 3, 16, 16\]")])
def test_a_network_that_does_not_enlarge_says_so(tmp_path: Path, operation: str, made: str) -> None:
    path = _write(tmp_path / "flat.onnx", helper.make_node(operation, ["x"], ["y"]), [1, 3, "h", "w"])
    with pytest.raises(HwnasError, match=rf"it makes {made} of \[1, 3, 16, 16\]"):
        _upscaler(path)


@pytest.mark.parametrize("scale", ["", "two", "2.5", "0", "-2"])
def test_a_scale_that_is_none_says_so(tmp_path: Path, scale: str) -> None:
    with pytest.raises(HwnasError, match="property 'scale'"):
        _upscaler(_nearest(tmp_path / "nearest.onnx", scale=scale))


def test_an_output_of_another_type_says_so(tmp_path: Path) -> None:
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.UINT8)
    graph = helper.make_graph(
        [cast],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1, 3, "h", "w"])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, [1, 3, "h", "w"])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "c.onnx")
    with pytest.raises(HwnasError, match=r"of tensor\(float\) it makes y: tensor\(uint8\), expected one of its kind"):
        _upscaler(tmp_path / "c.onnx")
