"""The QuantNAS search: alternate alpha and weight steps, then derive (algorithm 1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hwnas.checkpoints import load_state, save_state
from hwnas.errors import HwnasError
from hwnas.inference import Validation
from hwnas.searches.base import Search, SearchResult, SearchTask
from hwnas.searches.feasibility import require_feasible
from hwnas.searches.quantnas.front import derive_result
from hwnas.searches.quantnas.objective import entropy, entropy_weight
from hwnas.searches.quantnas.pressure import make_pressures
from hwnas.searches.quantnas.settings import QuantNASSettings
from hwnas.searches.quantnas.supernet import Supernet
from hwnas.spaces.space import LayerwiseSpace, layerwise
from hwnas.training.common import cosine, make_fabric, require_finite, seed_epoch, set_learning_rate


class QuantNAS(Search):
    """Differentiable search over operators x bits, against quantisation noise or with quantised weights."""

    Settings = QuantNASSettings

    def run(self, task: SearchTask) -> SearchResult:
        task = replace(task, space=layerwise(task.space, "QuantNAS"))
        if not task.run.search_state.exists():  # a device may be slower now than when it was found feasible
            require_feasible(task.space, task.budgets)
        settings = QuantNASSettings.model_validate(task.settings)
        session = _Session(task, settings)
        session.run()
        return derive_result(task, session.supernet, session.pressures[0].budget, settings)


class _Session:
    """The supernet, its optimisers and the penalties while the search runs."""

    def __init__(self, task: SearchTask[LayerwiseSpace], settings: QuantNASSettings) -> None:
        self.task = task
        self.settings = settings
        self.pressures = make_pressures(task.space, task.budgets, settings.penalty, task.input_size)
        quantised = any(spec.is_quantised for c in task.space.choices.values() for spec in c)
        self.entropy = settings.entropy if settings.entropy is not None else (1e-4 if quantised else 1e-3)
        self.fabric = make_fabric(settings.precision)
        seed_epoch(task.seed, "supernet", 0)
        self.supernet = Supernet(task.space, settings.quantization, settings.merge)
        self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        decay = settings.weight_decay if settings.weight_decay is not None else (3e-8 if quantised else 3e-7)
        weights: torch.optim.Optimizer
        if settings.optimizer == "sgd":
            weights = torch.optim.SGD(self.supernet.weights(), settings.learning_rate, 0.9, weight_decay=decay)
        else:
            weights = torch.optim.Adam(self.supernet.weights(), settings.learning_rate, weight_decay=decay)
        alphas = torch.optim.Adam(self.supernet.alphas.parameters(), settings.alpha_learning_rate, betas=(0.5, 0.999))
        # Set up before a state is loaded, which then goes to the device that the parameters are on.
        self.network, self.weights, self.alphas = self.fabric.setup(self.supernet, weights, alphas)
        self.epoch = 0
        if task.run.search_state.exists():
            self._restore(load_state(task.run.search_state))
        self.halves = _halves(task.data.train.room_for(settings.crop, task.progress.say), task.seed)
        self.validation = Validation(task.data.validation, task.space.wiring.scale)

    def run(self) -> None:
        """All epochs that remain."""
        from torch.utils.tensorboard import SummaryWriter

        settings = self.settings
        writer = SummaryWriter(str(self.task.run.events / "search"), purge_step=self.epoch)
        per_epoch = settings.steps_per_epoch
        bar = self.task.progress.task("searching", settings.epochs * per_epoch, self.epoch * per_epoch)
        for epoch in range(self.epoch, settings.epochs):
            rng = np.random.default_rng(seed_epoch(self.task.seed, "search", epoch))
            self.supernet.noise.enabled = epoch >= settings.warmup_epochs
            self.supernet.noise.refresh()
            self.network.train()
            total = 0.0
            for i in range(per_epoch):
                where = f"epoch {epoch + 1}, step {i + 1} of the search"
                if epoch >= settings.warmup_epochs:
                    begun, step = settings.warmup_epochs * per_epoch, epoch * per_epoch + i
                    for pressure in self.pressures:
                        pressure.tighten((step + 1 - begun) / (settings.epochs * per_epoch - begun))
                    self._alpha_step(rng, epoch, where)
                total += self._weight_step(rng, epoch * per_epoch + i, where)
                bar.advance(epoch=f"{epoch + 1}/{settings.epochs}", loss=f"{total / (i + 1):.4f}", **self._figures())
            scalars = {"loss": total / per_epoch, "validation_psnr": self.validation.psnr(self.supernet)}
            p = self._probabilities()
            scalars["mean_entropy"] = float(entropy(p)) / len(p)
            for pressure in self.pressures:
                scalars[f"expected_{pressure.budget.metric}"] = pressure.cost.value(p)
                scalars[f"multiplier_{pressure.budget.metric}"] = pressure.multiplier
                if epoch >= settings.warmup_epochs:
                    pressure.update(p)
            for name, value in scalars.items():
                writer.add_scalar(f"search/{name}", value, epoch)
            writer.flush()
            warming = " (warm-up, weights only)" if epoch < settings.warmup_epochs else ""
            figures = "".join(f", {name} {value}" for name, value in self._figures().items())
            self.task.progress.say(
                f"search epoch {epoch + 1}/{settings.epochs}{warming}: loss {scalars['loss']:.4f}{figures}, "
                f"supernet {scalars['validation_psnr']:.2f} dB"
            )
            self.epoch = epoch + 1
            save_state(self.task.run.search_state, self._state())
        writer.close()

    def _crops(self, rng: np.random.Generator, half: int) -> tuple[Tensor, Tensor]:
        crops = self.task.data.train.sample(rng, self.settings.batch, self.settings.crop, self.halves[half])
        lr, hr = self.fabric.to_device(crops)
        # oneDNN's convolutions, and tensor cores, prefer channels last.
        return lr.contiguous(memory_format=torch.channels_last), hr

    def _alpha_step(self, rng: np.random.Generator, epoch: int, where: str) -> None:
        lr, hr = self._crops(rng, 1)
        loss = functional.l1_loss(self.network(lr), hr)
        p = self.supernet.probabilities()
        for pressure in self.pressures:
            loss = loss + pressure.loss(p)
        loss = loss + entropy_weight(epoch, self.settings.epochs, self.entropy) * entropy(p)
        require_finite(loss, where, "search.alpha_learning_rate")
        self.alphas.zero_grad()
        # The gradients of the weights are not asked for, so they are not computed.
        self.fabric.backward(loss, inputs=list(self.supernet.alphas))
        self.alphas.step()

    def _weight_step(self, rng: np.random.Generator, step: int, where: str) -> float:
        settings = self.settings
        rate = settings.learning_rate * cosine(step, settings.epochs * settings.steps_per_epoch)
        set_learning_rate(self.weights, rate)
        lr, hr = self._crops(rng, 0)
        loss = functional.l1_loss(self.network(lr), hr)
        value = require_finite(loss, where, "search.learning_rate")
        self.weights.zero_grad()
        self.fabric.backward(loss, inputs=list(self.supernet.weights()))
        self.fabric.clip_gradients(
            self.network, self.weights, max_norm=settings.gradient_clip, error_if_nonfinite=False
        )
        self.weights.step()
        return value

    def _probabilities(self) -> dict[str, Tensor]:
        with torch.no_grad():
            return self.supernet.probabilities()

    def _figures(self) -> dict[str, str]:
        p = self._probabilities()
        shown = {pressure.budget.metric: pressure.describe(p) for pressure in self.pressures}
        return {**shown, "entropy": f"{float(entropy(p)) / len(p):.2f}"}

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
