"""What every exporter promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError, UsageError
from hwnas.exporters.artifact import ArtifactUpscaler
from hwnas.exporters.base import Exporter, ExportJob, ExportOptions
from hwnas.exporters.parity import check_parity
from hwnas.exporters.profiles import PROFILES
from hwnas.operators.layers import FloatLayers
from hwnas.quantization.brevitas_layers import build_quantised, calibrate
from hwnas.spaces import named_architecture

METADATA = {"scale": "2", "overlap": "7"}


def _image(height: int, width: int) -> Tensor:
    torch.manual_seed(height * width)
    coarse = torch.rand(1, 3, 4, 4)
    return (nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 255).round() / 255


class ExporterContract:
    """Tests of an exporter; subclass it and set ``exporter``.

    Attributes:
        exporter: what to test.
        profile: name of a profile whose runtime reads the format.
        any_size: whether the format takes images of any size; else it is tested at one.
        stores_properties: whether its files say what they are.
        takes_bytes: whether it can have images of bytes; else it has to refuse.
    """

    exporter: ClassVar[Exporter]
    profile: ClassVar[str] = "onnxruntime-cpu"
    any_size: ClassVar[bool] = True
    stores_properties: ClassVar[bool] = True
    takes_bytes: ClassVar[bool] = True

    def options(self, **asked: Any) -> ExportOptions:
        """What is asked for; a size where the format needs one."""
        return ExportOptions(size=None if self.any_size else (24, 20), **asked)

    def images(self) -> list[Tensor]:
        """Images that what is written takes."""
        return [_image(24, 20), _image(17, 31)] if self.any_size else [_image(24, 20)]

    def network(self, bits: int) -> nn.Module:
        """ESPCN at x2."""
        torch.manual_seed(bits)
        architecture = named_architecture("espcn", 2, bits)
        if bits == 32:
            return architecture.build(FloatLayers()).eval()
        network = build_quantised(architecture, placement=PROFILES[self.profile].placement)
        calibrate(network, [_image(24, 20)])
        return network

    def write(self, network: nn.Module, path: Path, options: ExportOptions) -> Path:
        """Write ``network``."""
        self.exporter.write(network, path, ExportJob(self.images(), METADATA, PROFILES[self.profile], options))
        return path

    @pytest.mark.parametrize("bits", [32, 8, 4])
    def test_a_file_computes_what_the_network_does(self, tmp_path: Path, bits: int) -> None:
        if bits < 32 and self.exporter.requantises:
            network, options, quantised = self.network(32), self.options(requantise=True), False
        else:
            network, options, quantised = self.network(bits), self.options(), bits < 32
        path = self.write(network, tmp_path / f"network{self.exporter.suffix}", options)
        tolerance = self.exporter.tolerance(quantised, options)
        assert check_parity(network, self.exporter.open(path), self.images(), tolerance).passed

    def test_a_file_says_what_it_is(self, tmp_path: Path) -> None:
        path = self.write(self.network(32), tmp_path / f"network{self.exporter.suffix}", self.options())
        artifact = self.exporter.open(path)
        assert artifact.runtime.split()[-1][0].isdigit(), "the version of the runtime belongs to it"
        assert ArtifactUpscaler(artifact).scale == 2
        assert artifact.size == ((None, None) if self.any_size else (24, 20))
        if self.stores_properties:
            assert METADATA.items() <= dict(artifact.properties).items()
            assert ArtifactUpscaler(artifact).overlap == 7

    def test_nothing_but_the_files_that_it_names_is_left(self, tmp_path: Path) -> None:
        path = self.write(self.network(32), tmp_path / f"network{self.exporter.suffix}", self.options())
        assert {*tmp_path.iterdir()} == {*self.exporter.files(path)}

    def test_the_network_is_left_as_it_was(self, tmp_path: Path) -> None:
        network = self.network(32 if self.exporter.requantises else 4)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        self.write(network, tmp_path / f"network{self.exporter.suffix}", self.options())
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())

    def test_images_of_bytes_come_out_as_bytes(self, tmp_path: Path) -> None:
        network = self.network(32 if self.exporter.requantises else 8)
        path = tmp_path / f"network{self.exporter.suffix}"
        if not self.takes_bytes:
            with pytest.raises(UsageError, match="--uint8-io"):
                self.write(network, path, self.options(takes_bytes=True))
            return
        self.write(network, path, self.options(takes_bytes=True))
        artifact = self.exporter.open(path)
        assert artifact.takes_bytes
        (image, *_) = self.images()
        found = artifact.run((image.numpy() * 255).round().astype(np.uint8))
        with torch.no_grad():
            expected = network(image).clamp(0, 1).numpy() * 255
        assert found.dtype == np.uint8
        assert np.abs(found - expected).max() < 2

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(HwnasError, match="there is no file"):
            self.exporter.open(tmp_path / f"none{self.exporter.suffix}")

    @pytest.mark.parametrize("content", [b"", b"neither this nor that", b"\x00\xff" * 500])
    def test_a_damaged_file_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / f"damaged{self.exporter.suffix}"
        path.write_bytes(content)
        with pytest.raises(HwnasError, match="damaged"):
            self.exporter.open(path)
