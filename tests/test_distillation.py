"""Losses against formulas and an independent VGG19, and trainings towards a teacher."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import MultiStepLR

from hwnas.architecture import Architecture
from hwnas.checkpoints import NetworkRecord, load_network, save_network
from hwnas.errors import HwnasError
from hwnas.inference import TorchUpscaler
from hwnas.operators.layers import FloatLayers
from hwnas.progress import Silent
from hwnas.quantization.placement import Placement
from hwnas.run_directory import RunDirectory
from hwnas.spaces import named_architecture
from hwnas.training import distance as module
from hwnas.training.distance import Distance, DistanceSettings, load_vgg19, total_variation
from hwnas.training.settings import TrainSettings
from hwnas.training.teacher import Teacher, TeacherSettings
from hwnas.training.train import learning_rate, train
from tests.falsr.searching import small_data

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights under torchvision's names, the classifier's included, of random numbers."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    weights, channels, index = {}, 3, 0
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            weights[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) / (9 * channels) ** 0.5
            weights[f"features.{index}.bias"] = torch.randn(width) / 10
            channels, index = width, index + 2
        index += 1
    weights["classifier.0.weight"] = torch.zeros(2, 2)
    torch.save(weights, path)
    return path


def conv5_4(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The layers by their numbers: convolutions where there are weights, poolings after the last of each width."""
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    for i in range(35):
        if f"features.{i}.weight" in weights:
            x = functional.conv2d(x, weights[f"features.{i}.weight"], weights[f"features.{i}.bias"], padding=1)
        elif i in (4, 9, 18, 27):
            x = functional.max_pool2d(x, 2)
        else:
            x = x.relu()
    return x


def test_the_features_are_those_of_conv5_4_before_its_relu(vgg_file: Path) -> None:
    weights = torch.load(vgg_file, weights_only=True)
    x = torch.rand(1, 3, 48, 32)
    features = load_vgg19(vgg_file)(x)
    assert features.shape == (1, 512, 3, 2) and features.min() < 0
    torch.testing.assert_close(features, conv5_4(weights, x), atol=1e-4, rtol=1e-3)


def test_the_loss_is_the_weighted_sum_of_its_parts(vgg_file: Path) -> None:
    weights = torch.load(vgg_file, weights_only=True)
    a, b = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    settings = DistanceSettings(l1=1e-2, perceptual=0.7, tv=5e-8, vgg=vgg_file)
    expected = 1e-2 * (a - b).abs().mean() + 0.7 * (conv5_4(weights, a) - conv5_4(weights, b)).abs().mean()
    jumps = (a[..., 1:] - a[..., :-1]).abs().sum() + (a[..., 1:, :] - a[..., :-1, :]).abs().sum()
    torch.testing.assert_close(Distance(settings, 32, CPU)(a, b), expected + 5e-8 * jumps, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_output_and_not_the_features(vgg_file: Path) -> None:
    distance = Distance(DistanceSettings(perceptual=1.0, vgg=vgg_file), 32, CPU)
    made = torch.rand(1, 3, 32, 32, requires_grad=True)
    distance(made, torch.rand(1, 3, 32, 32)).backward()
    assert made.grad is not None and made.grad.abs().sum() > 0
    assert distance._features is not None
    assert all(p.grad is None and not p.requires_grad for p in distance._features.parameters())


def test_parts_of_weight_zero_are_not_computed(monkeypatch: pytest.MonkeyPatch, vgg_file: Path) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("not asked for")

    monkeypatch.setattr(module, "total_variation", refuse)
    monkeypatch.setattr(module, "load_vgg19", refuse)
    a, b = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(Distance(DistanceSettings(vgg=vgg_file), 32, CPU)(a, b), functional.l1_loss(a, b))
    monkeypatch.setattr(functional, "l1_loss", refuse)
    monkeypatch.setattr(module, "load_vgg19", lambda _: nn.Identity())
    with pytest.raises(AssertionError, match="not asked for"):  # of the features: pixels are not compared
        Distance(DistanceSettings(l1=0.0, perceptual=1.0, vgg=vgg_file), 32, CPU)(a, b)


def test_total_variation_is_the_sum_of_the_jumps() -> None:
    x = torch.tensor([[[[0.0, 1.0], [3.0, 3.0]]]])
    assert float(total_variation(x)) == 1 + 0 + 3 + 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"l1": 0}, "nothing is compared"),
        ({"perceptual": 1}, "perceptual needs the weights of VGG19"),
        ({"l1": -1}, "l1"),
        ({"l1": float("nan")}, "l1"),
    ],
)
def test_a_loss_that_compares_nothing_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        DistanceSettings.model_validate(settings)


def test_crops_that_vgg_makes_nothing_of_are_refused(vgg_file: Path) -> None:
    with pytest.raises(HwnasError, match="at least 16x16 pixels, and crops are 8x8"):
        Distance(DistanceSettings(perceptual=1.0, vgg=vgg_file), 8)


def test_other_weights_than_vggs_are_refused(tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "v.safetensors")
    with pytest.raises(HwnasError, match=r"does not hold weights of VGG19: features\.0\.bias is not there"):
        load_vgg19(tmp_path / "v.safetensors")


# Trainings


def save_teacher(path: Path) -> Architecture:
    architecture = named_architecture("espcn", 2, bicubic=True)
    torch.manual_seed(1)
    network = architecture.build(FloatLayers())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3)  # so that what it makes is no photograph
    save_network(path, NetworkRecord(architecture=architecture), network)
    return architecture


def trained(path: Path, **settings: Any) -> RunDirectory:
    run = RunDirectory.create(path)
    short = {"epochs": 1, "steps_per_epoch": 3, "batch": 2, "crop": 8, "learning_rate": 1e-3}
    train(
        named_architecture("espcn", 2, bicubic=True),
        small_data(2),
        TrainSettings.model_validate(short | settings),
        Placement(),
        run,
        0,
        Silent(),
    )
    return run


@pytest.mark.parametrize("cache", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_student_comes_closer_to_its_teacher(tmp_path: Path, cache: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_teacher(tmp_path / "t.safetensors")
    teacher = {"network": str(tmp_path / "t.safetensors"), "cache": cache}
    _, wanted = load_network(tmp_path / "t.safetensors")
    x = torch.from_numpy(small_data(2).train.pair(0)[0] / np.float32(255))[None]
    errors = []
    for name, more in (("alone", {}), ("taught", {"teacher": teacher})):
        run = trained(tmp_path / name, steps_per_epoch=300, learning_rate=4e-3, **more)
        _, network = load_network(run.weights)
        with torch.no_grad():
            errors.append(float((network(x) - wanted(x)).abs().mean()))
    assert errors[1] < errors[0] / 1.5


def test_what_a_teacher_makes_is_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_teacher(tmp_path / "t.safetensors")
    teacher = Teacher(TeacherSettings(network=str(tmp_path / "t.safetensors")), 2)
    data = small_data(2)
    made = teacher.prepared(data, Silent())
    upscale = TorchUpscaler(teacher.network)
    for i in range(len(data.train)):
        lr, hr = made.train.pair(i)
        np.testing.assert_array_equal(lr, data.train.pair(i)[0])
        np.testing.assert_array_equal(hr.transpose(1, 2, 0), upscale(np.ascontiguousarray(lr.transpose(1, 2, 0))))
    assert made.validation is data.validation
    monkeypatch.setattr(TorchUpscaler, "__call__", lambda *_: pytest.fail("made once more"))
    again = teacher.prepared(data, Silent())
    np.testing.assert_array_equal(again.train.pixels, made.train.pixels)


def test_another_teacher_and_other_images_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    architecture = save_teacher(tmp_path / "t.safetensors")
    settings, data = TeacherSettings(network=str(tmp_path / "t.safetensors")), small_data(2)
    Teacher(settings, 2).prepared(data, Silent())
    pixels = data.train.pixels.copy()
    pixels[0] ^= 1
    Teacher(settings, 2).prepared(replace(data, train=replace(data.train, pixels=pixels)), Silent())
    record, network = load_network(tmp_path / "t.safetensors")
    with torch.no_grad():
        next(network.parameters())[0, 0, 0, 0] += 1e-3
    save_network(tmp_path / "t.safetensors", record, network)
    Teacher(settings, 2).prepared(data, Silent())
    assert len(list((tmp_path / "cache").rglob("teacher-*.npy"))) == 3
    assert architecture.scale == 2


def test_a_teacher_does_not_learn() -> None:
    network = nn.Conv2d(3, 3, 1)
    teacher = Teacher.__new__(Teacher)
    teacher.settings, teacher.network = TeacherSettings(network="esrgan", cache=False), network
    target = teacher.target(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 8, 8))
    assert not target.requires_grad


def test_a_second_stage_starts_from_the_weights_of_the_first(tmp_path: Path) -> None:
    first = trained(tmp_path / "first")
    second = trained(tmp_path / "second", weights=first.weights, learning_rate=1e-12)
    (_, a), (_, b) = load_network(first.weights), load_network(second.weights)
    for ours, theirs in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    other = named_architecture("espcn", 4, bicubic=True)
    save_network(tmp_path / "o.safetensors", NetworkRecord(architecture=other), other.build(FloatLayers()))
    with pytest.raises(HwnasError, match=r"is of espcn x4 with the bicubic enlargement, and not of \S+ x"):
        trained(tmp_path / "run", weights=tmp_path / "o.safetensors")


def test_the_published_schedule_halves_the_rate_each_quarter() -> None:
    settings = TrainSettings(epochs=8, steps_per_epoch=5, learning_rate=2e-4, schedule="halving")
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], 2e-4)
    scheduler = MultiStepLR(optimizer, [10, 20, 30], 0.5)
    for step in range(40):
        assert learning_rate(named_architecture("espcn"), settings, step) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
