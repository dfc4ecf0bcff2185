"""One configuration of the engine, as the cost functions and the planner's candidates see it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from vdsgen.spec.experiment import Dtype

Offload = Literal["none", "cpu", "nvme"]

BYTES_PER_ELEMENT: dict[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}


class Settings(NamedTuple):
    """Everything about the engine that memory and time depend on."""

    pipeline_parallel_size: int
    data_parallel_size: int
    zero_stage: int
    micro_batch_size: int
    gradient_accumulation_steps: int
    activation_checkpoint_interval: int
    """Blocks a segment; 0 for none."""
    dtype: Dtype
    gradient_accumulation_dtype: Dtype
    reduce_bucket_elements: int
    allgather_bucket_elements: int
    offload_optimizer: Offload = "none"
    """Where ZeRO keeps this rank's master weights and moments."""
    offload_parameters: Offload = "none"
    """Where ZeRO-3 keeps this rank's share of the parameters."""

    @property
    def world_size(self) -> int:
        return self.pipeline_parallel_size * self.data_parallel_size

    @property
    def element_bytes(self) -> int:
        return BYTES_PER_ELEMENT[self.dtype]
