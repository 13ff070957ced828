"""A trial: one candidate, trained for a short time and scored. It runs wherever there is a worker."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from torch.nn import functional

from hwnas.architecture import Architecture
from hwnas.data.crops import ImagePairs
from hwnas.data.images import ImageArray
from hwnas.data.sources import TrainingData
from hwnas.errors import HwnasError, first_line
from hwnas.inference import NotFiniteError, Validation
from hwnas.quantization.placement import Placement
from hwnas.searches.falsr.settings import EvaluationSettings
from hwnas.training.settings import TrainSettings
from hwnas.training.train import build_for_training

RUNG = 0.5
"""Share of the steps after which a candidate may be given up."""


class DivergedError(HwnasError):
    """The candidate cannot be trained like that."""


Answer = tuple[Literal["outcome", "diverged", "failed", "unable"], str]
"""What became of a trial, as text: the outcome as JSON, or why there is none in one line: the candidate cannot be
trained, something went wrong that may be its fault or not, or the worker cannot train any."""


class TrialPlan(BaseModel):
    """What a worker is asked for.

    Attributes:
        architecture: to train.
        settings: how.
        placement: of quantisers, where it has bits.
        images: those with room for the crops.
        seed: of weights and crops.
        stop_below: PSNR at the rung under which it is given up, in dB; None to train to the end.
    """

    model_config = ConfigDict(frozen=True)

    architecture: Architecture
    settings: EvaluationSettings
    placement: Placement = Placement()
    images: tuple[int, ...]
    seed: int
    stop_below: float | None = None


class Outcome(BaseModel):
    """What a trial found.

    Attributes:
        psnr: mean over the validation images, in dB.
        rung_psnr: the same at the rung, where it was asked for.
        steps: of training.
        seconds: in all.
        stopped: given up at the rung.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    psnr: float
    rung_psnr: float | None = None
    steps: int
    seconds: float
    stopped: bool = False


@dataclass(frozen=True)
class TrialData:
    """Decoded images, the same for all trials.

    Attributes:
        train: to cut crops from.
        validation: high-resolution images to score on, each with its name.
    """

    train: ImagePairs
    validation: list[tuple[str, ImageArray]]

    @classmethod
    def of(cls, data: TrainingData, scale: int, validation_crop: int | None) -> TrialData:
        """What trials need of the data of a search: of validation images the middle, if they are larger than that."""
        if validation_crop is None:
            return cls(data.train, data.validation)
        side = validation_crop * scale
        return cls(data.train, [(name, _middle(image, side)) for name, image in data.validation])

    def save(self, folder: Path) -> None:
        """Write the images so that other processes map them into their memory, which all share then.

        Raises:
            HwnasError: if they cannot be written.
        """
        try:
            # Of a search that was killed there may be others.
            if folder.is_symlink():
                folder.unlink()
            elif folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            pixels = folder / "pixels.npy"
            if (mapped := _mapped_file(self.train.pixels)) is None:
                np.save(pixels, self.train.pixels)
            else:
                # A large collection is in a file already, which has something behind the pixels.
                pixels.symlink_to(mapped)
            np.save(folder / "sizes.npy", self.train.sizes)
            for i, (_, image) in enumerate(self.validation):
                np.save(folder / f"validation-{i:03d}.npy", image)
        except OSError as error:
            raise HwnasError(f"cannot write the images for workers to {folder}: {error.strerror}") from error

    @classmethod
    def load(cls, folder: Path, scale: int) -> TrialData:
        """What `save` wrote; names are not kept."""
        sizes = np.load(folder / "sizes.npy", allow_pickle=False)
        length = int(sizes.prod(axis=1).sum()) * 3 * (scale**2 + 1)
        pixels = np.asarray(np.load(folder / "pixels.npy", mmap_mode="r", allow_pickle=False)[:length])
        train = ImagePairs(scale, tuple(str(i) for i in range(len(sizes))), sizes, pixels)
        files = sorted(folder.glob("validation-*.npy"))
        return cls(train, [(file.stem, np.load(file, allow_pickle=False)) for file in files])


def _mapped_file(pixels: ImageArray) -> Path | None:
    """The file that an array is mapped from."""
    array: object = pixels
    while array is not None:
        if isinstance(array, np.memmap) and array.filename is not None:
            return Path(array.filename)
        array = getattr(array, "base", None)
    return None


def _middle(image: ImageArray, side: int) -> ImageArray:
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return image[top : top + side, left : left + side]


def answer(plan: str, data: TrialData, still_wanted: Callable[[], bool] = lambda: True) -> Answer:
    """`run_trial` for a worker: text in, text out, whatever happens."""
    try:
        return "outcome", run_trial(TrialPlan.model_validate_json(plan), data, still_wanted).model_dump_json()
    except DivergedError as error:
        return "diverged", str(error)
    except Exception as error:
        return "failed", f"{type(error).__name__}: {first_line(error)}"


def run_trial(plan: TrialPlan, data: TrialData, still_wanted: Callable[[], bool] = lambda: True) -> Outcome:
    """Train and score a candidate, on a GPU if there is one; the same plan gives the same outcome on a CPU.

    Args:
        plan: what to do.
        data: what with.
        still_wanted: asked before each step; the trial ends with an error where it says no.

    Raises:
        DivergedError: if the loss is not finite, or the network makes something else of an image than numbers.
        HwnasError: if the trial is no longer wanted.
    """
    settings = plan.settings
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(plan.seed)
    training = TrainSettings(collect_steps=max(1, settings.steps // 10))
    network = build_for_training(plan.architecture, training, plan.placement).to(device).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    adam = torch.optim.Adam(network.parameters(), settings.learning_rate, betas=(0.9, 0.999))
    validation = Validation(data.validation, plan.architecture.scale)
    rng = np.random.default_rng(plan.seed)
    rung, rung_psnr = round(RUNG * settings.steps), None
    started, steps = time.monotonic(), 0
    while steps < settings.steps:
        if steps and settings.seconds is not None and time.monotonic() - started > settings.seconds:
            break
        if not still_wanted():
            raise HwnasError("the search that asked for the trial has ended")
        lr, hr = (x.to(device) for x in data.train.sample(rng, settings.batch, settings.crop, plan.images))
        loss = functional.l1_loss(network(lr.contiguous(memory_format=torch.channels_last)), hr)
        if not torch.isfinite(loss):
            raise DivergedError(f"the loss became {float(loss.detach())} in step {steps + 1}")
        adam.zero_grad()
        loss.backward()
        adam.step()
        steps += 1
        if steps == rung and settings.early_stop is not None:
            rung_psnr = _score(network, validation, steps)
            if plan.stop_below is not None and rung_psnr < plan.stop_below:
                seconds = time.monotonic() - started
                return Outcome(psnr=rung_psnr, rung_psnr=rung_psnr, steps=steps, seconds=seconds, stopped=True)
    psnr = _score(network, validation, steps)
    return Outcome(psnr=psnr, rung_psnr=rung_psnr, steps=steps, seconds=time.monotonic() - started)


def _score(network: nn.Module, validation: Validation, steps: int) -> float:
    try:
        return validation.psnr(network)
    except NotFiniteError as error:
        raise DivergedError(f"{error} after step {steps}") from error
