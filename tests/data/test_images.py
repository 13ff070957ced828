"""Files written by other programs' rules (tifffile, hand-made PNG chunks, damaged bytes), read by ours."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hwnas.data.images import (
    IMAGE_SUFFIXES,
    find_images,
    high_resolution_images,
    read_image,
    stored_size,
    write_image,
)
from hwnas.errors import HwnasError, UsageError

COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
SIXTEEN_BITS = np.random.default_rng(1).integers(0, 65536, (6, 9, 3), dtype=np.uint16)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def sixteen_bit_png(samples: np.ndarray, colour_type: int) -> bytes:
    """A PNG by the specification, as Pillow cannot write 16-bit colour."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif", ".tiff", ".PNG"])
def test_lossless_formats_come_back_as_they_were_written(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", COLOURS)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), COLOURS)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_jpeg_comes_back_nearly_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    ramp = np.repeat(np.arange(0, 240, 5, dtype=np.uint8)[:, None, None], 3, axis=2).repeat(16, axis=1)
    write_image(tmp_path / f"a{suffix}", ramp)
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - ramp).max() <= 3


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_every_common_mode_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    flat = Image.new("RGB", (5, 4), (255, 255, 255))
    image = read_image(save(tmp_path / "a.tif", flat.convert(mode)))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.full((4, 5, 3), 255))


def test_grey_repeats_its_channel(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.png", Image.fromarray(COLOURS[:, :, 0])))
    np.testing.assert_array_equal(image, np.stack([COLOURS[:, :, 0]] * 3, axis=2))


def test_transparency_is_dropped_and_the_colour_beneath_kept(tmp_path: Path) -> None:
    alpha = np.arange(54, dtype=np.uint8).reshape(6, 9, 1)
    path = save(tmp_path / "a.png", Image.fromarray(np.concatenate([COLOURS, alpha], axis=2)))
    np.testing.assert_array_equal(read_image(path), COLOURS)


def test_palette_colours_are_looked_up(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([1, 0])
    path = save(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(path), [[[40, 50, 60], [10, 20, 30]]])


@pytest.mark.parametrize("kind", ["png", "little-endian tiff", "big-endian tiff"])
def test_sixteen_bit_grey_is_divided_by_257_and_rounded(tmp_path: Path, kind: str) -> None:
    grey = SIXTEEN_BITS[:, :, 0]
    path = tmp_path / ("a.png" if kind == "png" else "a.tif")
    if kind == "png":
        path.write_bytes(sixteen_bit_png(grey[:, :, None], colour_type=0))
    else:
        tifffile.imwrite(path, grey, byteorder="<" if kind.startswith("little") else ">")
    expected = np.round(grey / 257).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path), np.stack([expected] * 3, axis=2))


@pytest.mark.parametrize("kind", ["png", "little-endian tiff", "big-endian tiff"])
def test_sixteen_bit_colour_keeps_its_high_byte(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("a.png" if kind == "png" else "a.tif")
    if kind == "png":
        path.write_bytes(sixteen_bit_png(SIXTEEN_BITS, colour_type=2))
    else:
        order = "<" if kind.startswith("little") else ">"
        tifffile.imwrite(path, SIXTEEN_BITS, photometric="rgb", byteorder=order)
    image = read_image(path)
    np.testing.assert_array_equal(image, SIXTEEN_BITS >> 8)
    assert np.abs(image - SIXTEEN_BITS / 257).max() <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "depth.tif", np.full((4, 4), 1e6, dtype))
    with pytest.raises(HwnasError, match=r"cannot read .*depth\.tif: its pixels .* unknown range; remove"):
        read_image(tmp_path / "depth.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(COLOURS), exif=exif)
    # The eight cases of the EXIF standard, by what the stored first row and first column are in the scene.
    upright = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2),
        6: np.rot90(COLOURS, -1),
        7: COLOURS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOURS),
    }[orientation]
    np.testing.assert_array_equal(read_image(path), upright)
    assert stored_size(path) == COLOURS.shape[:2]


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_image(path, noise)
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(HwnasError, match=r"cannot read .*photo\.png: .*truncated.*; remove or replace it"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    for read in (read_image, stored_size):
        with pytest.raises(HwnasError, match=r"cannot read .*photo\.png: .*; remove or replace it"):
            read(path)


def test_a_decompression_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(HwnasError, match=r"bomb\.png.*exceeds limit"):
        read_image(tmp_path / "bomb.png")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match=r"gone\.png: No such file"):
        read_image(tmp_path / "gone.png")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow comments on the damage as it goes
@settings(max_examples=150, deadline=None)
@given(
    file_format=st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF"]),
    damage=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), min_size=1, max_size=6),
    length=st.floats(0.2, 1),
)
def test_damaged_bytes_give_an_image_or_our_error(
    tmp_path_factory: pytest.TempPathFactory,
    file_format: str,
    damage: list[tuple[int, int]],
    length: float,
) -> None:
    buffer = BytesIO()
    Image.fromarray(COLOURS).save(buffer, file_format)
    content = bytearray(buffer.getvalue())
    for position, value in damage:
        content[position % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.img"
    path.write_bytes(content[: int(len(content) * length)])
    try:
        image = read_image(path)
    except HwnasError as error:
        assert "damaged.img" in str(error)
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_an_unknown_suffix_is_a_usage_error_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown image suffix '\.xyz'; use one of png, jpg"):
        write_image(tmp_path / "a.xyz", COLOURS)
    assert not list(tmp_path.iterdir())


def test_an_image_too_large_for_its_format_says_so(tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match=r"16383.*; write a PNG instead"):
        write_image(tmp_path / "a.webp", np.zeros((1, 17000, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_images_are_found_sorted_and_only_directly_inside(tmp_path: Path) -> None:
    for name in ["b.PNG", "a.jpg", "c.txt", ".hidden.png", "d.tiff"]:
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.png" / "inner.png").touch()
    assert [path.name for path in find_images(tmp_path)] == ["a.jpg", "b.PNG", "d.tiff"]


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_listed_suffix_counts(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").touch()
    assert len(find_images(tmp_path)) == 1


def test_folders_without_images_say_what_would_count(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(HwnasError, match=r"no images in .*; put files ending in png, jpg"):
        find_images(tmp_path)
    with pytest.raises(HwnasError, match=r"there is no folder .*nowhere"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(HwnasError, match=r"a\.txt is not a folder"):
        find_images(tmp_path / "a.txt")


def test_an_hr_folder_inside_takes_precedence(tmp_path: Path) -> None:
    (tmp_path / "outer.png").touch()
    assert [p.name for p in high_resolution_images(tmp_path)] == ["outer.png"]
    (tmp_path / "HR").mkdir()
    (tmp_path / "HR" / "inner.png").touch()
    assert [p.name for p in high_resolution_images(tmp_path)] == ["inner.png"]
