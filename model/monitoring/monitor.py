"""One run's monitoring: around each step, what all ranks measured, and what rank 0 warns of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from deepspeed import comm as dist
from deepspeed.accelerator import get_accelerator

from vdsgen.model.agreement import everybodys
from vdsgen.model.configuration import Configuration
from vdsgen.model.console import is_first_rank, say, say_first
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.memory import PeakMemory, free_host_bytes
from vdsgen.model.metrics import StepMetrics
from vdsgen.model.monitoring.alarms import (
    SPOKEN_OVERFLOWS,
    Alarm,
    AlarmFile,
    GradientDrift,
    LayerShares,
    LossSpike,
    MemoryLeak,
    Place,
    VanishingScale,
)
from vdsgen.model.monitoring.clock import ACTIVITIES
from vdsgen.model.monitoring.gather import RankRow, gather_rows, stage_times
from vdsgen.model.monitoring.layers import Finding
from vdsgen.model.monitoring.trace import take_request
from vdsgen.model.monitoring.where import first_finding, words
from vdsgen.model.stopping import Wish, take_stop_request, wish_of
from vdsgen.spec.monitoring import Alarms
from vdsgen.spec.run import TRACE_REQUEST
from vdsgen.spec.steps import Steps


class RunMonitor:
    """Make one on every rank when the engine is built. Collective."""

    def __init__(self, configuration: Configuration, engine: TrainingEngine, first_step: int) -> None:
        self.engine, self.instruments = engine, engine.instruments
        self.run = configuration.output
        self.layout = configuration.rendered.layout
        training = configuration.rendered.experiment.training
        self.instruments.layers.enabled = training.alarms.layers
        self.instruments.tracer.steps = configuration.profile_steps
        self.instruments.schedule.steps = configuration.trace_steps
        self._places = self._all_places()
        self._most_layers = max(len(places) for places in self._places)
        self._skipped = int(engine.engine.skipped_steps)
        self._is_skipped = False
        self._finding: Finding | None = None
        self._squares: list[float] = []
        self.wish = Wish.GO_ON
        """What is to become of the run after the step that was last gathered; the same on every rank."""
        self.board: Board | None = None
        if is_first_rank():
            take_stop_request(self.run)  # of those who wanted an earlier start to end
            minimum = training.loss_scaling.minimum_loss_scale
            self.board = Board(
                training.alarms,
                minimum,
                self.run,
                first_step,
                configuration.steps,
                self.layout.world_size,
            )

    def _all_places(self) -> list[list[Place]]:
        """Of each rank, its layers."""
        watch = self.instruments.layers
        own = list(zip(watch.indices, watch.names, strict=True))
        return [
            [Place(index, name, self.layout.stage_of(rank), rank) for index, name in pairs]
            for rank, pairs in enumerate(everybodys(lambda: own))
        ]

    def step_begins(self, step: int) -> None:
        """Collective where the first step of a trace begins."""
        self.instruments.tracer.step_begins(step)
        self.instruments.schedule.step_begins(step)

    def gather(
        self, step: int, memory: PeakMemory, step_seconds: float, counts: Sequence[int]
    ) -> list[RankRow]:
        """What every rank measured of the step that has just ended; `counts` are as many on every rank.
        Collective."""
        asked = take_request(self.run, step + 1) if is_first_rank() else None
        trace = take_request(self.run, step + 1, TRACE_REQUEST) if is_first_rank() else None
        watch, seconds = self.instruments.layers, self.instruments.seconds
        row = RankRow(
            peak_bytes=memory.take(),
            held_bytes=memory.held(),
            step_seconds=step_seconds,
            asked_first=0 if asked is None else asked.first,
            asked_last=0 if asked is None else asked.last,
            trace_first=0 if trace is None else trace.first,
            trace_last=0 if trace is None else trace.last,
            wish=wish_of(self.run, first_rank=is_first_rank()),
            activities=tuple(seconds[name] for name in ACTIVITIES),
            counts=tuple(counts),
            squares=tuple(watch.gradient_squares()),
        )
        rows = gather_rows(row, self._most_layers, self.engine.device)
        self.wish = Wish(max(row.wish for row in rows))
        if rows[0].asked_first:
            self.instruments.tracer.steps = Steps(rows[0].asked_first, rows[0].asked_last)
        if rows[0].trace_first:
            self.instruments.schedule.steps = Steps(rows[0].trace_first, rows[0].trace_last)
        if path := self.instruments.schedule.step_ends(step, self.run, self.layout):
            say_first(f"Wrote the schedule of each rank into {path.parent}; vdsgen report shows it")
        if path := self.instruments.tracer.step_ends(step, self.run, dist.get_rank()):
            say_first(f"Wrote a trace of each rank into {path.parent}; open one at https://ui.perfetto.dev")
        self._squares = self._squares_by_layer(rows)
        return rows

    def stages(self, rows: Sequence[RankRow]) -> list[dict[str, float | int]]:
        stage_of = [self.layout.stage_of(rank) for rank in range(len(rows))]
        return [stage.values() for stage in stage_times(rows, stage_of)]

    def skipped(self) -> bool:
        """Whether the engine has left the last step out; call it once a step."""
        skipped, before = int(self.engine.engine.skipped_steps), self._skipped
        self._skipped = skipped
        self._is_skipped = skipped > before
        return self._is_skipped

    def check(self, metrics: StepMetrics) -> list[Alarm]:
        """Finds out where a step's numbers stopped being finite; rank 0 says what it warns of. Collective."""
        bad = self._is_skipped or not (math.isfinite(metrics.loss) and math.isfinite(metrics.grad_norm))
        watch = self.instruments.layers
        finding = first_finding(watch, self.engine.device) if bad and watch.enabled else None
        self.instruments.suspicious = bad
        if self.board is None:
            return []
        place = self._place_of(finding)
        where = None if finding is None else words(finding, place)
        return self.board.check(
            metrics,
            self._squares,
            self._first_places(),
            place,
            where,
            bad=bad,
            skipped=self._is_skipped,
            scale=self.engine.loss_scale,
        )

    def _place_of(self, finding: Finding | None) -> Place | None:
        if finding is None:
            return None
        for rank in (finding.rank, *range(len(self._places))):
            for place in self._places[rank]:
                if place.layer == finding.layer:
                    found: Place = place
                    return found
        return None

    def _squares_by_layer(self, rows: Sequence[RankRow]) -> list[float]:
        squares = [0.0] * self.instruments.layers.total
        for places, row in zip(self._places, rows, strict=True):
            for place, square in zip(places, row.squares, strict=False):
                squares[place.layer] += square
        return squares

    def _first_places(self) -> dict[int, Place]:
        """Of each layer, its first rank's."""
        return {place.layer: place for places in reversed(self._places) for place in places}


class Board:
    """Rank 0's alarms, in one place."""

    def __init__(
        self,
        alarms: Alarms,
        minimum_scale: float,
        run: Path,
        first_step: int,
        last_step: int,
        world_size: int,
    ) -> None:
        self.file = AlarmFile(run, resumed_step=first_step)
        spike, drift, leak = (
            alarms.loss_spike_deviations,
            alarms.gradient_drift_factor,
            alarms.memory_leak_window,
        )
        self.spike = None if spike is None else LossSpike(spike, alarms.loss_window)
        self.drift = None if drift is None else GradientDrift(drift, alarms.gradient_window)
        halvings = alarms.loss_scale_halvings
        self.scale = None if halvings is None else VanishingScale(halvings, minimum_scale)
        ranks = range(world_size) if leak is not None else ()
        least = alarms.memory_leak_bytes_per_step
        self.leaks = [MemoryLeak(rank, leak or 0, least, last_step) for rank in ranks]
        self.shares = LayerShares()
        self.overflow_place: Place | None = None
        self.overflows = 0

    def check(
        self,
        metrics: StepMetrics,
        squares: Sequence[float],
        places: dict[int, Place],
        place: Place | None,
        where: str | None,
        *,
        bad: bool,
        skipped: bool,
        scale: float,
    ) -> list[Alarm]:
        """`scale`: the loss scale after the step. What is found is said, and is in alarms.jsonl."""
        found: list[Alarm | None] = []
        loudest = None
        if bad:
            found.append(self._not_finite(metrics, place, where, scale, skipped=skipped))
        elif (loud := self.shares.loudest(squares)) is not None:
            loudest = places.get(loud[0])
        if self.spike is not None:
            found.append(self.spike.check(metrics.step, metrics.loss, loudest))
        if self.drift is not None and not bad:
            found.append(self.drift.check(metrics.step, metrics.grad_norm, loudest))
        if self.scale is not None and metrics.overflow is not None:
            found.append(self.scale.check(metrics.step, scale, self.overflow_place))
        found += self._leaks(metrics)
        alarms = [alarm for alarm in found if alarm is not None]
        for alarm in alarms:
            self.file.append(alarm)
            if alarm.kind != "overflow" or self.overflows <= SPOKEN_OVERFLOWS:
                say(f"warning: {alarm.sentence()}")
        return alarms

    def _not_finite(
        self,
        metrics: StepMetrics,
        place: Place | None,
        where: str | None,
        scale: float,
        *,
        skipped: bool,
    ) -> Alarm:
        step = metrics.step
        where = where or "in no layer's output; the gradients of the next step are watched whole"
        left_out = ", the step is skipped" if skipped else ""
        if metrics.overflow:
            self.overflows += 1
            self.overflow_place = place
            then = (
                f"{metrics.loss_scale:g} -> {scale:g}" if scale != metrics.loss_scale else f"stays {scale:g}"
            )
            return Alarm(
                "overflow",
                step,
                f"step {step}: fp16 overflow, the step is skipped (loss scale {then}), {where}",
                "nothing to do unless it goes on",
                metrics.loss_scale,
                place,
            )
        return Alarm(
            "not_finite",
            step,
            f"step {step}: the loss is {metrics.loss:g}, the gradient norm {metrics.grad_norm:g}{left_out}, "
            f"{where}",
            "lower training.optimizer.learning_rate, or train in bf16 or fp32; --resume goes back to the "
            "last checkpoint",
            metrics.loss,
            place,
        )

    def _leaks(self, metrics: StepMetrics) -> list[Alarm | None]:
        held = metrics.held_memory_bytes or []
        return [
            leak.check(metrics.step, bytes_, _free_bytes(max(held)))
            for leak, bytes_ in zip(self.leaks, held, strict=False)
        ]


def _free_bytes(held_bytes: int) -> int:
    if get_accelerator().device_name() == "cpu":
        return free_host_bytes()
    return max(0, int(get_accelerator().total_memory()) - held_bytes)
