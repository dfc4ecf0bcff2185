"""The sections of ds_config.json: what a plan and an experiment are in DeepSpeed's own words.

File and line are of DeepSpeed 0.19.8.
"""

from __future__ import annotations

from typing import Any

from vdsgen.cost import engine_defaults as defaults
from vdsgen.errors import VdsgenError
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.monitoring import Monitoring
from vdsgen.spec.optimization import AdamW, Schedule
from vdsgen.spec.plan import Plan
from vdsgen.spec.planned_keys import merged
from vdsgen.spec.run import CSV, TENSORBOARD
from vdsgen.spec.trainer_section import COMPRESSION, EMA, LINEAR, SCHEDULE, SECTION, STATE_DTYPE
from vdsgen.spec.training import Training

STEPS_PER_PRINT = 100
"""How often the engine prints a line of its own; the trainer prints its own lines besides."""


def engine_config(plan: Plan, experiment: Experiment) -> dict[str, Any]:
    """ds_config.json by section, in the order of the file; only what applies to this plan, and what the
    experiment overrides."""
    return merged(planned_config(plan, experiment), experiment.overrides.ds_config)


def planned_config(plan: Plan, experiment: Experiment) -> dict[str, Any]:
    """The same before overrides."""
    training = experiment.training
    sections: dict[str, Any] = {
        "train_batch_size": plan.batch.global_batch_size,
        "train_micro_batch_size_per_gpu": plan.batch.micro_batch_size,
        "gradient_accumulation_steps": plan.batch.gradient_accumulation_steps,
        "pipeline": pipeline_section(plan),
        "zero_optimization": zero_section(plan),
        **precision_sections(plan, training),
        **communication_sections(plan),
        **trainer_section(plan, training),
        "optimizer": optimizer_section(training.optimizer),
    }
    if plan.precision.moments == "int8" and plan.zero.stage > 0:
        # The training entrypoint hands the engine an AdamW of its own (runtime/engine.py:2298).
        sections["zero_allow_untested_optimizer"] = True
    scheduler = scheduler_section(training)
    if scheduler is not None:
        sections["scheduler"] = scheduler
    # Written where it is 0 too: left out, the engine clips at 1 (runtime/constants.py:203).
    sections["gradient_clipping"] = training.gradient_clipping
    sections["steps_per_print"] = STEPS_PER_PRINT
    return sections | monitoring_sections(training.monitoring)


def pipeline_section(plan: Plan) -> dict[str, Any]:
    """Read by the training entrypoint; the engine itself applies the interval and `use_reentrant`
    (runtime/pipe/engine.py:205-218). Where stages have intervals of their own, the entrypoint hands each
    rank's engine the one of its stage; `plain_layers` of a stage come after its segments, and
    `selective_layers` right before those.

    Tensor-parallel ranks each send the whole hidden state to the next stage: where the engine splits it
    between them (`pipe_partitioned`, :137), it clears a stage's output before our one traversal of the graph
    goes back from it (model/corrections.py, backward_pass).
    """
    section: dict[str, Any] = {
        "stages": plan.parallel.pipeline_parallel_size,
        "partition": [stage.layers[0] for stage in plan.stages] + [plan.stages[-1].layers[1]],
        "activation_checkpoint_interval": plan.activation_checkpointing.interval,
    }
    if plan.activation_checkpointing.stage_intervals:
        section["stage_checkpoint_intervals"] = list(plan.activation_checkpointing.stage_intervals)
    if plan.activation_checkpointing.plain_layers:
        section["plain_layers"] = list(plan.activation_checkpointing.plain_layers)
    if plan.activation_checkpointing.selective_layers:
        section["selective_layers"] = list(plan.activation_checkpointing.selective_layers)
    if plan.activation_checkpointing.compression != "none":
        section["compress_activations"] = plan.activation_checkpointing.compression
    if plan.activation_checkpointing.offload:
        section["offload_activations"] = True
    section["use_reentrant"] = False
    if plan.parallel.tensor_parallel_size > 1:
        section |= {
            "tensor_parallel_size": plan.parallel.tensor_parallel_size,
            "pipe_partitioned": False,
            "grad_partitioned": False,
        }
    if plan.parallel.sequence_parallel_size > 1:
        section["sequence_parallel_size"] = plan.parallel.sequence_parallel_size
    return section


def uses_bf16_optimizer(plan: Plan) -> bool:
    """Whether the engine takes BF16_Optimizer: for bf16 in a pipeline without ZeRO, and for bf16 with fp32
    accumulation at stage 1, its states on the device (runtime/engine.py:2288-2326). It has sizes and a
    schedule of its own."""
    if plan.precision.dtype != "bf16" or plan.zero.offload_optimizer == "cpu":
        return False
    in_pipeline = plan.parallel.pipeline_parallel_size > 1
    return (plan.zero.stage == 0 and in_pipeline) or (
        plan.zero.stage == 1 and plan.precision.gradient_accumulation_dtype == "fp32"
    )


def zero_section(plan: Plan) -> dict[str, Any]:
    """The stage, and what this stage's optimizer can be told (runtime/engine.py:2615-2800). Without ZeRO,
    gradients are reduced in buckets of a fixed size."""
    stage = plan.zero.stage
    section: dict[str, Any] = {"stage": stage}
    if uses_bf16_optimizer(plan):
        section["allgather_bucket_size"] = plan.zero.allgather_bucket_elements
    elif stage > 0:
        section |= {
            "reduce_bucket_size": plan.zero.reduce_bucket_elements,
            "reduce_scatter": defaults.REDUCE_SCATTER,
            # With offload the engine takes it for true (zero/stage_1_and_2.py:300).
            "contiguous_gradients": defaults.contiguous_gradients(stage)
            or plan.zero.offload_optimizer != "none",
            "overlap_comm": defaults.OVERLAP_COMM,
        }
        section |= _zero_plus_plus(plan)
        section |= _stage_3_sizes() if stage == 3 else _stage_1_and_2_sizes(plan)
        section |= _offload(plan)
    return section


def _offload(plan: Plan) -> dict[str, Any]:
    """What is kept elsewhere (zero/offload_config.py). Raises VdsgenError for NVMe that a pool lacks."""
    sections: dict[str, Any] = {}
    if plan.zero.offload_optimizer != "none":
        section = _offload_device(plan, plan.zero.offload_optimizer)
        if "nvme_path" in section:
            section["buffer_count"] = defaults.NVME_OPTIMIZER_BUFFERS
        sections["offload_optimizer"] = section
    if plan.zero.offload_parameters != "none":
        section = _offload_device(plan, plan.zero.offload_parameters)
        if "nvme_path" in section:
            section |= {
                "buffer_count": defaults.NVME_PARAMETER_BUFFERS,
                "buffer_size": defaults.NVME_PARAMETER_BUFFER_ELEMENTS,
                "max_in_cpu": defaults.NVME_MAX_PARAMETERS_IN_HOST,
            }
        sections["offload_param"] = section
    return sections


def _offload_device(plan: Plan, device: str) -> dict[str, Any]:
    section: dict[str, Any] = {"device": device, "pin_memory": defaults.OFFLOAD_PIN_MEMORY}
    if device == "nvme":
        nvme = plan.inputs.pool.nvme
        if nvme is None:
            raise VdsgenError(
                f"the plan offloads to NVMe, and pool {plan.pool!r} has none",
                remedy="describe it under nvme in the lab file",
            )
        section["nvme_path"] = str(nvme.path)
    return section


def _zero_plus_plus(plan: Plan) -> dict[str, Any]:
    """What is on of it (zero/config.py:324-343)."""
    section: dict[str, Any] = {}
    if plan.zero.quantized_weights:
        section["zero_quantized_weights"] = True
    if plan.zero.quantized_gradients:
        section["zero_quantized_gradients"] = True
    if plan.zero.hierarchical_partition_size > 1:
        section["zero_hpz_partition_size"] = plan.zero.hierarchical_partition_size
    return section


def _stage_1_and_2_sizes(plan: Plan) -> dict[str, Any]:
    return {
        "allgather_bucket_size": plan.zero.allgather_bucket_elements,
        "round_robin_gradients": defaults.ROUND_ROBIN_GRADIENTS,
    }


def _stage_3_sizes() -> dict[str, Any]:
    return {
        "sub_group_size": defaults.STAGE3_SUB_GROUP_ELEMENTS,
        "stage3_max_live_parameters": defaults.STAGE3_MAX_LIVE_PARAMETERS,
        "stage3_max_reuse_distance": defaults.STAGE3_MAX_REUSE_DISTANCE,
        "stage3_prefetch_bucket_size": defaults.STAGE3_PREFETCH_BUCKET_ELEMENTS,
        "stage3_param_persistence_threshold": defaults.STAGE3_PARAM_PERSISTENCE_THRESHOLD,
    }


def precision_sections(plan: Plan, training: Training) -> dict[str, Any]:
    """`fp16` or `bf16` (fp32 has no section), and `data_types` where gradients accumulate in another dtype.

    Left out, the engine accumulates in the model's dtype (runtime/engine.py:1806).
    """
    precision = plan.precision
    sections: dict[str, Any] = {}
    if precision.dtype == "bf16":
        sections["bf16"] = {"enabled": True}
        if uses_bf16_optimizer(plan):
            sections["bf16"]["immediate_grad_update"] = defaults.BF16_IMMEDIATE_GRADIENT_UPDATE
    elif precision.dtype == "fp16":
        scaling = training.loss_scaling
        sections["fp16"] = {
            "enabled": True,
            "loss_scale": 0,
            "initial_scale_power": scaling.initial_loss_scale.bit_length() - 1,
            "loss_scale_window": scaling.loss_scale_window,
            "min_loss_scale": scaling.minimum_loss_scale,
        }
        if plan.zero.stage > 0:  # the loss scaler without ZeRO has none (fp16/unfused_optimizer.py:277-300)
            sections["fp16"]["hysteresis"] = scaling.hysteresis
    if precision.gradient_accumulation_dtype != precision.dtype:
        sections["data_types"] = {"grad_accum_dtype": precision.gradient_accumulation_dtype}
    return sections


def communication_sections(plan: Plan) -> dict[str, Any]:
    """Where gradients travel otherwise than the engine would send them."""
    if plan.communication.dtype is None:
        return {}
    return {"communication_data_type": plan.communication.dtype}


def trainer_section(plan: Plan, training: Training) -> dict[str, Any]:
    """`vdsgen`, which is read by the training entrypoint alone: DeepSpeed drops top-level keys that it does
    not know. Left out where nothing is asked of it."""
    section: dict[str, Any] = {}
    if plan.communication.gradient_compression != "none":
        section[COMPRESSION] = plan.communication.gradient_compression
    if plan.precision.moments == "int8":
        section[STATE_DTYPE] = "int8"
    if plan.precision.linear != "exact":
        section[LINEAR] = plan.precision.linear
    if training.ema is not None:
        section[EMA] = training.ema.model_dump(mode="json")
    if training.schedule.is_the_trainers:
        section[SCHEDULE] = training.schedule.model_dump(mode="json")
    return {SECTION: section} if section else {}


def monitoring_sections(monitoring: Monitoring) -> dict[str, Any]:
    """What DeepSpeed's monitor is to write (monitor/config.py); nothing where nothing is asked for. The
    training entrypoint puts the run directory before `output_path`. Keys to services are in no file."""
    sections: dict[str, Any] = {}
    for section, folder, wanted in (
        ("tensorboard", TENSORBOARD, monitoring.tensorboard),
        ("csv_monitor", CSV, monitoring.csv),
    ):
        if wanted:
            sections[section] = {"enabled": True, "output_path": "", "job_name": folder}
    for section, service in (("wandb", monitoring.wandb), ("comet", monitoring.comet)):
        if service is not None:
            sections[section] = {"enabled": True, **service.model_dump(mode="json", exclude_none=True)}
    return sections


def optimizer_section(optimizer: AdamW) -> dict[str, Any]:
    """torch's own fused AdamW: no compiler needed, no temporaries (runtime/engine.py:2377-2382)."""
    return {
        "type": "AdamW",
        "params": {
            "lr": optimizer.learning_rate,
            "betas": [optimizer.beta1, optimizer.beta2],
            "eps": optimizer.epsilon,
            "weight_decay": optimizer.weight_decay,
            "torch_adam": True,
            "fused": True,
        },
    }


def scheduler_section(training: Training) -> dict[str, Any] | None:
    """The learning rate's course, by the engine's own schedulers (runtime/lr_schedules.py:405-953); None for
    a constant rate, and for a schedule that the training entrypoint brings.

    The engine steps its scheduler after each optimizer step, and starts it one before the beginning. So with
    a warm-up of W steps, step k = 1, 2, ... runs at (k - 2) / W of the peak, the first two at zero, and the
    decay is two steps late. W = 1 counts as 2 (:720).

    Without a warm-up, a constant rate needs no scheduler. A decaying one is started behind the two steps
    of warm-up that it cannot be without: step 1 then runs at the optimizer's `lr`, and step k of n at
    (n + 1 - k) / n of it (linear), or at (1 + cos(pi (k - 1) / n)) / 2 (cosine).

    The cosine ends at a `final_fraction` of its own. The engine's line ends at zero alone: one that is to end
    at a fraction is drawn out, to as many steps as it would take to come to zero, in whole steps.

    OneCycle begins where it is: of n steps, W of them up, step k is (k - 1) / W of the way from the lowest
    rate to the peak, and (n + 1 - k) / (n - W) of it on the way down. Its `cycle_momentum` is off: it would
    put (0.8 to 0.9, 0.99) in the place of the optimizer's betas (:572).
    """
    schedule, peak = training.schedule, training.optimizer.learning_rate
    warmup: dict[str, Any] = {"warmup_num_steps": max(1, schedule.warmup_steps), "warmup_type": "linear"}
    if schedule.type == "constant":
        if schedule.warmup_steps == 0:
            return None
        return {"type": "WarmupLR", "params": {"warmup_min_lr": 0, "warmup_max_lr": peak, **warmup}}
    if schedule.is_the_trainers:
        return None
    if schedule.type == "one_cycle":
        return {"type": "OneCycle", "params": _one_cycle(schedule, peak, training.steps)}
    total: dict[str, Any] = {"total_num_steps": training.steps}
    if schedule.type == "linear":
        falling = training.steps - schedule.warmup_steps
        drawn_out = round(falling / (1 - schedule.final_fraction)) - falling
        total = {"total_num_steps": training.steps + drawn_out}
        if schedule.warmup_steps == 0:
            total = {"total_num_steps": training.steps + drawn_out + 2, "last_batch_iteration": 2}
        params = {"warmup_min_lr": 0, "warmup_max_lr": peak, **warmup, **total}
        return {"type": "WarmupDecayLR", "params": params}
    if schedule.warmup_steps == 0:
        total = {"total_num_steps": training.steps + 2, "last_batch_iteration": 1}
    # The peak is the optimizer's own `lr`; the end is zero, as with the linear decay.
    return {
        "type": "WarmupCosineLR",
        "params": {"warmup_min_ratio": 0, "cos_min_ratio": schedule.final_fraction or 0, **warmup, **total},
    }


def _one_cycle(schedule: Schedule, peak: float, steps: int) -> dict[str, Any]:
    rising = schedule.warmup_steps or max(1, steps // 2)
    return {
        "cycle_min_lr": peak * schedule.final_fraction,
        "cycle_max_lr": peak,
        "cycle_first_step_size": rising,
        "cycle_second_step_size": steps - rising,
        "cycle_momentum": False,
    }
