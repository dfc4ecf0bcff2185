"""How large a checkpoint is, from the plan alone, and how many of them lie on the disk at once."""

from __future__ import annotations

import math

from vdsgen.spec.plan import Plan
from vdsgen.spec.quantized_moments import moment_bytes
from vdsgen.spec.training import Training

MASTER, MOMENTS, AVERAGE = 4, 8, 4
"""Bytes a trained parameter: fp32 master weights, AdamW's two fp32 moments, the weights' average."""


def checkpoint_bytes(plan: Plan) -> int:
    """Bytes of one checkpoint, all its files together, as DeepSpeed 0.19.8 writes them: what the planner has
    counted stage by stage (cost/checkpoint_bytes.py), where the plan tells it, else worked out from the sums.

    weights  every parameter once, in the model's dtype; at ZeRO-3 only frozen ones: those that train are
             the master weights' (runtime/engine.py:4869, `_save_checkpoint`)
    states   of every trained parameter the two moments, and the fp32 master weights: always where ranks share
             the states (ZeRO-1 on), else beside half precision only; BF16_Optimizer's first data rank writes
             its share twice
    average  where weights are averaged

    Ignored: names, shapes and scripts (some ten kB a file), biases that tensor-parallel ranks each write, and
    the errors of compressed gradients.
    """
    if plan.saving is not None:
        return plan.saving.checkpoint_bytes
    trained = plan.model.trainable_parameters
    frozen = plan.model.parameters - trained
    width = 4 if plan.precision.dtype == "fp32" else 2
    weights = width * (frozen if plan.zero.stage == 3 else frozen + trained)
    has_masters = plan.zero.stage > 0 or plan.precision.dtype != "fp32"
    moments = moment_bytes(trained) if plan.precision.moments == "int8" else MOMENTS * trained
    states = moments + (MASTER * trained if has_masters else 0)
    if plan.zero.stage == 0 and plan.precision.dtype == "bf16" and plan.parallel.pipeline_parallel_size > 1:
        states += states // plan.parallel.data_parallel_size
    average = AVERAGE * trained if plan.ema.device != "none" else 0
    return weights + states + average


def checkpoints_at_once(training: Training, step_seconds: float) -> int:
    """Most checkpoints that lie on the disk at once: those that are kept, and the one being written.

    `keep_hours` keeps others besides, as many as steps of `step_seconds` make in that time. Never more than
    the run writes.
    """
    saving = training.saving
    kept = saving.keep
    if saving.keep_hours is not None and step_seconds > 0:
        kept = max(kept, math.ceil(saving.keep_hours * 3600 / (saving.interval_steps * step_seconds)))
    return min(kept + 1, math.ceil(training.steps / saving.interval_steps))
