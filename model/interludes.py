"""What looks at the weights between steps: held-out loss and sample videos. The training sequence goes on
as if nothing had been looked at."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from deepspeed.accelerator import get_accelerator

from vdsgen.model.agreement import known_to_all
from vdsgen.model.clips import gather_counts
from vdsgen.model.configuration import Configuration
from vdsgen.model.console import say_first
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.heartbeat import HEART
from vdsgen.model.memory import PeakMemory
from vdsgen.model.record import RunLog
from vdsgen.model.sample import sample_files, write_sample
from vdsgen.model.sources import AnySource
from vdsgen.model.validation import HeldOut, ValidationMetrics, read_validation, validate


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done between two steps."""

    losses: tuple[str, ...] = ()
    """Weights whose held-out loss is wanted: trained, ema."""
    sample: bool = False

    def without(self, run: Path, step: int) -> Due:
        """Less what an earlier start has left in the run directory."""
        there = {row["weights"] for row in read_validation(run) if row["step"] == step}
        losses = tuple(weights for weights in self.losses if weights not in there)
        return Due(losses, self.sample and not sample_files(run, step).consistency.exists())


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
    first_step: int = 0
    """That the run begins after."""

    def after(self, step: int) -> None:
        """Whatever is due after `step` steps; the sample video of the last step is the run's own."""
        due = self._due(step)
        for weights in due.losses:
            self._validate(step, weights)
        if due.sample:
            say_first(f"step {step}: sampling a video.")
            HEART.begin("sampling a video", step)
            with self.engine.averaged():
                write_sample(self.configuration, self.engine, self.source, step)
            self._peaks()

    def _due(self, step: int) -> Due:
        """After `step` steps, and not there yet: where a run begins, a start that was killed may have come to
        some of it between its checkpoint and its next step. Collective at that step."""
        if self.configuration.measure:
            return Due()
        training = self.configuration.rendered.experiment.training
        last = step == self.configuration.steps
        losses: tuple[str, ...] = ()
        if training.validation is not None and (last or step % training.validation.every_steps == 0):
            losses = ("trained", "ema") if self.engine.average is not None and step > 0 else ("trained",)
        every = training.sampling.every_steps
        sample = every is not None and step > 0 and step % every == 0 and not last
        if step == self.first_step > 0 and (losses or sample):
            return known_to_all(lambda: Due(losses, sample).without(self.configuration.output, step))
        return Due(losses, sample)

    def _validate(self, step: int, weights: str) -> None:
        """The held-out loss of the weights, or of their average, into the run's log."""
        assert self.held_out is not None, "the experiment holds clips out"
        HEART.begin("held-out loss", step)
        layout = self.configuration.rendered.layout
        with self.engine.averaged() if weights == "ema" else nullcontext():
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
