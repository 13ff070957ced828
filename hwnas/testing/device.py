"""What every device promises."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from hwnas.devices import Device, Timing, open_device
from hwnas.devices.measurement import paired_ratio
from hwnas.devices.target import Target
from hwnas.errors import HwnasError, UsageError
from hwnas.exporters.untrained import untrained_suffix, write_untrained
from hwnas.latency.build import estimate_minutes
from hwnas.latency.table import Survey
from hwnas.progress import Silent
from hwnas.spaces import SPACES, SpaceOptions, named_architecture
from hwnas.spaces.space import layerwise


class DeviceContract:
    """Tests of a device; subclass it and set ``target``.

    Attributes:
        target: a target whose device is at hand; ``target.host`` says where.
        bits: width of the network that it is tested with.
    """

    target: ClassVar[Target]
    bits: ClassVar[int] = 8

    @pytest.fixture
    def network(self, tmp_path: Path) -> Path:
        """A small network in a file that the device reads."""
        path = tmp_path / f"espcn{untrained_suffix(self.target)}"
        write_untrained(named_architecture("espcn", 2, self.bits), self.target, (24, 32), path)
        return path

    @pytest.fixture
    def device(self) -> Device:
        return open_device(self.target)

    def test_nothing_speaks_against_it(self, device: Device) -> None:
        with device:
            assert device.missing() is None

    def test_it_says_what_it_is_and_says_the_same_again(self, device: Device) -> None:
        with device:
            first, second = device.probe(), device.probe()
        assert first.fingerprint == second.fingerprint
        assert first.fingerprint.runtime == self.target.runtime and first.fingerprint.hardware
        assert first.free_bytes is None or first.free_bytes > 0

    def test_files_are_measured_in_turn(self, device: Device, network: Path) -> None:
        with device:
            found = device.measure([network, network], Timing((24, 32), rounds=7, seconds=0), Silent())
            fingerprint = device.probe().fingerprint
        assert len(found) == 2
        for one in found:
            assert one.fingerprint == fingerprint and one.method == device.method
            assert all(ms > 0 for ms in one.samples_ms)
            if one.method == "measured":
                assert len(one.rounds_ms) >= 7 and one.percentile(90) >= one.p50
        ratio, _ = paired_ratio(*found)
        assert 0.2 < ratio < 5, "the same file takes the same time"

    def test_how_long_a_table_takes_can_be_told(self, device: Device) -> None:
        options = SpaceOptions(cells=1, channels=6, scale=2, bits=(self.bits,))
        space = layerwise(SPACES["quantnas"](options), "a table")
        survey = Survey.begun(space, (24, 32), self.target)
        with device:
            assert estimate_minutes(survey, device) > 0

    def test_layers_are_positive_and_no_more_than_the_whole(self, device: Device, network: Path) -> None:
        with device:
            (found,) = device.measure([network], Timing((24, 32), rounds=3, seconds=0, layers=True), Silent())
        assert all(layer.ms >= 0 and layer.name for layer in found.layers)
        # Being watched takes time too.
        assert sum(layer.ms for layer in found.layers) < 5 * max(found.samples_ms) + 1

    def test_a_file_that_is_not_there_or_damaged_is_an_error(
        self, device: Device, network: Path, tmp_path: Path
    ) -> None:
        damaged = tmp_path / f"damaged{network.name}"
        damaged.write_bytes(network.read_bytes()[:100])
        with device:
            with pytest.raises(UsageError, match="there is no file"):
                device.measure([tmp_path / f"none{network.suffix}"], Timing((24, 32), rounds=1), Silent())
            with pytest.raises(HwnasError):
                device.measure([damaged], Timing((24, 32), rounds=1), Silent())
