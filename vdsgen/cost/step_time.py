"""What one optimizer step takes, and what its seconds go to."""

from __future__ import annotations

from typing import NamedTuple

from vdsgen.cost.schedule import StageTimes
from vdsgen.spec.plan import Predicted, TimeSplit


class StepSplit(NamedTuple):
    """Seconds of one optimizer step by what they go to; they add up to the step."""

    compute_seconds: float
    recompute_seconds: float
    bubble_seconds: float
    transfer_seconds: float
    reduction_seconds: float
    gather_seconds: float
    optimizer_seconds: float
    offload_seconds: float
    data_seconds: float
    overhead_seconds: float
    tensor_seconds: float
    sequence_seconds: float


class StepTime(NamedTuple):
    """One optimizer step, split into parts that add up to `step_seconds`."""

    stages: tuple[StageTimes, ...]
    compute_seconds: float
    """Forward and backward of the average stage, recomputation left out."""
    recompute_seconds: float
    """Forwards run again for checkpointed blocks, on the average stage."""
    bubble_seconds: float
    """The average stage waits for others, were transfers free."""
    transfer_seconds: float
    """What sending activations and their gradients between stages adds."""
    reduction_seconds: float
    """What reducing gradients over data-parallel ranks adds (ZeRO-2 and 3: after every micro-batch)."""
    gather_seconds: float
    """What gathering parameters adds."""
    optimizer_seconds: float
    """AdamW; on the processor where its states are offloaded."""
    samples: int
    model_flops: float
    """Of the whole step over all GPUs, recomputation not counted."""
    peak_flops_per_second: float
    """Of all GPUs."""
    offload_seconds: float = 0.0
    """Traffic between GPU and host memory."""
    data_seconds: float = 0.0
    """Waiting for clips; 0 where the calibration does not say how long one takes."""
    data_is_known: bool = False
    overhead_seconds: float = 0.0
    """Of every step, whatever the plan: what an ablation found that the other parts do not explain."""
    tensor_seconds: float = 0.0
    """Collectives between ranks that share blocks, recomputation's included, on the average stage."""
    sequence_seconds: float = 0.0
    """The same between ranks that share samples."""

    @property
    def step_seconds(self) -> float:
        return sum(self.split())

    def split(self) -> StepSplit:
        """The parts of the step."""
        return StepSplit(*(getattr(self, name) for name in StepSplit._fields))

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.step_seconds

    def predicted(self) -> Predicted:
        """The plan's figures. The bubble is relative to the pipeline's time were transfers free."""
        step = self.step_seconds
        exchanged = self.tensor_seconds + self.sequence_seconds
        pipeline = self.compute_seconds + self.recompute_seconds + exchanged + self.bubble_seconds
        communication = self.transfer_seconds + self.reduction_seconds + self.gather_seconds + exchanged
        return Predicted(
            step_seconds=step,
            samples_per_second=self.samples / step,
            bubble_fraction=max(0.0, self.bubble_seconds / pipeline),
            communication_fraction=communication / step,
            model_flops_utilization=self.model_flops / step / self.peak_flops_per_second,
            split=TimeSplit(**{name: max(0.0, value) for name, value in self.split()._asdict().items()}),
        )
