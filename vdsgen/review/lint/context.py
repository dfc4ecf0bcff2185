"""What is known beside the config: the number of ranks, the device, the plan, what the training code does."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from vdsgen.spec.plan import Plan


class Context(NamedTuple):
    """All of it optional: a rule that needs what is not known passes."""

    plan: Plan | None = None
    """The plan that the config was rendered from: its trainer, model and GPUs."""
    plan_folder: Path | None = None
    """Where the plan lies: a train.yaml beside it says the rest of what was rendered."""
    world_size: int | None = None
    """Ranks that are started."""
    pipeline_stages: int | None = None
    """Stages of the PipelineModule that the training code makes; 0 for no PipelineModule."""
    accelerator: str | None = None
    """As DeepSpeed names it: cuda, cpu, xpu, ..."""
    client_optimizer: bool | None = None
    """Whether the training code hands `deepspeed.initialize` an optimizer of its own."""
    client_scheduler: bool | None = None
    auto_filled: bool = False
    """Whether Transformers or Accelerate put numbers in the place of "auto" first."""

    @property
    def is_pipeline(self) -> bool | None:
        """Whether the engine is a PipelineEngine; the trainer of this project makes one of stages only."""
        if self.plan is not None:
            return self.plan.parallel.pipeline_parallel_size > 1
        return None if self.pipeline_stages is None else self.pipeline_stages > 0

    @property
    def pipeline_parallel_size(self) -> int | None:
        if self.plan is not None:
            return self.plan.parallel.pipeline_parallel_size
        return None if self.pipeline_stages is None else max(1, self.pipeline_stages)

    @property
    def ranks(self) -> int | None:
        """Ranks that are started."""
        if self.world_size is None and self.plan is not None:
            return self.plan.parallel.world_size
        return self.world_size
