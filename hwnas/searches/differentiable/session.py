"""A differentiable search while it runs: steps of the alphas and of the weights in turn, epoch by epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hwnas.checkpoints import load_state, save_state
from hwnas.data.resident import Crops
from hwnas.errors import HwnasError
from hwnas.inference import Validation
from hwnas.progress import Task
from hwnas.searches.base import SearchTask, Space
from hwnas.searches.differentiable.pressure import Pressure, Relaxed
from hwnas.searches.differentiable.settings import DifferentiableSettings
from hwnas.searches.differentiable.supernet import Supernet
from hwnas.threads import threads
from hwnas.training.common import Losses, cosine, make_fabric, seed_epoch, set_learning_rate

LEARNING_RATES = ("learning_rate", "alpha_learning_rate")
"""Settings to lower where the losses of the weights, or of the alphas, explode."""

Settings = TypeVar("Settings", bound=DifferentiableSettings)


class Session(ABC, Generic[Space, Settings, Relaxed]):
    """The supernet, its optimisers and the penalties; one search is told from another by what it overrides.

    Everything that a resumed search needs is in the state that is saved after each epoch.

    Args:
        task: the search.
        settings: of it.
        supernet: seeded, on the CPU.
        pressures: what it is to cost; the first orders the front.
    """

    def __init__(
        self,
        task: SearchTask[Space],
        settings: Settings,
        supernet: Supernet[Relaxed],
        pressures: Sequence[Pressure[Relaxed]],
    ) -> None:
        self.task = task
        self.settings = settings
        self.supernet = supernet
        self.pressures = pressures
        self.fabric = make_fabric(settings.precision)
        supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        alphas = torch.optim.Adam(supernet.alphas.parameters(), settings.alpha_learning_rate, betas=(0.5, 0.999))
        # Set up before a state is loaded, which then goes to the device that the parameters are on.
        self.network, self.weights, self.alphas = self.fabric.setup(supernet, self.optimizer(), alphas)
        self.epoch = 0
        if task.run.search_state.exists():
            self._restore(load_state(task.run.search_state))
        self.crops = Crops(task.data.train, self.fabric.device)
        self.halves = _halves(task.data.train.room_for(settings.crop, task.progress.say), task.seed)
        self.validation = Validation(task.data.validation, task.space.scale)

    # What searches differ in

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """Of the weights."""

    @abstractmethod
    def regulariser(self, relaxed: Relaxed, epoch: int) -> Tensor:
        """What the alphas' loss has besides the task and the costs: a scalar."""

    @abstractmethod
    def scalars(self, relaxed: Relaxed) -> dict[str, float]:
        """Figures of an epoch, for TensorBoard."""

    @abstractmethod
    def figures(self, relaxed: Relaxed) -> dict[str, str]:
        """The same for people, in few characters."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before the steps of an epoch, after it was seeded."""
        return None

    def begin_step(self, progress: float) -> None:
        """Called before each alpha step, and at the end, with the share of them that are taken then, in (0, 1]."""
        return None

    def learning_rate(self, epoch: int, step: int) -> float:
        """Of the weights; ``step`` counts from the first of all epochs."""
        return self.settings.learning_rate * cosine(step, self.settings.epochs * self.settings.steps_per_epoch)

    def alpha_losses(self, lr: Tensor, hr: Tensor) -> Iterator[Tensor]:
        """The task's losses in an alpha step, whose gradients are added up, one after the other: scalars."""
        yield functional.l1_loss(self.network(lr), hr)

    def weight_losses(self, lr: Tensor, hr: Tensor) -> Iterator[Tensor]:
        """The same in a weight step."""
        yield functional.l1_loss(self.network(lr), hr)

    # What they share

    def run(self) -> None:
        """All epochs that remain."""
        from torch.utils.tensorboard import SummaryWriter

        settings = self.settings
        writer = SummaryWriter(str(self.task.run.events / "search"), purge_step=self.epoch)
        per_epoch = settings.steps_per_epoch
        bar = self.task.progress.task("searching", settings.epochs * per_epoch, self.epoch * per_epoch)
        for epoch in range(self.epoch, settings.epochs):
            searching = epoch >= settings.warmup_epochs
            rng = np.random.default_rng(seed_epoch(self.task.seed, "search", epoch))
            self.begin_epoch(epoch)
            self.network.train()
            with threads(settings.threads):
                mean = self._steps(epoch, rng, bar)
            relaxed = self._relaxed()
            scalars = {"loss": mean, "validation_psnr": self.validation.psnr(self.supernet)}
            scalars |= self.scalars(relaxed)
            for pressure in self.pressures:
                scalars[f"expected_{pressure.budget.metric}"] = pressure.cost.value(relaxed)
                scalars[f"multiplier_{pressure.budget.metric}"] = pressure.multiplier
                if searching:
                    pressure.update(relaxed)
            for name, value in scalars.items():
                writer.add_scalar(f"search/{name}", value, epoch)
            writer.flush()
            warming = "" if searching else " (warm-up, weights only)"
            figures = "".join(f", {name} {value}" for name, value in self._figures().items())
            self.task.progress.say(
                f"search epoch {epoch + 1}/{settings.epochs}{warming}: loss {scalars['loss']:.4f}{figures}, "
                f"supernet {scalars['validation_psnr']:.2f} dB"
            )
            self.epoch = epoch + 1
            save_state(self.task.run.search_state, self._state())
        # A search that is resumed when all its epochs are over has taken no step.
        self.begin_step(1.0)
        writer.close()

    def _steps(self, epoch: int, rng: np.random.Generator, bar: Task) -> float:
        """The steps of an epoch; returns the mean loss of the weights."""
        settings, per_epoch = self.settings, self.settings.steps_per_epoch
        losses, of_alphas = (Losses(self.fabric.device, f"search.{rate}") for rate in LEARNING_RATES)
        for i in range(per_epoch):
            where = f"epoch {epoch + 1}, step {i + 1} of the search"
            if epoch >= settings.warmup_epochs:
                begun, step = settings.warmup_epochs * per_epoch, epoch * per_epoch + i
                progress = (step + 1 - begun) / (settings.epochs * per_epoch - begun)
                self.begin_step(progress)
                for pressure in self.pressures:
                    pressure.tighten(progress)
                self._alpha_step(rng, epoch, of_alphas, where)
            rate = self.learning_rate(epoch, epoch * per_epoch + i)
            if self._weight_step(rng, rate, losses, where):
                bar.advance(epoch=f"{epoch + 1}/{settings.epochs}", loss=f"{losses.mean:.4f}", **self._figures())
            else:
                bar.advance()
        of_alphas.read(f"epoch {epoch + 1} of the search")
        return losses.read(f"epoch {epoch + 1} of the search")

    def _crops(self, rng: np.random.Generator, half: int) -> tuple[Tensor, Tensor]:
        return self.crops.sample(rng, self.settings.batch, self.settings.crop, self.halves[half])

    def _alpha_step(self, rng: np.random.Generator, epoch: int, losses: Losses, where: str) -> None:
        self.alphas.zero_grad()
        for i, loss in enumerate(self.alpha_losses(*self._crops(rng, 1))):
            if i == 0:
                relaxed = self.supernet.relaxed()
                for pressure in self.pressures:
                    loss = loss + pressure.loss(relaxed)
                loss = loss + self.regulariser(relaxed, epoch)
            losses.add(loss, where)
            # The gradients of the weights are not asked for, so they are not computed.
            self.fabric.backward(loss, inputs=list(self.supernet.alphas))
        if self.settings.alpha_gradient_clip is not None:
            for alpha in self.supernet.alphas:
                torch.nn.utils.clip_grad_norm_(alpha, self.settings.alpha_gradient_clip)
        self.alphas.step()

    def _weight_step(self, rng: np.random.Generator, rate: float, losses: Losses, where: str) -> bool:
        """Whether the losses were read in it."""
        settings = self.settings
        set_learning_rate(self.weights, rate)
        self.weights.zero_grad()
        is_read = False
        for loss in self.weight_losses(*self._crops(rng, 0)):
            is_read |= losses.add(loss, where)
            self.fabric.backward(loss, inputs=list(self.supernet.weights()))
        self.fabric.clip_gradients(
            self.network, self.weights, max_norm=settings.gradient_clip, error_if_nonfinite=False
        )
        self.weights.step()
        return is_read

    def _relaxed(self) -> Relaxed:
        with torch.no_grad():
            return self.supernet.relaxed()

    def _figures(self) -> dict[str, str]:
        relaxed = self._relaxed()
        shown = {pressure.budget.metric: pressure.describe(relaxed) for pressure in self.pressures}
        return {**shown, **self.figures(relaxed)}

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "supernet": self.supernet.state_dict(),
            "weights": self.weights.state_dict(),
            "alphas": self.alphas.state_dict(),
            "multipliers": [pressure.multiplier for pressure in self.pressures],
        }

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.supernet.load_state_dict(state["supernet"])
            self.weights.load_state_dict(state["weights"])
            self.alphas.load_state_dict(state["alphas"])
            for pressure, multiplier in zip(self.pressures, state["multipliers"], strict=True):
                pressure.multiplier = float(multiplier)
            self.epoch = int(state["epoch"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise HwnasError(
                f"{self.task.run.search_state} does not belong to this search; delete it to begin again with --resume"
            ) from error


def _halves(images: list[int], seed: int) -> tuple[list[int], list[int]]:
    """Images for the weights and for the alphas: two random halves, or the only image for both."""
    order = np.random.default_rng(seed).permutation(images).tolist()
    if len(order) < 2:
        return order, order
    middle = (len(order) + 1) // 2
    return order[:middle], order[middle:]
