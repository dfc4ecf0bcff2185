"""What is put around an engine to see where its seconds go and which layer fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from deepspeed.runtime.pipe import schedule
from deepspeed.runtime.pipe.engine import PipelineEngine

from vdsgen.model.monitoring.clock import ACTIVITIES, StageClock
from vdsgen.model.monitoring.communication import watch_communication
from vdsgen.model.monitoring.layers import LayerWatch, layers_of
from vdsgen.model.monitoring.schedule_trace import ScheduleTrace
from vdsgen.model.monitoring.trace import Tracer

INSTRUCTIONS = {
    schedule.LoadMicroBatch: "data",
    schedule.ForwardPass: "forward",
    schedule.BackwardPass: "backward",
    schedule.SendActivation: "transfer",
    schedule.RecvActivation: "transfer",
    schedule.SendGrad: "transfer",
    schedule.RecvGrad: "transfer",
    schedule.ReduceGrads: "reduce",
    schedule.ReduceTiedGrads: "reduce",
    schedule.OptimizerStep: "optimizer",
}
"""What an instruction does besides messages, which are told apart within it: sends and receives copy."""

Handler = Callable[..., None]


class Instruments:
    """Made once the engine and its own instruction handlers are; `step` goes around each training step."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.clock = StageClock()
        self.tracer = Tracer()
        self.schedule = ScheduleTrace()
        pipelined = isinstance(engine, PipelineEngine)
        self.stage = int(engine.stage_id) if pipelined else 0
        indices, layers = layers_of(engine.module)
        total = int(engine.module._num_layers) if pipelined else len(layers)
        self.layers = LayerWatch(indices, layers, total)
        self.tracer.watch(indices, layers)
        self.enabled = True
        """False takes all of it out of a step, to measure what it costs."""
        self.seconds: dict[str, float] = dict.fromkeys(ACTIVITIES, 0.0)
        """Of each activity in the last step."""
        self.suspicious = False
        """The step before was not finite."""
        topology = engine.grid._topo if pipelined else None
        watch_communication(self.clock, lambda rank: 0 if topology is None else topology.get_coord(rank).pipe)
        if pipelined:
            engine._INSTRUCTION_MAP = {
                instruction: self._timed(instruction, handler)
                for instruction, handler in engine._INSTRUCTION_MAP.items()
            }

    @contextmanager
    def step(self) -> Iterator[None]:
        """The clock stops when the accelerator has done what the step asked for."""
        if not self.enabled:
            yield
            return
        self.layers.begin(self.engine.gradient_accumulation_steps(), suspicious=self.suspicious)
        self.clock.traced = self.schedule.running
        self.clock.start()
        try:
            yield
        except BaseException:
            self.clock.abandon()
            raise
        finally:
            self.layers.end()
        self.seconds = self.clock.finish()
        self.schedule.step_ended(self.clock.timeline)

    @contextmanager
    def during(self, activity: str, name: str, more: str = "") -> Iterator[None]:
        """`name`, with `more` after it, is what a trace shows."""
        with ExitStack() as around:
            around.enter_context(self.clock.during(activity))
            if self.schedule.running:
                around.enter_context(self.schedule.span(name, self.clock))
            if self.tracer.running:
                around.enter_context(self.tracer.span(f"stage {self.stage}: {name}{more}"))
            yield

    def _timed(self, instruction: type, handler: Handler) -> Handler:
        activity = INSTRUCTIONS.get(instruction, "other")

        def timed(engine: Any, *args: Any, **kwargs: Any) -> None:
            buffer = kwargs.get("buffer_id", args[0] if args else None)
            with self.during(activity, instruction.__name__, "" if buffer is None else f" buffer {buffer}"):
                handler(engine, *args, **kwargs)

        return timed
