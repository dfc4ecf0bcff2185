"""What looks at the weights between steps: held-out loss and sample videos. The training sequence goes on
as if nothing had been looked at."""

from __future__ import annotations

from dataclasses import dataclass

from deepspeed.accelerator import get_accelerator

from vdsgen.model.clips import gather_counts
from vdsgen.model.configuration import Configuration
from vdsgen.model.console import say_first
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.heartbeat import HEART
from vdsgen.model.memory import PeakMemory
from vdsgen.model.record import RunLog
from vdsgen.model.sample import write_sample
from vdsgen.model.sources import AnySource
from vdsgen.model.validation import HeldOut, ValidationMetrics, validate


@dataclass(frozen=True, slots=True)
class Interludes:
    """Call `after` at the start with the step the run begins at, then with each step, on all ranks alike."""

    configuration: Configuration
    engine: TrainingEngine
    source: AnySource | None
    """None where this rank reads no clips."""
    held_out: HeldOut | None
    """None where no clips are held out."""
    memory: PeakMemory
    log: RunLog | None
    """Rank 0's."""

    def after(self, step: int) -> None:
        """Whatever is due after `step` steps; the sample video of the last step is the run's own."""
        if self.configuration.measure:
            return
        training = self.configuration.rendered.experiment.training
        last = step == self.configuration.steps
        if training.validation is not None and (last or step % training.validation.every_steps == 0):
            self.validate(step)
        every = training.sampling.every_steps
        if every is not None and step > 0 and step % every == 0 and not last:
            say_first(f"step {step}: sampling a video.")
            HEART.begin("sampling a video", step)
            with self.engine.averaged():
                write_sample(self.configuration, self.engine, self.source, step)
            self._peaks()

    def validate(self, step: int) -> None:
        """The held-out loss of the weights, and of their average where there is one, into the run's log."""
        HEART.begin("held-out loss", step)
        self._validate(step, "trained")
        if self.engine.average is not None and step > 0:
            with self.engine.averaged():
                self._validate(step, "ema")

    def _validate(self, step: int, weights: str) -> None:
        assert self.held_out is not None, "the experiment holds clips out"
        layout = self.configuration.rendered.layout
        found = validate(self.engine, self.held_out, layout, self.configuration.micro_batch_size)
        peaks = self._peaks()
        if self.log is not None:
            self.log.append_validation(
                ValidationMetrics(step=step, weights=weights, peak_memory_bytes=peaks, **found)
            )

    def _peaks(self) -> list[int]:
        """Of what has just run, so that it counts in no step; one a rank."""
        get_accelerator().synchronize()
        return [row[0] for row in gather_counts([self.memory.take_between()], self.engine.device)]
