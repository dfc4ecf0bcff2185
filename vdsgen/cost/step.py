"""Seconds of one optimizer step of a plan: pipeline, gradient reduction, optimizer, gathers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vdsgen.cost.communication import Collective, Path
from vdsgen.cost.hardware import Hardware
from vdsgen.cost.micro_batch import MicroBatchTimes
from vdsgen.cost.schedule import (
    PipelineRun,
    StageTimes,
    makespan_lower_bound,
    simulate,
    stage_end_lower_bounds,
)
from vdsgen.cost.settings import Settings
from vdsgen.cost.shared_processor import simulate_shared
from vdsgen.cost.stage_tails import StageTails
from vdsgen.cost.step_tail import StageTail, StepTail
from vdsgen.cost.step_time import StepTime
from vdsgen.cost.transfers import Transfers
from vdsgen.spec.architecture import Geometry
from vdsgen.spec.calibration import Calibration, middle
from vdsgen.spec.lab import Pool
from vdsgen.spec.profile import ModelProfile


class RankTimes(NamedTuple):
    """What a step consists of, of what each rank has where so many of them share every block and sample."""

    micro_batch: MicroBatchTimes
    transfers: Transfers
    tails: StageTails


class StepTimeModel:
    """Times steps of one model on one pool."""

    def __init__(
        self, profile: ModelProfile, geometry: Geometry, pool: Pool, loader_workers: int | None = None
    ) -> None:
        """`loader_workers` a rank decode clips, where the calibration says how long one takes."""
        self._profile = profile
        self._geometry = geometry
        self._loader_workers = loader_workers
        self.hardware = Hardware(pool)
        self._sharing = self.hardware.sharing
        known = pool.calibration.clip_seconds if isinstance(pool.calibration, Calibration) else None
        self._clip_seconds = None if known is None else middle(known)
        self._ranks: dict[tuple[int, int], RankTimes] = {}
        self.whole = self._rank_times(1, 1)
        """Of a rank that shares its blocks and its samples with none."""

    def _of(self, settings: Settings) -> RankTimes:
        """What each rank has where several share blocks or samples. Raises ValueError for a number of the
        first not traced."""
        sizes = (settings.tensor_parallel_size, settings.sequence_parallel_size)
        return self._ranks[sizes] if sizes in self._ranks else self._rank_times(*sizes)

    def _rank_times(self, tensor: int, sequence: int) -> RankTimes:
        profile = self._profile.shared_by(tensor)
        geometry = self._geometry._replace(sequence_parallel_size=sequence)
        micro_batch = MicroBatchTimes(profile, geometry, self.hardware)
        transfers = Transfers(profile, geometry, self.hardware)
        tails = StageTails(profile, self.hardware, micro_batch, transfers)
        self._ranks[tensor, sequence] = RankTimes(micro_batch, transfers, tails)
        return self._ranks[tensor, sequence]

    def layer_seconds(self, settings: Settings, stage: int = 0) -> tuple[float, ...]:
        """What each layer adds to the time of a stage that holds it, for one micro-batch."""
        return self._of(settings).micro_batch.layer_seconds(settings, stage)

    def forward_seconds(self, settings: Settings, stage: int = 0) -> tuple[float, ...]:
        """What of `layer_seconds` comes before backward."""
        return self._of(settings).micro_batch.forward_seconds(settings, stage)

    def stage_times(self, settings: Settings, partition: Sequence[int]) -> list[StageTimes]:
        """One micro-batch on each stage. `partition` holds the stages' boundaries, len stages + 1."""
        return self._of(settings).micro_batch.stage_times(settings, partition)

    def instruction_seconds(self, settings: Settings) -> float:
        """The engine's own Python in each forward and each backward of a pipeline's stage."""
        return self.whole.micro_batch.instruction_seconds(settings)

    def boundary_bytes(self, settings: Settings) -> tuple[float, ...]:
        """What each rank hands to the next stage of one micro-batch, behind each layer."""
        transfers = self._of(settings).transfers
        return transfers.boundary_bytes(settings.micro_batch_size, settings.dtype)

    def boundary_seconds(self, settings: Settings, stage: int) -> tuple[float, ...]:
        """For each layer, the seconds that what it hands on takes from `stage` to the next."""
        return self._of(settings).transfers.boundary_seconds(settings, stage)

    def stage_tail(self, settings: Settings, stage: int, start: int, stop: int) -> StageTail:
        """What `stage` does besides its micro-batches where it holds the layers start to stop - 1."""
        return self._of(settings).tails.of_stage(settings, stage, start, stop)

    def common_seconds(self, tails: Sequence[StageTail]) -> float:
        """What follows the last reduction, where these are among the stages."""
        return self._tail(tails).common_seconds

    def lower_bound_seconds(self, settings: Settings, partition: Sequence[int]) -> float:
        """Seconds that the step takes at least, found without running the pipeline; exact for one stage."""
        rank = self._of(settings)
        stages = rank.micro_batch.stage_times(settings, partition)
        micro_batches = settings.gradient_accumulation_steps
        tail = self._tail(rank.tails.of_stages(settings, partition))
        if self._sharing is not None:
            bound = self._shared_bound(settings, stages) + min(tail.reduce_seconds)
        else:
            ends = stage_end_lower_bounds(stages, rank.transfers.seconds(settings, partition), micro_batches)
            bound = max(through for _, through in ends)
            for (own, _), reduce_seconds in zip(ends, tail.reduce_seconds, strict=True):
                bound = max(bound, own + reduce_seconds)
        return self.finished_seconds(settings, bound + tail.common_seconds)

    def _shared_bound(self, settings: Settings, stages: Sequence[StageTimes]) -> float:
        """Of the pipeline on shared cores: no rank is faster than alone, no core ever more than busy."""
        assert self._sharing is not None
        micro_batches, ranks = settings.gradient_accumulation_steps, settings.stage_ranks
        work = micro_batches * sum(stage.busy_seconds for stage in stages) / len(stages)
        all_busy = work / self._sharing.speed(settings.world_size)
        alone = makespan_lower_bound(stages, micro_batches) / self._sharing.speed(ranks)
        return max(all_busy, alone)

    def step(self, settings: Settings, partition: Sequence[int]) -> StepTime:
        """Time one optimizer step.

        After its last backward each stage reduces its gradients; the gradient norm then waits for all.
        Communication never overlaps with compute: plans set `overlap_comm: false` (engine_defaults.py), which
        the engine forces for pipelines anyway (runtime/engine.py:2664).
        """
        rank, speed = self._of(settings), self.hardware.speed(settings.world_size)
        micro_batches = settings.gradient_accumulation_steps
        stages = rank.micro_batch.stage_times(settings, partition)
        transfers = rank.transfers.seconds(settings, partition)
        run = self._run(settings, stages, transfers)
        free = run if not any(transfers) else self._run(settings, stages, [0.0] * len(transfers))

        tail = self._tail(rank.tails.of_stages(settings, partition))
        reduced = max(
            end + seconds for end, seconds in zip(run.stage_end_seconds, tail.reduce_seconds, strict=True)
        )
        recompute = rank.micro_batch.recomputed_seconds(settings, partition)
        recompute *= micro_batches / len(stages) * self.hardware.again / speed
        tensor, sequence = (
            micro_batches * seconds / speed / len(stages)
            for seconds in rank.micro_batch.exchange_seconds(settings, partition)
        )
        return StepTime(
            stages=tuple(stages),
            compute_seconds=free.busy_seconds - recompute - tensor - sequence,
            recompute_seconds=recompute,
            bubble_seconds=free.makespan_seconds - free.busy_seconds,
            transfer_seconds=run.makespan_seconds - free.makespan_seconds,
            reduction_seconds=reduced - run.makespan_seconds,
            gather_seconds=tail.gather_seconds,
            optimizer_seconds=tail.optimizer_seconds,
            samples=settings.micro_batch_size * micro_batches * settings.data_parallel_size,
            model_flops=self.whole.micro_batch.model_flops(settings)
            * micro_batches
            * settings.data_parallel_size,
            peak_flops_per_second=self.hardware.peak_flops_per_second(settings),
            offload_seconds=tail.offload_seconds,
            data_seconds=self._waiting_seconds(settings, reduced + tail.common_seconds),
            data_is_known=self._clip_seconds is not None,
            overhead_seconds=tail.overhead_seconds,
            tensor_seconds=tensor,
            sequence_seconds=sequence,
        )

    def step_seconds(
        self, settings: Settings, partition: Sequence[int], tails: Sequence[StageTail] | None = None
    ) -> float:
        """`step(...).step_seconds`, without its parts: one run of the pipeline. `tails` of its stages, where
        they are known."""
        rank = self._of(settings)
        tail = self._tail(rank.tails.of_stages(settings, partition) if tails is None else tails)
        stages = rank.micro_batch.stage_times(settings, partition)
        run = self._run(settings, stages, rank.transfers.seconds(settings, partition))
        reduced = max(
            end + seconds for end, seconds in zip(run.stage_end_seconds, tail.reduce_seconds, strict=True)
        )
        return self.finished_seconds(settings, reduced + tail.common_seconds)

    @property
    def shares_cores(self) -> bool:
        """Whether ranks share a processor's cores: stages then slow each other down."""
        return self._sharing is not None

    def step_lower_bound(self, settings: Settings, reduced_seconds: float, common_seconds: float) -> float:
        """A step whose stages have reduced their gradients at `reduced_seconds` at the earliest, were each on
        a device of its own, and that then takes `common_seconds` at least."""
        if self._sharing is not None:  # no rank is faster than alone
            reduced_seconds /= max(1.0, self._sharing.speed(settings.stage_ranks))
        return self.finished_seconds(settings, reduced_seconds + common_seconds)

    def data_paths(self, settings: Settings, stage: int) -> tuple[Path, ...]:
        """What the stage's collectives run over."""
        kinds: tuple[Collective, ...] = ("all_reduce", "reduce_scatter", "all_gather")
        return tuple(self.hardware.data_path(settings, stage, kind) for kind in kinds)

    def finished_seconds(self, settings: Settings, step_seconds: float) -> float:
        """A step that has waited for its clips. Rises with `step_seconds`."""
        return step_seconds + self._waiting_seconds(settings, step_seconds)

    def _tail(self, tails: Sequence[StageTail]) -> StepTail:
        return StepTail.of(tails, self.hardware.factors.overhead_seconds)

    def _run(
        self, settings: Settings, stages: Sequence[StageTimes], transfers: Sequence[float]
    ) -> PipelineRun:
        micro_batches = settings.gradient_accumulation_steps
        if self._sharing is None:
            return simulate(stages, transfers, micro_batches)
        ranks = settings.stage_ranks
        return simulate_shared(stages, transfers, micro_batches, self._sharing, ranks)

    def _waiting_seconds(self, settings: Settings, step_seconds: float) -> float:
        """Clips of one rank that its loader's workers do not finish during a step."""
        if self._clip_seconds is None or self._loader_workers is None:
            return 0.0
        clips = settings.micro_batch_size * settings.gradient_accumulation_steps
        decoding = clips * self._clip_seconds / max(1, self._loader_workers)
        # Without workers the training process decodes by itself, before it computes.
        return decoding if self._loader_workers == 0 else max(0.0, decoding - step_seconds)
