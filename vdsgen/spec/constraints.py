"""Settings that an experiment pins, so that they are not searched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vdsgen.spec.base import NonNegativeInt, PositiveInt, Spec
from vdsgen.spec.dtypes import Dtype


class Constraints(Spec):
    """Pins: what is set here is not searched."""

    pipeline_parallel_size: PositiveInt | None = None
    data_parallel_size: PositiveInt | None = None
    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = None
    micro_batch_size: PositiveInt | None = None
    gradient_accumulation_steps: PositiveInt | None = None
    activation_checkpoint_interval: NonNegativeInt | None = None
    """Blocks a checkpoint segment, on all stages, whose layers are all recomputed whole; 0 for no
    checkpointing."""
    recompute: Literal["full", "selective"] | None = None
    """Of layers that are recomputed: everything, or everything but matrix products and attention, whose
    outputs are kept."""
    tensor_parallel_size: PositiveInt | None = None
    sequence_parallel_size: PositiveInt | None = None
    """Ranks that share each clip: divides its latent frames and its rows of patches."""
    offload_optimizer: Literal["none", "cpu", "nvme"] | None = None
    offload_parameters: Literal["none", "cpu", "nvme"] | None = None
    offload_activations: bool | None = None
    activation_compression: Literal["none", "int8", "fp8"] | None = None
    """Of checkpointed activations, whatever `activation_precision` says."""
    communication_dtype: Dtype | None = None
    """What gradients are reduced in, whatever `communication_precision` says."""
    gradient_compression: Literal["none", "int8"] | None = None
    """Of the trainer's own, whatever `communication_precision` says; ZeRO-0 and ZeRO-1."""
    zero_quantized_weights: bool | None = None
    """ZeRO++ at ZeRO-3: parameters are gathered in int8."""
    zero_quantized_gradients: bool | None = None
    """ZeRO++ at ZeRO-3: fp16 gradients are reduced in int4, between nodes."""
    hierarchical_partition_size: PositiveInt | None = None
    """ZeRO++ at ZeRO-3: ranks that hold a second copy of the parameters together; 1 for none."""
