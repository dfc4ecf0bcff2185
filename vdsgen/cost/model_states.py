"""Parameters, gradients and optimizer states, as DeepSpeed's own optimizers allocate them."""

from __future__ import annotations

from dataclasses import dataclass

from vdsgen.cost.settings import BYTES_PER_ELEMENT, Settings


@dataclass(frozen=True, slots=True)
class ModelStates:
    """Bytes on each GPU of one stage."""

    parameters_bytes: int
    """Held all the time."""
    gradients_bytes: int
    """Held from the first backward of a step to its optimizer step."""
    optimizer_bytes: int
    """Master weights and Adam's moments, held all the time after the first step."""
    backward_communication_bytes: int
    """Buckets that are alive while activations are."""
    step_workspace_bytes: int
    """What reduction and the optimizer step hold beyond the above."""


def model_states(parameters: int, trainable_parameters: int, settings: Settings) -> ModelStates:
    """Bytes of one stage with so many parameters. First version: exact terms follow."""
    world = settings.data_parallel_size
    width = settings.element_bytes
    accumulation = BYTES_PER_ELEMENT[settings.gradient_accumulation_dtype]
    share = -(-trainable_parameters // world)
    sharded = share if settings.zero_stage >= 1 else trainable_parameters
    master = 0 if settings.dtype == "fp32" and settings.zero_stage == 0 else 4
    held_parameters = -(-parameters // world) if settings.zero_stage == 3 else parameters
    held_gradients = share if settings.zero_stage >= 2 else trainable_parameters
    bucket = min(settings.reduce_bucket_elements, trainable_parameters) * width if world > 1 else 0
    return ModelStates(
        parameters_bytes=held_parameters * width,
        gradients_bytes=held_gradients * accumulation,
        optimizer_bytes=sharded * (master + 8),
        backward_communication_bytes=bucket if settings.zero_stage >= 2 else 0,
        step_workspace_bytes=sharded * (4 if settings.dtype != "fp32" else 0) + bucket,
    )
