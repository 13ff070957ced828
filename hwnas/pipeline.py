"""The stages of a run, each from what the run directory holds to what it adds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hwnas.architecture import Architecture, load_architecture
from hwnas.budget import Budget, parse_budgets
from hwnas.checkpoints import load_run_network, load_state
from hwnas.config import RunConfig
from hwnas.data.sources import TrainingData, load_training_data
from hwnas.devices import Measurement, Timing, open_device
from hwnas.devices.measurement import NOISE
from hwnas.devices.target import Target, load_target, target_names
from hwnas.errors import HwnasError, UsageError
from hwnas.evaluation import Evaluation, evaluate_pairs, load_pairs
from hwnas.exporters import EXPORTERS
from hwnas.exporters.artifact import ArtifactUpscaler
from hwnas.exporters.base import Exporter, ExportOptions
from hwnas.exporters.profiles import PROFILES
from hwnas.exporters.untrained import takes_one_size, untrained_suffix, write_untrained
from hwnas.exporters.verify import ExportReport
from hwnas.files import atomic_files, write_text
from hwnas.operators import FLOAT_BITS
from hwnas.progress import Progress, Task
from hwnas.run_directory import RunDirectory
from hwnas.searches import SEARCHES, Machines, SearchTask
from hwnas.searches.results import save_result
from hwnas.sizes import Size, format_size, parse_size
from hwnas.spaces import SPACES
from hwnas.spaces.space import SearchSpace
from hwnas.training.settings import require_compilable


def space_of(config: RunConfig) -> SearchSpace:
    """The search space that the settings describe."""
    return SPACES[config.space_name](config.space)


def input_size_of(config: RunConfig) -> Size | None:
    """The size of low-resolution images that the settings state."""
    return None if config.input_size is None else parse_size(config.input_size)


def budgets_of(config: RunConfig) -> tuple[Budget, ...]:
    """The budgets that the settings state."""
    return parse_budgets(config.budgets, input_size_of(config), config.target)


def check(config: RunConfig) -> None:
    """Find out now, before anything is loaded or written, whether the settings make sense.

    Raises:
        UsageError: for an unknown space, algorithm or target, or a budget or setting that cannot be met.
    """
    load_target(config.target)
    require_compilable(config.train, any(bits != FLOAT_BITS for bits in space_of(config).bits))
    SEARCHES[config.algorithm].check(space_of(config), budgets_of(config), config.search, input_size_of(config))


def reach_devices(config: RunConfig) -> None:
    """Find out whether costs can be predicted, and at which speed, where that is for a device to say.

    Raises:
        HwnasError: if they cannot.
    """
    algorithm = SEARCHES[config.algorithm]
    algorithm.reach_devices(space_of(config), budgets_of(config), config.search, input_size_of(config))


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


def search(
    config: RunConfig, run: RunDirectory, data: TrainingData, progress: Progress, machines: Machines | None = None
) -> Architecture:
    """Search, unless the run has found its architecture already.

    Raises:
        HwnasError: as the search does, or if it found something else than was asked for, which is kept.
    """
    if run.architecture.exists():
        progress.say(f"{run.path}: the search is complete")
        return _found(run)
    algorithm = SEARCHES[config.algorithm]
    task = SearchTask(
        space=space_of(config),
        budgets=budgets_of(config),
        data=data,
        settings=config.search,
        target=config.target,
        seed=config.seed,
        run=run,
        progress=progress,
        machines=machines or Machines(),
        input_size=input_size_of(config),
    )
    result = algorithm.run(task)
    save_result(run, result, algorithm.columns)
    return _found(run)


def _found(run: RunDirectory) -> Architecture:
    if run.missed.exists():
        raise HwnasError(run.missed.read_text(encoding="utf-8", errors="replace").strip())
    return load_architecture(run.architecture)


def train(config: RunConfig, run: RunDirectory, data: TrainingData, progress: Progress) -> float:
    """Train the run's architecture; returns the validation PSNR in dB."""
    from hwnas.training.train import train as train_network

    placement = PROFILES[load_target(config.target).profile].placement
    return train_network(load_architecture(run.architecture), data, config.train, placement, run, config.seed, progress)


def epochs_left(config: RunConfig, run: RunDirectory) -> int:
    """Epochs of the final training that have not been done; none where the state of the training is lost."""
    try:
        return config.train.epochs - int(load_state(run.train_state)["epoch"])
    except (HwnasError, KeyError):
        return 0


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is to be written.

    Attributes:
        path: where to.
        format: name of the exporter; None for that of the target.
        precision: ``fp32``, ``fp16``, ``int8`` or ``mixed``; None for as it was trained.
        options: what is asked for besides.
        freeze_adadm: AdaDM is to use its running statistics, though it was trained with those of each image.
        benchmark: folder of images to score on; None for the held-out photographs.
    """

    path: Path
    format: str | None = None
    precision: str | None = None
    options: ExportOptions = field(default_factory=ExportOptions)
    freeze_adadm: bool = False
    benchmark: Path | None = None


def export(
    config: RunConfig, run: RunDirectory, data: TrainingData, request: ExportRequest, progress: Progress
) -> ExportReport:
    """Write the run's network for its target and verify what was written; leaves a report beside it.

    Raises:
        UsageError: if the format cannot do what is asked for.
        HwnasError: if the file computes something else than the network.
    """
    from hwnas.exporters import verify
    from hwnas.exporters.deploy import float_twin, freeze_adadm, make_deployable
    from hwnas.networks.adadm import is_data_dependent

    target = load_target(config.target)
    exporter, profile = _exporter(target, request.format), PROFILES[target.profile]
    record, network = load_run_network(run)
    scale = record.architecture.scale
    held_out = verify.held_out_pairs(data.validation, scale)
    pairs = held_out if request.benchmark is None else list(load_pairs(request.benchmark, scale))
    notes = []
    if request.freeze_adadm:
        record, network, cost = freeze_adadm(record, network, pairs)
        notes.append(cost)
    elif is_data_dependent(network):
        notes.append("AdaDM sums over each image, in float; --freeze-adadm takes the statistics of training instead")
    chosen = request.precision or ("mixed" if record.architecture.is_quantised else "fp32")
    options = replace(request.options, half=chosen == "fp16", accelerator=target.accelerator)
    precision = "fp32" if chosen == "fp16" else chosen
    deployable = make_deployable(
        record,
        network,
        precision,  # type: ignore[arg-type]
        data,
        config.train.crop,
        profile,
        progress.say,
    )
    trained = deployable
    if exporter.requantises and deployable.record.architecture.is_quantised:
        deployable = replace(
            float_twin(deployable.record, deployable.network),
            how="quantised to 8 bits as it was written: the quantisers of training cannot be handed over",
        )
        options = replace(options, requantise=True)
    samples, crops = verify.calibration_crops(data.train, options.size), verify.parity_crops(held_out, options.size)
    # A file that fails, or is interrupted, before it is verified takes nobody's place.
    with atomic_files(request.path, exporter.writes_folder) as path:
        writing = progress.task("export", 1)
        artifact, parity = verify.export_verified(deployable, path, exporter, profile, options, samples, crops)
        writing.advance()
        report = verify.ExportReport(
            path=request.path,
            format=exporter.name,
            target=target.name,
            profile=target.profile,
            how=deployable.how,
            notes=(
                *notes,
                *exporter.notes(path, profile),
                *_widened(trained.record.architecture, target),
                *_small(trained.record.architecture, options.size),
            ),
            size_bytes=sum(file.stat().st_size for file in exporter.files(path)),
            runtime=None if artifact is None else artifact.artifact.runtime,
            parity=parity,
            scores=verify.score(trained, artifact, pairs, progress),
        )
        verify.save_report(report, path)
    return report


def _exporter(target: Target, format_name: str | None) -> Exporter:
    """The exporter of a format that is for the target, or for no target in particular."""
    exporter = EXPORTERS[format_name or target.artifact]
    others = [name for name in target_names() if load_target(name).artifact == exporter.name]
    # ONNX is what most tools start from.
    if exporter.name != "onnx" and others and target.name not in others:
        raise UsageError(
            f"{target.name} runs {target.artifact} files; {exporter.name} files are for --target {' or '.join(others)}"
        )
    return exporter


def _widened(architecture: Architecture, target: Target) -> list[str]:
    """What the target makes of widths that it does not compute."""
    widths = ", ".join(map(str, target.compute_bits))
    names = ", ".join(target.widened_layers(architecture))
    return (
        [f"{target.name} computes in {widths} bits: {names} are computed in the next wider of these"] if names else []
    )


def _small(architecture: Architecture, size: tuple[int, int] | None) -> list[str]:
    """What becomes of larger images where a file takes few pixels at once."""
    least = 4 * architecture.receptive_radius
    if size is None or min(size) >= least:
        return []
    return [
        f"a pixel depends on others up to {architecture.receptive_radius} away: larger images, in windows of "
        f"{size[0]}x{size[1]}, lose by it; windows of {least}x{least} and more do not"
    ]


def run_all(
    config: RunConfig, run: RunDirectory, progress: Progress, machines: Machines | None = None
) -> tuple[Evaluation, dict[str, Measurement]]:
    """Search, train, export, evaluate, and measure what is bounded in time; leaves ``summary.md``."""
    from hwnas.exporters.verify import held_out_pairs
    from hwnas.reports.summary import summarise_run

    data = load_data(config, space_of(config).scale, progress)
    architecture = search(config, run, data, progress, machines)
    train(config, run, data, progress)
    report = export(config, run, data, ExportRequest(run.onnx, format="onnx"), progress)
    progress.say(f"{run.onnx}: parity with torch {report.parity}")
    upscaler = ArtifactUpscaler(EXPORTERS["onnx"].open(run.onnx))
    evaluation = evaluate_pairs(upscaler, held_out_pairs(data.validation, upscaler.scale), upscaler.scale)

    def summarise(measured: dict[str, Measurement]) -> None:
        tried_many = run.candidates.is_file()
        page = summarise_run(architecture, config, budgets_of(config), evaluation, report, measured, tried_many)
        write_text(run.summary, page)

    if not run.summary.exists():  # and so it is, whatever becomes of the device
        summarise({})
    measured = measure_exported(config, run, progress)
    summarise(measured)
    return evaluation, measured


def measure_exported(config: RunConfig, run: RunDirectory, progress: Progress) -> dict[str, Measurement]:
    """What the run's network takes on the target, for each budget in time, by metric; the last is ``profile.json``.

    It is ``model.onnx`` that is measured where the target's runtime reads such files, for images of any size, and else
    the network in one that it does read, with other weights.

    Raises:
        HwnasError: if the device cannot measure.
    """
    target, found = load_target(config.target), {}
    for budget in budgets_of(config):
        if not budget.model.measurable:
            continue
        with open_device(target) as device, TemporaryDirectory(prefix="hwnas-") as folder:
            path = run.onnx
            if untrained_suffix(target) != path.suffix or takes_one_size(target):
                path = Path(folder) / f"network{untrained_suffix(target)}"
                write_untrained(load_architecture(run.architecture), target, budget.input_size, path)
            (measured,) = device.measure([path], Timing(budget.input_size, layers=True), progress)
        found[budget.metric] = measured
        figures = {"network": str(path.name), "target": target.name, "input_size": format_size(budget.input_size)}
        write_text(run.profile, json.dumps(figures | measured.as_json(), indent=2) + "\n")
        verdict = "over" if budget.is_missed(measured.p50) else "within"
        progress.say(f"{path.name}: {budget.format(measured.p50)} {measured.method}, {verdict} the budget of {budget}")
        if measured.is_noisy:
            progress.say(NOISE)
    return found
