"""The stages of a run, each from what the run directory holds to what it adds."""

from __future__ import annotations

from pathlib import Path

from hwnas.architecture import Architecture, load_architecture
from hwnas.budget import Budget, parse_budgets, parse_size
from hwnas.checkpoints import load_run_network, load_state
from hwnas.config import RunConfig
from hwnas.data.degradation import crop_to_multiple, downscale
from hwnas.data.sources import TrainingData, load_training_data
from hwnas.devices.target import load_target
from hwnas.errors import HwnasError
from hwnas.evaluation import Evaluation, evaluate_pairs
from hwnas.exporters.onnx import OnnxSummary
from hwnas.exporters.parity import ParityReport
from hwnas.exporters.profiles import PROFILES, Profile
from hwnas.files import write_text
from hwnas.progress import Progress, Task
from hwnas.run_directory import RunDirectory
from hwnas.searches import SEARCHES, SearchTask
from hwnas.searches.results import save_result
from hwnas.spaces import SPACES
from hwnas.spaces.space import SearchSpace


def space_of(config: RunConfig) -> SearchSpace:
    """The search space that the settings describe."""
    return SPACES[config.space_name](config.space)


def budgets_of(config: RunConfig) -> tuple[Budget, ...]:
    """The budgets that the settings state."""
    size = None if config.input_size is None else parse_size(config.input_size)
    return parse_budgets(config.budgets, size)


def profile_of(config: RunConfig) -> Profile:
    """The exporter profile of the target that the settings name."""
    return PROFILES[load_target(config.target).profile]


def check(config: RunConfig) -> None:
    """Find out now, before anything is loaded or written, whether the settings make sense.

    Raises:
        UsageError: for an unknown space, algorithm or target, or a budget that cannot be met.
    """
    from hwnas.searches.feasibility import require_feasible

    load_target(config.target)
    require_feasible(space_of(config), budgets_of(config))


def load_data(config: RunConfig, scale: int, progress: Progress) -> TrainingData:
    """The photographs that the settings name, with a bar for what takes long."""
    bars: dict[str, tuple[Task, int]] = {}

    def tell(label: str, done: int, total: int) -> None:
        task, seen = bars.get(label) or (progress.task(label, total), 0)
        task.advance(done - seen)
        bars[label] = (task, done)

    return load_training_data(config.data, scale, config.seed, tell)


def trained_scale(run: RunDirectory) -> int:
    """Enlargement of the run's network."""
    return load_architecture(run.architecture).scale


def search(config: RunConfig, run: RunDirectory, data: TrainingData, progress: Progress) -> Architecture:
    """Search, unless the run has found its architecture already."""
    if run.architecture.exists():
        progress.say(f"{run.path}: the search is complete")
        return load_architecture(run.architecture)
    algorithm = SEARCHES[config.algorithm]
    task = SearchTask(
        space=space_of(config),
        budgets=budgets_of(config),
        data=data,
        settings=config.search,
        seed=config.seed,
        run=run,
        progress=progress,
    )
    result = algorithm.run(task)
    save_result(run, result)
    return result.chosen


def train(config: RunConfig, run: RunDirectory, data: TrainingData, progress: Progress) -> float:
    """Train the run's architecture; returns the validation PSNR in dB."""
    from hwnas.training.train import train as train_network

    placement = profile_of(config).placement
    return train_network(load_architecture(run.architecture), data, config.train, placement, run, config.seed, progress)


def epochs_left(config: RunConfig, run: RunDirectory) -> int:
    """Epochs of the final training that have not been done; none where the state of the training is lost."""
    try:
        return config.train.epochs - int(load_state(run.train_state)["epoch"])
    except (HwnasError, KeyError):
        return 0


def export(
    config: RunConfig, run: RunDirectory, data: TrainingData, precision: str | None, path: Path
) -> tuple[str, OnnxSummary, ParityReport]:
    """Export the run's network and verify the file; ``precision`` None: as trained.

    Returns:
        How its numbers came about, what the file holds, and the parity with torch.
    """
    from hwnas.exporters.deploy import export_verified, make_deployable, parity_crops

    record, network = load_run_network(run)
    chosen = precision or ("mixed" if record.architecture.is_quantised else "fp32")
    profile = profile_of(config)
    deployable = make_deployable(record, network, chosen, data, config.train.crop, profile)  # type: ignore[arg-type]
    crops = parity_crops(data.validation, record.architecture.scale)
    summary, parity = export_verified(deployable, path, crops, profile)
    return deployable.how, summary, parity


def evaluate_validation(model: Path, data: TrainingData) -> Evaluation:
    """Score an exported file on the held-out photographs."""
    from hwnas.exporters.runtime import OnnxUpscaler

    upscaler = OnnxUpscaler(model)
    whole = [(name, crop_to_multiple(image, upscaler.scale)) for name, image in data.validation]
    pairs = [(name, downscale(hr, upscaler.scale), hr) for name, hr in whole]
    return evaluate_pairs(upscaler, pairs, upscaler.scale)


def run_all(config: RunConfig, run: RunDirectory, progress: Progress) -> Evaluation:
    """Search, train, export, evaluate; leaves ``summary.md``."""
    from hwnas.reports.summary import summarise_run

    data = load_data(config, config.space.scale, progress)
    architecture = search(config, run, data, progress)
    train(config, run, data, progress)
    how, summary, parity = export(config, run, data, None, run.onnx)
    progress.say(f"{run.onnx}: parity with torch {parity.mean:.2g} grey levels mean, {parity.maximum:.2g} at most")
    evaluation = evaluate_validation(run.onnx, data)
    target = load_target(config.target)
    page = summarise_run(architecture, config, budgets_of(config), target, evaluation, how, summary, parity)
    write_text(run.summary, page)
    return evaluation
