"""Trials on a real Ray cluster, whose nodes are on this machine and die."""

import math
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.data.crops import ImagePairs
from hwnas.errors import HwnasError
from hwnas.searches.falsr import ray_workers
from hwnas.searches.falsr.ray_workers import RayWorkers
from hwnas.searches.falsr.settings import EvaluationSettings
from hwnas.searches.falsr.trial import Outcome, TrialData, TrialPlan, run_trial
from hwnas.searches.falsr.workers import Ended, Failure, run_trials
from hwnas.spaces.falsr import FALSRSpace

pytest.importorskip("ray", reason="Ray, the extra 'distributed', is not installed")

OBJECT_STORE = 80 << 20
SPACE = FALSRSpace(name="falsr", cells=2)
UNENDING = 10**7


@contextmanager
def cluster_of(cpus: int) -> Iterator[Any]:
    """A cluster whose head has so many CPUs."""
    # The paths of sockets have to be short.
    folder = Path(tempfile.mkdtemp(prefix="hr", dir="/tmp"))
    (folder / "ray").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": cpus,
                "object_store_memory": OBJECT_STORE,
                "include_dashboard": False,
                # A node that is killed is found dead in a second; usually it takes fifteen.
                "_system_config": {"health_check_period_ms": 300, "health_check_failure_threshold": 3},
            },
        )
        try:
            yield cluster
        finally:
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with cluster_of(1) as made:
        yield made


@contextmanager
def another_node(cluster: Any, cpus: int, **options: Any) -> Iterator[Any]:
    node = cluster.add_node(num_cpus=cpus, object_store_memory=OBJECT_STORE, **options)
    try:
        yield node
    finally:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)
        cluster.wait_for_nodes()  # until the cluster has seen it go


def trials_on(node: Any) -> list[Any]:
    """The processes of a node that run a trial."""
    import psutil  # which Ray brings

    found = []
    for process in psutil.Process(node.all_processes["raylet"][0].process.pid).children():
        try:
            if process.cmdline()[:1] == ["ray::_run"]:
                found.append(process)
        except psutil.NoSuchProcess:
            pass
    return found


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.05)


@pytest.fixture(scope="module")
def data() -> TrialData:
    rng = np.random.default_rng(0)
    images = [(f"{i}", rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)) for i in range(3)]
    return TrialData(ImagePairs.prepare(images, SPACE.scale), images[:1])


def plan(seed: int, steps: int = 4, learning_rate: float = 1e-4) -> TrialPlan:
    settings = EvaluationSettings(steps=steps, batch=1, crop=8, learning_rate=learning_rate)
    return TrialPlan(architecture=SPACE.sample(random.Random(seed)), settings=settings, images=(0, 1, 2), seed=seed)


def found(result: Outcome | Failure) -> dict[str, Any]:
    """What does not depend on how fast the machine is."""
    assert isinstance(result, Outcome), result
    return result.model_dump(exclude={"seconds"})


class CountingWorkers(RayWorkers):
    """They remember how often a plan was handed over."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.started: list[int] = []

    def start(self, plan: TrialPlan) -> None:
        self.started.append(plan.seed)
        super().start(plan)


@pytest.mark.slow
def test_trials_of_a_node_that_is_killed_run_on_another_and_find_what_they_find_here(
    cluster: Any, data: TrialData, capfd: pytest.CaptureFixture[str]
) -> None:
    plans = [plan(0, steps=400), plan(1, steps=400), *(plan(seed) for seed in range(2, 6))]
    ended: list[Ended] = []
    with another_node(cluster, 1) as node, CountingWorkers(cluster.address, data) as workers:
        assert workers.capacity == 2
        killed = False
        for one in run_trials(workers, plans, patience=0.05):
            if one is not None:
                ended.append(one)
            if not killed and trials_on(node):
                cluster.remove_node(node, allow_graceful=False)
                killed = True
    assert killed
    assert len(workers.started) > len(plans)
    assert sorted(done.seed for done, _ in ended) == [0, 1, 2, 3, 4, 5]
    for done, result in ended:
        assert found(result) == found(run_trial(done, data))
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_trial_that_always_dies_or_diverges_fails_after_two_attempts_and_the_others_go_on(
    cluster: Any, data: TrialData
) -> None:
    plans = [plan(0, steps=UNENDING), plan(1, learning_rate=1e30), plan(2)]
    results: dict[int, Outcome | Failure] = {}
    kills = 0
    with CountingWorkers(cluster.address, data) as workers:
        assert workers.capacity == 1
        for one in run_trials(workers, plans, patience=0.05):
            if one is not None:
                results[one[0].seed] = one[1]
            if workers.started[-1] == 0 and workers.started.count(0) > kills:
                running = trials_on(cluster.head_node)
                for process in running:
                    process.kill()
                kills += len(running)
    assert sorted(workers.started) == [0, 0, 1, 1, 2]
    assert results[0] == Failure("its process died; is there enough memory?")
    diverged = results[1]
    assert isinstance(diverged, Failure)
    assert diverged.reason.startswith("the loss became ")
    assert found(results[2]) == found(run_trial(plans[2], data))


@pytest.mark.slow
def test_nodes_that_join_are_used_and_ctrl_c_is_not_kept_waiting(cluster: Any, data: TrialData) -> None:
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with RayWorkers(cluster.address, data, cpus=0.5) as workers:
            assert workers.capacity == 2
            with another_node(cluster, 1):
                until(lambda: workers.wait(0.1) or workers.capacity == 4)
                workers.start(plan(0, steps=UNENDING))
                timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
                timer.start()
                started = time.monotonic()
                with pytest.raises(KeyboardInterrupt):
                    workers.wait(60)
                assert time.monotonic() - started < 5
    finally:
        signal.signal(signal.SIGINT, usual)
    until(lambda: not trials_on(cluster.head_node))


@pytest.mark.slow
def test_what_no_node_has_is_refused_at_once(cluster: Any, data: TrialData) -> None:
    what = "a trial wants 1 CPU and 1 GPU, and the largest node of the cluster .* has 1 CPU and 0 GPUs; ask for less"
    with pytest.raises(HwnasError, match=what), RayWorkers(cluster.address, data, gpus=1):
        pass


@pytest.mark.parametrize(("cpus", "gpus"), [(0, 0), (1, -1), (1, 1.5), (math.nan, 0), (math.inf, 0), (1, math.nan)])
def test_shares_that_ray_does_not_have_are_refused(cpus: float, gpus: float, data: TrialData) -> None:
    with pytest.raises(HwnasError, match="a trial cannot have"), RayWorkers("auto", data, cpus=cpus, gpus=gpus):
        pass


@pytest.mark.slow
def test_when_no_worker_is_left_the_search_ends(cluster: Any, data: TrialData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "GONE_SECONDS", 3.0)
    with (
        another_node(cluster, 2) as node,
        RayWorkers(cluster.address, data, cpus=2) as workers,
        pytest.raises(HwnasError, match="no worker of the cluster is left that has 2 CPUs .* --resume"),
    ):
        for _ in run_trials(workers, [plan(0, steps=UNENDING)], patience=0.05):
            if node in cluster.worker_nodes and trials_on(node):
                cluster.remove_node(node, allow_graceful=False)


@pytest.mark.slow
def test_a_cluster_that_ends_ends_the_search(data: TrialData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "GONE_SECONDS", 3.0)
    with cluster_of(1) as cluster:
        started = time.monotonic()
        with (
            pytest.raises(HwnasError, match="the Ray cluster at .* is lost .* --resume"),
            RayWorkers(cluster.address, data) as workers,
        ):
            cluster.remove_node(cluster.head_node, allow_graceful=False)
            started = time.monotonic()
            for _ in run_trials(workers, [plan(0)]):
                pass
        assert time.monotonic() - started < 30


@pytest.mark.slow
def test_a_node_that_cannot_import_hwnas_is_told_apart(
    cluster: Any, data: TrialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hwnas.py").write_text("raise ModuleNotFoundError(\"No module named 'hwnas'\", name='hwnas')")
    # Ray adds the folder of the command to the path of its workers.
    monkeypatch.chdir(tmp_path)
    node = another_node(cluster, 3, env_vars={"PYTHONPATH": str(tmp_path)})
    with node, RayWorkers(cluster.address, data, cpus=3) as workers:
        ended = [one for one in run_trials(workers, [plan(0)]) if one is not None]
    assert ended == [
        (plan(0), Failure("its node cannot import hwnas; install it there, in the version that is here", "worker"))
    ]


def test_without_ray_the_extra_is_named(data: TrialData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HwnasError, match=r"Ray is not installed; pip install 'hwnas\[distributed\]'"):
        RayWorkers("auto", data).__enter__()


@pytest.mark.parametrize("address", ["local", "", "nonsense", "127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:6379"])
def test_what_is_no_address_is_refused(address: str, data: TrialData) -> None:
    with pytest.raises(HwnasError, match=r"is no address of a Ray cluster; give HOST:PORT"), RayWorkers(address, data):
        pass


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nothing_listens_no_cluster_is_waited_for(scheme: str, data: TrialData) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with (
        pytest.raises(HwnasError, match=f"no Ray cluster can be reached at {scheme}127.0.0.1:{port} .*refused.*--head"),
        RayWorkers(f"{scheme}127.0.0.1:{port}", data),
    ):
        pass
    assert time.monotonic() - started < 2


@pytest.mark.slow
def test_what_listens_and_is_no_cluster_is_given_up(data: TrialData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_workers, "CONNECT_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(HwnasError, match="it does not answer as a cluster"), RayWorkers(address, data):
            pass
