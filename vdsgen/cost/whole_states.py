"""States of the optimizers that every rank holds whole: what the engine does without ZeRO, but in bf16
pipelines.

Files and lines are of DeepSpeed 0.19.8, below deepspeed/runtime. Legend as in model_states.py.
"""

from __future__ import annotations

from vdsgen.cost import engine_defaults as defaults
from vdsgen.cost.host_memory import MASTER_AND_MOMENTS
from vdsgen.cost.stage_sizes import StageSizes
from vdsgen.cost.state_bytes import ModelStates

MOMENTS = 8
"""Bytes a parameter: Adam's two fp32 moments (torch.optim.AdamW, fused)."""


def torch_adamw(sizes: StageSizes) -> ModelStates:
    """fp32 without ZeRO: torch's AdamW on the model's own parameters (engine.py:2315)."""
    t = sizes.trainable_parameters
    return ModelStates(
        parameters_bytes=4 * sizes.parameters,
        gradients_bytes=4 * t,
        optimizer_bytes=MOMENTS * t,
        communication_bytes=0,
        reduction_bytes=4 * _allreduce_elements(sizes),
        step_bytes=0,
    )


def unfused_optimizer(sizes: StageSizes) -> ModelStates:
    """Half precision without ZeRO (and, in bf16, without a pipeline): FP16_UnfusedOptimizer, since
    torch's AdamW is not DeepSpeed's FusedAdam (engine.py:2564).

    An fp32 copy of every parameter (fp16/unfused_optimizer.py:78); the step adds an fp32 gradient for
    each, beside the half precision ones (:222): 20 bytes a parameter at its peak.
    """
    t = sizes.trainable_parameters
    return ModelStates(
        parameters_bytes=2 * sizes.parameters,
        gradients_bytes=2 * t,
        optimizer_bytes=MASTER_AND_MOMENTS * t,
        communication_bytes=0,
        reduction_bytes=2 * _allreduce_elements(sizes),
        step_bytes=4 * t,
    )


def _allreduce_elements(sizes: StageSizes) -> int:
    """Elements of the engine's own all-reduce buffer (engine.py:3796, 3828-3839): a copy of a bucket of
    gradients, which closes after the gradient that fills it. Made even where there is nothing to reduce."""
    bucket = defaults.ALLREDUCE_BUCKET_ELEMENTS + sizes.largest_parameter
    return min(sizes.trainable_parameters, bucket)
