"""The photographs are there without a network, and validation shows nothing that training has seen."""

import socket

import numpy as np
import pytest
import skimage.data

from hwnas.data.bundled import bundled_images
from hwnas.errors import HwnasError


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("tried to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_fifteen_rgb_photographs_need_no_network() -> None:
    training, validation = bundled_images()
    assert len(training) == 13
    assert [name for name, _ in validation] == ["chelsea", "coffee"]
    for name, image in [*training, *validation]:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3, name
        assert min(image.shape[:2]) >= 300, name


def test_names_are_unique_and_both_views_of_the_motorcycle_train() -> None:
    training, validation = bundled_images()
    names = [name for name, _ in [*training, *validation]]
    assert len(set(names)) == len(names)
    images = dict(training)
    left, right, _ = skimage.data.stereo_motorcycle()
    np.testing.assert_array_equal(images["motorcycle_left"], left)
    np.testing.assert_array_equal(images["motorcycle_right"], right)


def test_a_scikit_image_without_photographs_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline() -> None:
        raise ConnectionError("no internet")

    monkeypatch.setattr(skimage.data, "camera", offline)
    with pytest.raises(HwnasError, match="without its photograph 'camera'; install the wheel"):
        bundled_images()
