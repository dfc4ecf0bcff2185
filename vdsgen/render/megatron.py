"""A plan as arguments of Megatron-LM.

Flags are those of megatron/training/arguments.py at NVIDIA/Megatron-LM 000c4ac24f61; files of Megatron core
are of its release 0.16.1.
"""

from __future__ import annotations

from collections.abc import Iterator

from vdsgen.render.other_limits import entrypoint_limits
from vdsgen.render.placement import placement
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.geometry import TrainedModel, geometry_of
from vdsgen.spec.plan import Plan
from vdsgen.spec.training import Training

FILE = "megatron.args"

HEADER = """\
# What this directory plans, in Megatron-LM's words: parallelism, batch, precision, recomputation, optimizer.
#
#     torchrun --nnodes {nodes} --nproc_per_node {ranks} SCRIPT $(grep -v '^#' DIR/megatron.args)
#
# SCRIPT is yours: Megatron-LM has no video diffusion model, no loss and no clips for one. It builds the
# model's {blocks} blocks on Megatron core's, its embedding on the first stage, its final layer on the last.
# Times and memory of PLAN.md are of this project's training on DeepSpeed.
"""

ONE_STACK = ("WanTransformer3DModel", "LTXVideoTransformer3DModel")
"""Classes of diffusers whose blocks are all alike and hand one sequence on, as Megatron's do."""

DECAYS = {"constant": "constant", "linear": "linear", "cosine": "cosine"}
"""Schedules of ours -> --lr-decay-style. Its inverse square root begins elsewhere."""


def megatron_limits(plan: Plan, experiment: Experiment) -> Iterator[str]:
    """What Megatron-LM cannot do of a plan, each with the pin that avoids it where there is one."""
    yield from _model_limits(experiment)
    if plan.inputs.pool.on_processors:
        yield "training on processors"
    if plan.zero.stage > 1:
        yield f"ZeRO-{plan.zero.stage} (constraints.zero_stage: 1, its distributed optimizer)"
    if {plan.zero.offload_optimizer, plan.zero.offload_parameters} != {"none"}:
        yield "ZeRO's offload (constraints.offload_optimizer: none, constraints.offload_parameters: none)"
    if plan.parallel.sequence_parallel_size > 1:
        yield "the planned sequence parallelism (constraints.sequence_parallel_size: 1)"
    yield from _stage_limits(plan)
    if plan.precision.linear != "exact":
        yield f"linear layers in {plan.precision.linear} (training.linear_precision: exact)"
    if plan.communication.dtype not in (None, plan.precision.dtype):
        yield "gradients that travel in another precision (training.communication_precision: exact)"
    if experiment.training.schedule.type not in DECAYS:
        yield f"schedule {experiment.training.schedule.type} (training.schedule.type: {', '.join(DECAYS)})"
    yield from entrypoint_limits(plan, experiment)


def _model_limits(experiment: Experiment) -> Iterator[str]:
    model = experiment.model
    if isinstance(model, DiffusersModel) and model.class_name not in ONE_STACK:
        yield f"{model.class_name}: its blocks are not one stack of equal ones over one sequence"
    if experiment.training.method == "lora":
        yield "adapters (training.method: full)"


def _stage_limits(plan: Plan) -> Iterator[str]:
    """megatron/core/transformer/transformer_block.py:103-160: the first and the last stage may have another
    number of blocks; :535-542: a segment ends with no stage, it would reach beyond."""
    blocks = blocks_of_stages(plan)
    if min(blocks) < 1:
        yield "a stage without blocks"
    elif len(set(blocks[1:-1])) > 1:
        numbers = "/".join(map(str, blocks))
        yield f"stages of {numbers} blocks: those between the first and the last have equally many"
    interval = plan.activation_checkpointing.interval
    if interval and any(count % interval for count in blocks):
        pin = "constraints.activation_checkpoint_interval: 1"
        yield f"checkpoints of {interval} blocks on stages of {'/'.join(map(str, blocks))} ({pin})"


def blocks_of_stages(plan: Plan) -> tuple[int, ...]:
    """Blocks of each stage: layers without the first (embedding) and the last (final projection)."""
    last = plan.model.layers - 1
    return tuple(max(0, min(stage.layers[1], last) - max(stage.layers[0], 1)) for stage in plan.stages)


def megatron_files(plan: Plan, experiment: Experiment) -> dict[str, str]:
    """The file. Of a plan that `megatron_limits` has nothing against."""
    place = placement(plan)
    sections = (
        _parallel(plan),
        _model(plan, experiment),
        _batch(plan, experiment),
        _numbers(plan, experiment),
    )
    lines = [" ".join(flag) for section in sections for flag in section]
    header = HEADER.format(nodes=place.nodes, ranks=place.ranks_per_node, blocks=sum(blocks_of_stages(plan)))
    if place.devices:
        chosen = ", then ".join(",".join(map(str, devices)) for devices in place.devices)
        header += f"# GPUs of each machine (CUDA_VISIBLE_DEVICES): {chosen}.\n"
    return {FILE: header + "\n".join(lines) + "\n"}


Flags = Iterator[tuple[str, ...]]


def _parallel(plan: Plan) -> Flags:
    """Ranks of a stage stand beside each other in both (Megatron's order tp-cp-ep-dp-pp)."""
    parallel, blocks = plan.parallel, blocks_of_stages(plan)
    yield "--tensor-model-parallel-size", str(parallel.tensor_parallel_size)
    yield "--pipeline-model-parallel-size", str(parallel.pipeline_parallel_size)
    if len(set(blocks)) > 1:
        yield "--decoder-first-pipeline-num-layers", str(blocks[0])
        yield "--decoder-last-pipeline-num-layers", str(blocks[-1])
    if plan.zero.stage == 1:
        yield ("--use-distributed-optimizer",)


def _model(plan: Plan, experiment: Experiment) -> Flags:
    """Sizes of the blocks, and a clip's tokens: by those Megatron sends hidden states between stages."""
    model = experiment.model
    assert isinstance(model, TrainedModel), "of an experiment whose model is resolved"
    yield "--num-layers", str(sum(blocks_of_stages(plan)))
    hidden, heads, mlp = _sizes(model)
    yield "--hidden-size", str(hidden)
    yield "--num-attention-heads", str(heads)
    if mlp is not None:
        yield "--ffn-hidden-size", str(mlp)
    geometry = geometry_of(experiment.data, model)
    tokens = str(geometry.frames * geometry.patches)
    yield "--seq-length", tokens
    yield "--max-position-embeddings", tokens
    yield "--attention-dropout", "0"
    yield "--hidden-dropout", "0"


def _sizes(model: TrainedModel) -> tuple[int, int, int | None]:
    """Hidden size, heads, and the width of the MLP where the configuration says it (LTX: Megatron's own
    four times the hidden size)."""
    if isinstance(model, Vdt):
        return model.hidden_size, model.heads, model.mlp_hidden_size
    heads, head = int(model.config["num_attention_heads"]), int(model.config["attention_head_dim"])
    width = model.config.get("ffn_dim")
    return heads * head, heads, None if width is None else int(width)


def _batch(plan: Plan, experiment: Experiment) -> Flags:
    yield "--micro-batch-size", str(plan.batch.micro_batch_size)
    yield "--global-batch-size", str(plan.batch.global_batch_size)
    yield "--train-iters", str(experiment.training.steps)
    if experiment.training.seed > 0:  # Megatron refuses 0 and begins with a seed of its own
        yield "--seed", str(experiment.training.seed)
    interval = plan.activation_checkpointing.interval
    if interval:
        yield "--recompute-granularity", "full"
        yield "--recompute-method", "uniform"
        yield "--recompute-num-layers", str(interval)


def _numbers(plan: Plan, experiment: Experiment) -> Flags:
    """Precision, clipping, AdamW and its rate."""
    training = experiment.training
    yield from _precision(plan, training)
    yield "--clip-grad", _number(training.gradient_clipping)
    optimizer, schedule = training.optimizer, training.schedule
    yield "--optimizer", "adam"  # with decoupled weight decay, which is AdamW
    yield "--adam-beta1", _number(optimizer.beta1)
    yield "--adam-beta2", _number(optimizer.beta2)
    yield "--adam-eps", _number(optimizer.epsilon)
    yield "--weight-decay", _number(optimizer.weight_decay)
    yield "--lr", _number(optimizer.learning_rate)
    yield "--min-lr", _number(optimizer.learning_rate * schedule.final_fraction)
    yield "--lr-decay-style", DECAYS[schedule.type]
    yield "--lr-decay-iters", str(training.steps)
    yield "--lr-warmup-iters", str(schedule.warmup_steps)


def _precision(plan: Plan, training: Training) -> Flags:
    """bf16 reduces and accumulates in fp32 unless it is told otherwise; fp16 the other way round."""
    precision = plan.precision
    in_fp32 = precision.gradient_accumulation_dtype == "fp32"
    if precision.dtype == "bf16":
        yield ("--bf16",)
        if not in_fp32:
            yield ("--grad-reduce-in-bf16",)
    if precision.dtype == "fp16":
        yield ("--fp16",)
        if in_fp32:
            yield ("--accumulate-allreduce-grads-in-fp32",)
        scaling = training.loss_scaling
        yield "--initial-loss-scale", str(precision.initial_loss_scale or scaling.initial_loss_scale)
        yield "--loss-scale-window", str(precision.loss_scale_window or scaling.loss_scale_window)
        yield "--min-loss-scale", str(scaling.minimum_loss_scale)
        yield "--hysteresis", str(scaling.hysteresis)


def _number(value: float) -> str:
    return f"{value:.12g}"
