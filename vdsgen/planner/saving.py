"""How often a plan saves, what that costs, and what would cost least."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from vdsgen.cost.offload import Host
from vdsgen.cost.settings import Settings
from vdsgen.errors import InputError, Problem
from vdsgen.planner.host_memory import copied_bytes
from vdsgen.planner.search import Candidate
from vdsgen.planner.words import duration, gib, percent, seconds
from vdsgen.planner.workload import Workload
from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.checkpoint_interval import best_steps, overhead_fraction
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.lab import Gpu, Pool
from vdsgen.spec.plan import Plan, PlannedSaving

GB = 1e9
FAR_FRACTION = 0.005
"""Of the run's time: an interval that costs so much more than the best one is worth a sentence."""


def planned_saving(workload: Workload, candidate: Candidate) -> PlannedSaving | None:
    """None where the pool does not say how fast it writes, and nothing is copied.

    Raises InputError where the interval is to be found and the pool lacks a figure for it."""
    training, pool = workload.experiment.training, workload.pool
    settings, partition = candidate.settings, candidate.placed.partition
    rate = write_gb_per_second(pool)
    if training.saving.every_steps == "auto":
        _check_figures(pool, rate)
    copied = copied_bytes(workload, settings, partition)
    if rate is None and not copied:
        return None
    saved = _SavedByRank.of(workload, settings, partition)
    found = PlannedSaving(
        every_steps=_given(workload),
        checkpoint_bytes=sum(saved.by_rank),
        copied_bytes_by_stage=copied,
    )
    if rate is None:
        return found
    write = saved.write_seconds(pool, rate)
    delta = saved.copy_seconds(workload) if copied else write
    found = found.model_copy(update={"write_seconds": write, "blocking_seconds": delta})
    step = candidate.time.step_seconds
    if pool.failures is None:
        return found.model_copy(update={"saving_fraction": delta / (found.every_steps * step + delta)})
    between = pool.failures.seconds_between(settings.world_size, _nodes_used(pool, settings.world_size))
    # Read as fast as it is written. What is on its way to the disk when a failure comes is lost as well.
    restart = pool.failures.restart_seconds + write
    behind = write if copied else 0.0
    best = best_steps(step, delta, between, training.steps)
    if copied:  # a save waits for the one before
        best = min(max(best, int(write / step) + 1), training.steps)
    every = best if training.saving.every_steps == "auto" else found.every_steps
    return found.model_copy(
        update={
            "every_steps": every,
            "between_failures_seconds": between,
            "best_every_steps": best,
            "saving_fraction": delta / (every * step + delta),
            "lost_seconds_per_failure": (every * step + delta) / 2 + behind + restart,
            "overhead_fraction": _finite(overhead_fraction(every * step, delta, between, restart + behind)),
            "best_overhead_fraction": _finite(
                overhead_fraction(best * step, delta, between, restart + behind)
            ),
        }
    )


def with_interval(experiment: Experiment, saving: PlannedSaving | None) -> Experiment:
    """The experiment with the planned number where it says `auto`."""
    training = experiment.training
    if training.saving.every_steps != "auto" or saving is None:
        return experiment
    settled = training.saving.model_copy(update={"every_steps": saving.every_steps})
    return experiment.model_copy(update={"training": training.model_copy(update={"saving": settled})})


def saving_reason(saving: PlannedSaving | None) -> str | None:
    """Why it saves so often; what another interval would cost where that is worth knowing."""
    if saving is None or saving.best_every_steps is None or saving.between_failures_seconds is None:
        return None
    every, best = saving.every_steps, saving.best_every_steps
    assert saving.write_seconds is not None and saving.blocking_seconds is not None
    facts = (
        f"a failure every {duration(saving.between_failures_seconds)}, "
        f"{gib(saving.checkpoint_bytes)} written in {seconds(saving.write_seconds)}"
    )
    if saving.copied_bytes_by_stage:
        facts += f" beside training, which waits {seconds(saving.blocking_seconds)} for the copy"
    if every == best:
        return f"Saving every {every} steps costs least (Daly 2006): {facts}."
    costs = f"Saving every {every} steps is asked for; every {best} would cost least ({facts})"
    if not is_far(saving):
        return f"{costs}, by little."
    now, then = (_percent(value) for value in (saving.overhead_fraction, saving.best_overhead_fraction))
    return f"{costs}: {then} of the run's time instead of {now}; every_steps: auto takes it."


def is_far(saving: PlannedSaving | None) -> bool:
    """Whether another interval would save a run time that matters."""
    if saving is None or saving.best_overhead_fraction is None:
        return False
    if saving.overhead_fraction is None:
        return True
    return saving.overhead_fraction - saving.best_overhead_fraction > FAR_FRACTION


def saving_rows(plan: Plan) -> list[tuple[str, str]]:
    """What the speed table tells of it."""
    saving = plan.saving
    if saving is None or saving.write_seconds is None or saving.saving_fraction is None:
        return []
    assert saving.blocking_seconds is not None
    held_up = seconds(saving.blocking_seconds)
    text = f"every {saving.every_steps} steps, {gib(saving.checkpoint_bytes)} in {held_up}"
    if saving.copied_bytes_by_stage:
        text += f" (written beside training in {seconds(saving.write_seconds)})"
    rows = [("saving", f"{text}: {percent(saving.saving_fraction)}")]
    if saving.between_failures_seconds is not None and saving.lost_seconds_per_failure is not None:
        lost = duration(saving.lost_seconds_per_failure)
        rows.append(
            (
                "failures",
                f"every {duration(saving.between_failures_seconds)}, {lost} lost each; with saving "
                f"{_percent(saving.overhead_fraction)} on top of the run",
            )
        )
    return rows


def write_gb_per_second(pool: Pool) -> float | None:
    """Of one node: what the lab says, else what a calibration measured."""
    if pool.checkpoint_storage is not None:
        return pool.checkpoint_storage.write_gb_per_second
    calibration = pool.calibration
    if isinstance(calibration, Calibration) and calibration.checkpoint_write_gb_per_second is not None:
        return middle(calibration.checkpoint_write_gb_per_second)
    return None


class _SavedByRank(NamedTuple):
    """Bytes that each rank of a job writes, in the order of the ranks."""

    by_rank: list[int]

    @classmethod
    def of(cls, workload: Workload, settings: Settings, partition: tuple[int, ...]) -> _SavedByRank:
        """Stages come one after the other; of each the first data-parallel rank (of every tensor-parallel
        part) writes the weights too."""
        tensor, data = settings.tensor_parallel_size, settings.sequence_data_parallel_size
        by_rank: list[int] = []
        for start, stop in pairwise(partition):
            saved = workload.saved(settings, start, stop)
            by_rank += [saved.first_rank_bytes] * tensor
            by_rank += [saved.other_ranks_bytes] * (tensor * (data - 1))
        return cls(by_rank)

    def write_seconds(self, pool: Pool, node_gb_per_second: float) -> float:
        """All nodes write at once, each what its ranks have; the slowest decides, or what all share."""
        slowest = max(self._by_node(pool)) / node_gb_per_second / GB
        storage = pool.checkpoint_storage
        if storage is None or storage.total_write_gb_per_second is None:
            return slowest
        return max(slowest, sum(self.by_rank) / storage.total_write_gb_per_second / GB)

    def copy_seconds(self, workload: Workload) -> float:
        """The slowest rank's copy to host memory, over its link; on processors, within memory."""
        pool = workload.pool
        assert isinstance(pool.gpu, Gpu)
        most = max(self.by_rank)
        if pool.gpu.memory_gib is None:
            share = pool.gpu.memory_bandwidth_gb_per_second * GB / pool.gpus_per_node
            return 2 * most / share  # read and written
        return most / Host.of(pool).link_bytes_per_second

    def _by_node(self, pool: Pool) -> list[int]:
        sums, first = [], 0
        for ranks in _ranks_of_nodes(pool, len(self.by_rank)):
            sums.append(sum(self.by_rank[first : first + ranks]))
            first += ranks
        return sums


def _ranks_of_nodes(pool: Pool, world_size: int) -> list[int]:
    """How many ranks each used node has: nodes are filled in the order of the lab file."""
    left, ranks = world_size, []
    for group in pool.node_groups:
        for _ in range(group.nodes):
            taken = min(left, group.gpus_in_use)
            if taken:
                ranks.append(taken)
            left -= taken
    return ranks


def _nodes_used(pool: Pool, world_size: int) -> int:
    return len(_ranks_of_nodes(pool, world_size))


def _given(workload: Workload) -> int:
    """The interval that is asked for; where it is to be found, the run's length until it is."""
    training = workload.experiment.training
    every = training.saving.every_steps
    return training.steps if every == "auto" else every


def _check_figures(pool: Pool, rate: float | None) -> None:
    missing = {
        "failures": (pool.failures, "failures: {mean_hours_between_failures_per_gpu: HOURS}"),
        "checkpoint_storage": (rate, "checkpoint_storage: {write_gb_per_second: RATE}, or calibrate it"),
    }
    lacking = {key: remedy for key, (figure, remedy) in missing.items() if figure is None}
    if lacking:
        raise InputError(
            [
                Problem(
                    f"is auto, and pool {pool.name} says nothing of {' and '.join(lacking)}",
                    key="training.saving.every_steps",
                    remedy=f"give a number of steps, or write into the pool: {'; '.join(lacking.values())}",
                )
            ]
        )


def _finite(value: float) -> float | None:
    return value if value < 1e6 else None


def _percent(fraction: float | None) -> str:
    return "more than the run itself, without end" if fraction is None else percent(fraction)
