"""Where candidates are tried out, as users say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hwnas.config import RunConfig
    from hwnas.searches import Machines

Workers = Annotated[
    int | None, typer.Option("--workers", help="falsr: candidates that are trained at once.", min=1, show_default="1")
]
RayAddress = Annotated[
    str | None, typer.Option("--ray", metavar="ADDRESS", help="falsr: train candidates on this Ray cluster.")
]
RayCpus = Annotated[
    float | None,
    typer.Option("--trial-cpus", help="Processors of the cluster for each candidate.", min=0, show_default="1"),
]
RayGpus = Annotated[
    float | None,
    typer.Option("--trial-gpus", help="GPUs of the cluster for each candidate: 0.5.", min=0, show_default="0"),
]


def chosen_machines(
    config: RunConfig,
    workers: int | None,
    ray: str | None,
    cpus: float | None,
    gpus: float | None,
    are_needed: bool = True,
) -> Machines:
    """Where candidates are tried out; of a cluster that ``are_needed``, whether it is there.

    Raises:
        UsageError: if the algorithm tries out none, or options contradict each other.
        HwnasError: if nothing listens where the cluster is said to be.
    """
    from hwnas.errors import UsageError
    from hwnas.searches import SEARCHES, Machines

    given = {"--workers": workers, "--ray": ray, "--trial-cpus": cpus, "--trial-gpus": gpus}
    named = [option for option, value in given.items() if value is not None]
    if named and not SEARCHES[config.algorithm].takes_machines:
        raise UsageError(f"{config.algorithm} searches in one process; leave {named[0]} out")
    if ray is not None and workers is not None:
        raise UsageError(
            "--workers are processes of this machine, and --ray takes those of a cluster; give one of them"
        )
    if ray is None and named and named != ["--workers"]:
        raise UsageError(f"{named[-1]} is for clusters; add --ray ADDRESS, or leave it out")
    known = {"workers": workers, "ray": ray, "cpus": cpus, "gpus": gpus}
    machines = Machines(**{name: value for name, value in known.items() if value is not None})  # type: ignore[arg-type]
    if machines.ray is not None and are_needed:
        from hwnas.searches.falsr.ray_workers import require_reachable

        require_reachable(machines.ray, machines.cpus, machines.gpus)
    return machines
