"""The final training: an architecture from scratch, quantisation-aware where it has bits."""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import nn

from hwnas.architecture import Architecture
from hwnas.checkpoints import NetworkRecord, load_network, load_state, save_network, save_state
from hwnas.data.resident import Crops
from hwnas.data.sources import TrainingData
from hwnas.errors import HwnasError
from hwnas.inference import Validation
from hwnas.networks.adadm import freeze_normalisation, is_data_dependent
from hwnas.operators.edge_oriented import expand
from hwnas.operators.layers import FloatLayers
from hwnas.progress import Progress
from hwnas.quantization.placement import Placement
from hwnas.run_directory import RunDirectory
from hwnas.training.common import Losses, cosine, make_fabric, seed_epoch, set_learning_rate
from hwnas.training.distance import Distance
from hwnas.training.settings import TrainSettings, require_compilable
from hwnas.training.teacher import Teacher
from hwnas.weights import float_weights

STEP_FACTOR = 0.7


def build_for_training(architecture: Architecture, settings: TrainSettings, placement: Placement) -> nn.Module:
    """The network to train: float or with fake quantisation, as its bits say."""
    if not architecture.is_quantised:
        return architecture.build(FloatLayers())
    from hwnas.quantization.brevitas_layers import build_quantised

    steps = min(settings.collect_steps, settings.steps_per_epoch)
    return build_quantised(architecture, settings.activations, steps, placement)


def learning_rate(architecture: Architecture, settings: TrainSettings, step: int) -> float:
    """Learning rate of a step, counted over all epochs."""
    base = settings.learning_rate or (1e-4 if architecture.is_quantised else 1e-3)
    schedule = settings.schedule or ("cosine" if architecture.is_quantised else "step")
    steps = settings.epochs * settings.steps_per_epoch
    if schedule == "cosine":
        return base * cosine(step, steps)
    if schedule == "halving":
        return float(base * 0.5 ** (4 * step // steps))
    return float(base * STEP_FACTOR ** (10 * step // steps))


def train(
    architecture: Architecture,
    data: TrainingData,
    settings: TrainSettings,
    placement: Placement,
    run: RunDirectory,
    seed: int,
    progress: Progress,
) -> float:
    """Train ``architecture`` and leave the best network by validation PSNR in ``run.weights``.

    Goes on from the last epoch if the run holds the state of an unfinished training.

    Returns:
        Validation PSNR of the best network, in dB.

    Raises:
        UsageError: if a quantised network is to be compiled.
        HwnasError: if the loss is not finite, images are too small, or a file cannot be read or written.
    """
    from torch.utils.tensorboard import SummaryWriter

    require_compilable(settings, architecture.is_quantised)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    fabric = make_fabric(settings.precision)
    distance = Distance(settings.distance, settings.crop * architecture.scale, fabric.device)
    teacher = None if settings.teacher is None else Teacher(settings.teacher, architecture.scale)
    if teacher is not None:
        data = teacher.prepared(data, progress)
    images = data.train.room_for(settings.crop, progress.say)
    seed_epoch(seed, "weights", 0)
    network = build_for_training(architecture, settings, placement)
    if settings.weights is not None and not run.train_state.exists():
        # What a float network lacks are the quantisers.
        network.load_state_dict(float_weights(architecture, settings.weights), strict=False)
    expand(network)
    # Set up before a state is loaded, which then goes to the device that the parameters are on.
    adam = torch.optim.Adam(network.parameters(), lr=1.0, weight_decay=settings.weight_decay)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    wrapped, optimizer = fabric.setup(torch.compile(network) if settings.compile else network, adam)
    crops = Crops(data.train, fabric.device)
    validation = Validation(data.validation, architecture.scale)
    best, first = -float("inf"), 0
    if run.train_state.exists():
        state = load_state(run.train_state)
        if state.get("architecture") != architecture.fingerprint:
            raise HwnasError(f"{run.train_state} is of another architecture; delete it, or train in a new folder")
        try:
            network.load_state_dict(state["network"])
            optimizer.load_state_dict(state["optimizer"])
            best, first = float(state["best"]), int(state["epoch"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise HwnasError(
                f"{run.train_state} does not belong to this training; delete it to begin again with --resume"
            ) from error
        _require_weights(run, first, placement)
    freeze_at = settings.epochs
    if is_data_dependent(network):
        freeze_at -= round(settings.freeze * settings.epochs)
    writer = SummaryWriter(str(run.events / "train"), purge_step=first)
    bar = progress.task("training", settings.epochs * settings.steps_per_epoch, first * settings.steps_per_epoch)
    for epoch in range(first, settings.epochs):
        rng = np.random.default_rng(seed_epoch(seed, "train", epoch))
        frozen = epoch >= freeze_at
        if frozen:
            freeze_normalisation(network)
        wrapped.train()
        losses = Losses(fabric.device, "train.learning_rate")
        for i in range(settings.steps_per_epoch):
            rate = learning_rate(architecture, settings, epoch * settings.steps_per_epoch + i)
            set_learning_rate(optimizer, rate)
            lr, hr = crops.sample(rng, settings.batch, settings.crop, images)
            loss = distance(wrapped(lr), hr if teacher is None else teacher.target(lr, hr))
            is_read = losses.add(loss, f"epoch {epoch + 1}, step {i + 1}")
            optimizer.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(wrapped, optimizer, max_norm=settings.gradient_clip, error_if_nonfinite=False)
            optimizer.step()
            if is_read:
                shown = f"{epoch + 1}/{settings.epochs}"
                bar.advance(epoch=shown, loss=f"{losses.mean:.4f}", best=f"{best:.2f} dB")
            else:
                bar.advance()
        mean = losses.read(f"epoch {epoch + 1}")
        psnr = validation.psnr(network)
        writer.add_scalar("train/loss", mean, epoch)
        writer.add_scalar("train/validation_psnr", psnr, epoch)
        writer.flush()
        # Once frozen, the network is another function: what went before does not compete with it.
        if psnr > best or epoch == freeze_at:
            best = psnr
            record = NetworkRecord(
                architecture=architecture,
                activations=settings.activations,
                placement=placement,
                frozen=frozen,
                validation_psnr=psnr,
            )
            save_network(run.weights, record, network)
        progress.say(f"epoch {epoch + 1}/{settings.epochs}: loss {mean:.4f}, validation {psnr:.2f} dB")
        save_state(
            run.train_state,
            {
                "architecture": architecture.fingerprint,
                "epoch": epoch + 1,
                "best": best,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
        )
    writer.close()
    return best


def _require_weights(run: RunDirectory, epochs: int, placement: Placement) -> None:
    """The best network so far may be of an epoch that is not repeated, and is to be of the same integers."""
    try:
        record, _ = load_network(run.weights)
    except HwnasError as error:
        raise HwnasError(
            f"{run.weights} cannot be read, though {epochs} epochs are trained; restore it, or delete "
            f"{run.train_state} to begin again"
        ) from error
    if record.architecture.is_quantised and record.placement != placement:
        raise HwnasError(
            f"{run.weights} is being trained for another kind of target than {run.config} names; put that back, or "
            "train with another --out"
        )
