"""Trials, and the workers that run them: real processes, some of which die."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from hwnas.data.crops import ImagePairs
from hwnas.errors import HwnasError
from hwnas.inference import Validation
from hwnas.searches.falsr.local_workers import LocalWorkers
from hwnas.searches.falsr.settings import EvaluationSettings
from hwnas.searches.falsr.trial import DivergedError, Outcome, TrialData, TrialPlan, run_trial
from hwnas.searches.falsr.workers import Failure, run_trials
from hwnas.spaces.falsr import Genotype
from tests.falsr.searching import TINY, picture, small_data, small_space

DATA = TrialData.of(small_data(), 2, None)


def plan(cell: int = 0, **changes: Any) -> TrialPlan:
    settings = EvaluationSettings.model_validate(TINY | changes.pop("settings", {}))
    architecture = small_space(**changes.pop("space", {})).architecture(Genotype((cell, cell), ((0, 1), (0,))))
    return TrialPlan(architecture=architecture, settings=settings, images=tuple(range(6)), seed=cell, **changes)


def test_the_same_plan_gives_the_same_outcome() -> None:
    a, b = run_trial(plan(), DATA), run_trial(plan(), DATA)
    assert (a.psnr, a.steps, a.stopped) == (b.psnr, b.steps, False)
    assert run_trial(plan().model_copy(update={"seed": 9}), DATA).psnr != a.psnr


def test_training_learns() -> None:
    bicubic = Validation(DATA.validation, 2).bicubic_psnr()
    learned = run_trial(plan(3, settings={"steps": 60, "batch": 4, "crop": 12}), DATA).psnr
    assert learned > bicubic + 0.5


def test_a_quantised_candidate_is_trained_with_its_quantisers() -> None:
    quantised = run_trial(plan(space={"width": 4}), DATA)
    assert quantised.psnr != run_trial(plan(), DATA).psnr


def test_a_time_limit_that_is_over_at_once_still_lets_one_step_be_made() -> None:
    assert run_trial(plan(settings={"steps": 10**6, "seconds": 1e-9}), DATA).steps == 1


def test_a_time_limit_ends_the_training_and_says_after_how_many_steps() -> None:
    outcome = run_trial(plan(settings={"steps": 10**6, "seconds": 0.3}), DATA)
    assert 0 < outcome.steps < 10**6 and outcome.seconds < 30


def test_a_hopeless_candidate_is_given_up_halfway() -> None:
    settings = {"steps": 6, "early_stop": 0.1}
    whole = run_trial(plan(settings=settings), DATA)
    assert whole.steps == 6 and not whole.stopped and whole.rung_psnr is not None
    given_up = run_trial(plan(settings=settings, stop_below=whole.rung_psnr + 0.01), DATA)
    assert given_up.stopped and given_up.steps == 3 and given_up.psnr == whole.rung_psnr
    just_not = run_trial(plan(settings=settings, stop_below=whole.rung_psnr - 0.01), DATA)
    assert just_not.psnr == whole.psnr


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(HwnasError, match="the loss became (nan|inf) in step"):
        run_trial(plan(settings={"learning_rate": 1e30}), DATA)


@pytest.mark.parametrize(("steps", "early_stop"), [(1, None), (2, 0.1)])
def test_a_network_that_the_last_step_broke_is_an_error_and_has_no_psnr(steps: int, early_stop: float | None) -> None:
    settings = {"steps": steps, "learning_rate": 1e30, "early_stop": early_stop}
    with pytest.raises(DivergedError, match="not finite after step 1"):
        run_trial(plan(settings=settings), DATA)


def test_an_image_that_anything_enlarges_without_an_error_does_not_decide() -> None:
    black = [*DATA.validation, ("black", np.zeros((32, 32, 3), np.uint8))]
    one_level_in_one_pixel = 10 * math.log10(255**2 * 32 * 32)
    without, found = (Validation(images, 2).bicubic_psnr() for images in (DATA.validation, black))
    assert found == pytest.approx((2 * without + one_level_in_one_pixel) / 3)
    assert math.isfinite(run_trial(plan(), TrialData(DATA.train, black)).psnr)


def test_the_middle_of_validation_images_is_scored_and_nothing_more_is_kept() -> None:
    cut = TrialData.of(small_data(), 2, 16)
    assert [image.shape for _, image in cut.validation] == [(32, 32, 3), (32, 32, 3)]
    np.testing.assert_array_equal(cut.validation[0][1], picture(100)[4:36, 8:40])


def test_images_survive_the_way_to_another_process(tmp_path: Path) -> None:
    DATA.save(tmp_path)
    again = TrialData.load(tmp_path, 2)
    assert run_trial(plan(), again).psnr == run_trial(plan(), DATA).psnr
    assert not again.train.pixels.flags.writeable


def test_a_collection_that_is_in_a_file_already_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.data.crops.MEMORY_LIMIT_BYTES", 0)
    for i in range(3):
        Image.fromarray(picture(i)).save(tmp_path / f"{i}.png")
    large = ImagePairs.prepare(sorted(tmp_path.glob("*.png")), 2, cache=tmp_path / "cache")
    data = TrialData(large, DATA.validation)
    data.save(tmp_path / "images")
    assert (tmp_path / "images" / "pixels.npy").is_symlink()
    again = TrialData.load(tmp_path / "images", 2)
    for i in range(3):
        for ours, theirs in zip(again.train.pair(i), large.pair(i), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_link_in_the_place_of_the_folder_is_replaced_and_what_it_names_is_left(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").touch()
    (tmp_path / "images").symlink_to(tmp_path / "elsewhere")
    DATA.save(tmp_path / "images")
    assert len(TrialData.load(tmp_path / "images", 2).validation) == 2
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_written_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "images").touch()
    with pytest.raises(HwnasError, match="cannot write the images for workers to .*images: Not a directory"):
        DATA.save(tmp_path / "images")


def test_images_of_a_search_that_was_killed_do_not_stay(tmp_path: Path) -> None:
    DATA.save(tmp_path / "images")
    fewer = TrialData(DATA.train, DATA.validation[:1])
    fewer.save(tmp_path / "images")
    assert len(TrialData.load(tmp_path / "images", 2).validation) == 1


# Workers


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    DATA.save(folder)
    return folder


@pytest.fixture
def workers(images: Path) -> Iterator[LocalWorkers]:
    with LocalWorkers(2, images, 2) as entered:
        yield entered


def results_of(workers: LocalWorkers, plans: list[TrialPlan]) -> dict[str, Outcome | Failure]:
    ended = filter(None, run_trials(workers, plans, patience=0.1))
    return {one.architecture.fingerprint: result for one, result in ended}


def test_workers_find_what_this_process_finds(workers: LocalWorkers) -> None:
    plans = [plan(cell) for cell in (0, 40, 100, 150)]
    ended = results_of(workers, plans)
    assert len(ended) == 4
    for one in plans:
        found = ended[one.architecture.fingerprint]
        assert isinstance(found, Outcome)
        # Sums are added up in another order by another number of threads.
        assert found.psnr == pytest.approx(run_trial(one, DATA).psnr, abs=0.01)


def _trial_processes() -> list[psutil.Process]:
    """Children of the server that forks them."""
    return [
        child
        for server in psutil.Process().children()
        for child in server.children()
        if child.status() != psutil.STATUS_ZOMBIE
    ]


def test_a_dead_workers_trial_is_tried_again(workers: LocalWorkers) -> None:
    long, killed, results = plan(settings={"steps": 150}), 0, []
    for ended in run_trials(workers, [long, plan(40)], patience=0.05):
        if ended is not None:
            results.append(ended)
        elif not killed and (processes := _trial_processes()):
            for process in processes:
                process.kill()
                killed += 1
    assert killed
    assert len(results) == 2 and all(isinstance(result, Outcome) for _, result in results)


def test_a_candidate_that_fails_twice_is_a_failure_and_the_others_go_on(workers: LocalWorkers) -> None:
    plans = [plan(0, settings={"learning_rate": 1e30}), plan(40)]
    results = {
        p.architecture.fingerprint: result for p, result in filter(None, run_trials(workers, plans, patience=0.1))
    }
    failure = results[plans[0].architecture.fingerprint]
    assert isinstance(failure, Failure) and "the loss became" in failure.reason and "\n" not in failure.reason
    assert isinstance(results[plans[1].architecture.fingerprint], Outcome)


def test_a_worker_that_is_killed_says_by_what(workers: LocalWorkers) -> None:
    workers.start(plan(settings={"steps": 10**6}))
    until = time.monotonic() + 60
    while not (processes := _trial_processes()) and time.monotonic() < until:
        workers.wait(0.1)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
    ended: list[Any] = []
    while not ended and time.monotonic() < until:
        ended = workers.wait(0.5)
    ((_, failure),) = ended
    assert isinstance(failure, Failure)
    assert "killed by SIGKILL" in failure.reason and "memory" in failure.reason


def test_leaving_ends_what_runs(images: Path) -> None:
    with LocalWorkers(2, images, 2) as workers:
        for cell in (0, 40):
            workers.start(plan(cell, settings={"steps": 10**6}))
        until = time.monotonic() + 60
        while len(running := _trial_processes()) < 2 and time.monotonic() < until:
            workers.wait(0.1)
    _, alive = psutil.wait_procs(running, timeout=10)
    assert len(running) == 2 and not alive


def test_workers_share_the_processors(images: Path) -> None:
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor, or one that processes cannot be bound to")
    with LocalWorkers(2, images, 2) as workers:
        for cell in (0, 40):
            workers.start(plan(cell, settings={"steps": 10**6}))
        until = time.monotonic() + 60
        bound: list[set[int]] = []
        while time.monotonic() < until:
            workers.wait(0.2)
            bound = [set(process.cpu_affinity()) for process in _trial_processes()]
            if len(bound) == 2 and not bound[0] & bound[1]:
                break
    assert len(bound) == 2 and not bound[0] & bound[1]
    assert bound[0] | bound[1] == os.sched_getaffinity(0)


ORPHANS = """
import sys, time
from pathlib import Path
from hwnas.searches.falsr.local_workers import LocalWorkers
from tests.falsr.test_trials import plan
if __name__ == "__main__":
    with LocalWorkers(2, Path(sys.argv[1]), 2) as workers:
        for cell in (0, 40):
            workers.start(plan(cell, settings={"steps": 10**6}))
        time.sleep(1000)
"""


@pytest.mark.slow
def test_trials_of_a_search_that_is_killed_end_by_themselves_and_say_nothing(images: Path, tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text(ORPHANS)
    root = Path(__file__).resolve().parents[2]
    search = subprocess.Popen(
        [sys.executable, tmp_path / "search.py", images],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    until, trials = time.monotonic() + 100, list[psutil.Process]()
    while len(trials) < 2 and time.monotonic() < until:
        time.sleep(0.1)
        trials = [one for server in psutil.Process(search.pid).children() for one in server.children()]
    time.sleep(1)
    search.kill()
    _, alive = psutil.wait_procs(trials, timeout=30)
    assert len(trials) == 2 and not alive
    assert search.communicate(timeout=10)[1] == ""
