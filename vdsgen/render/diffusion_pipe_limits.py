"""What diffusion-pipe cannot do of a plan.

Files are of tdrussell/diffusion-pipe: train.py at 203e2c1507ad, models/wan/wan.py and models/ltx_video.py at
41fa1286a53d, models/hunyuan_video.py at 056d8f8c2abe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vdsgen.render.other_limits import entrypoint_limits
from vdsgen.render.placement import placement
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan
from vdsgen.spec.recipes import trained_recipe
from vdsgen.spec.recipes.recipe import FixedShift, Recipe


@dataclass(frozen=True, slots=True)
class Family:
    """A class of diffusers as diffusion-pipe has it: embedding, blocks, final layer, as here."""

    type: str
    frame_rate: float
    full: bool
    """Whether it trains every weight (docs/supported_models.md)."""
    shift: bool
    """Whether its config says a shift of t."""
    mlp: str
    """What the MLP of a block is called."""


FAMILIES = {
    "WanTransformer3DModel": Family("wan", 16, full=True, shift=True, mlp="ffn"),
    "LTXVideoTransformer3DModel": Family("ltx-video", 25, full=False, shift=False, mlp="ff"),
}
"""It trains HunyuanVideo too, whose adapters there are of fused projections (`img_attn_qkv`)."""

LARGE_WAN_FRAME_RATE = 24.0
"""Of Wan 2.2's 5 B model (wan.py, `ti2v`)."""


def family_of(experiment: Experiment) -> Family | None:
    model = experiment.model
    return FAMILIES.get(model.class_name) if isinstance(model, DiffusersModel) else None


def diffusion_pipe_limits(plan: Plan, experiment: Experiment) -> Iterator[str]:
    """What it cannot do of a plan, each with the pin that avoids it where there is one."""
    family, model = family_of(experiment), experiment.model
    if family is None or not isinstance(model, DiffusersModel):
        names = " and ".join(name.removesuffix("Transformer3DModel") for name in FAMILIES)
        yield f"models other than {names} as they are here"
    else:
        yield from _method_limits(plan, experiment, family, model)
        yield from _recipe_limits(trained_recipe(model, experiment), family)
        yield from _clip_limits(experiment, frame_rate_of(family, model))
    yield from _engine_limits(plan)
    if experiment.training.schedule.type != "constant":
        kind = experiment.training.schedule.type
        yield f"schedule {kind}, whose end it counts in epochs (training.schedule.type: constant)"
    yield from entrypoint_limits(plan, experiment)


def frame_rate_of(family: Family, model: DiffusersModel) -> float:
    large = model.recipe.name == "wan-ti2v"
    return LARGE_WAN_FRAME_RATE if large else family.frame_rate


def _engine_limits(plan: Plan) -> Iterator[str]:
    """train.py: its DeepSpeed config has batch, accumulation and clipping alone."""
    parallel = plan.parallel
    if plan.inputs.pool.on_processors:
        yield "training on processors"
    if plan.zero.stage:
        yield f"ZeRO-{plan.zero.stage} (constraints.zero_stage: 0)"
    if parallel.tensor_parallel_size > 1:
        yield "tensor parallelism (constraints.tensor_parallel_size: 1)"
    if parallel.sequence_parallel_size > 1:
        yield "sequence parallelism (constraints.sequence_parallel_size: 1)"
    if plan.activation_checkpointing.interval > 1:
        pin = "constraints.activation_checkpoint_interval: 1"
        yield f"checkpoints of {plan.activation_checkpointing.interval} blocks at a time ({pin})"
    if placement(plan).nodes > 1:
        yield "several machines: it takes a rank's number for its GPU's"
    if plan.precision.linear != "exact":
        yield f"linear layers in {plan.precision.linear} (training.linear_precision: exact)"
    if plan.communication.dtype not in (None, plan.precision.dtype):
        yield "gradients that travel in another precision (training.communication_precision: exact)"


def _method_limits(
    plan: Plan, experiment: Experiment, family: Family, model: DiffusersModel
) -> Iterator[str]:
    training, precision = experiment.training, plan.precision
    if precision.dtype == "fp16":
        yield "fp16, which it trains without loss scaling (training.precision: bf16)"
    if training.method == "full":
        if not family.full:
            yield f"every weight of {family.type} (training.method: lora)"
        if precision.dtype == "bf16":
            yield "bf16 with weights in fp32 beside it (training.precision: fp32, or training.method: lora)"
    else:
        if training.lora.alpha not in (None, float(training.lora.rank)):
            yield "adapters whose alpha is not their rank (leave out training.lora.alpha)"
        needed = linear_layers(family, model)
        if not _same_layers(training.lora.targets, needed):
            names = ", ".join(
                dict.fromkeys(name.removeprefix("attn1.").removeprefix("attn2.") for name in needed)
            )
            yield f"adapters on some linear layers of a block alone (training.lora.targets: [{names}])"
    if model.weights is None:
        yield "random weights (name the model's folder)"


def linear_layers(family: Family, model: DiffusersModel) -> tuple[str, ...]:
    """Of a block, by diffusers' names: those of the original model under other names, all get adapters
    (models/base.py, configure_adapter)."""
    image = ("attn2.add_k_proj", "attn2.add_v_proj") if model.config.get("added_kv_proj_dim") else ()
    projections = [f"{attention}.{name}" for attention in ("attn1", "attn2") for name in _PROJECTIONS]
    return (*projections, *image, f"{family.mlp}.net.0.proj", f"{family.mlp}.net.2")


_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def _same_layers(targets: tuple[str, ...], needed: tuple[str, ...]) -> bool:
    """Whether targets, ends of names, mean all of these layers and nothing else that is known."""

    def means(target: str, name: str) -> bool:
        return name == target or name.endswith(f".{target}")

    every = all(any(means(target, name) for target in targets) for name in needed)
    return every and all(any(means(target, name) for name in needed) for target in targets)


def _recipe_limits(recipe: Recipe, family: Family) -> Iterator[str]:
    """utils/common.py, get_t_distribution; wan.py, prepare_inputs."""
    times = recipe.timesteps
    if times.kind == "mode" or (times.kind == "logit_normal" and times.mean):
        yield "such a distribution of timesteps (training.diffusion.recipe: timestep_sampling, logit_mean: 0)"
    if not family.shift and recipe.shift != FixedShift(1.0):
        yield "a shift of timesteps (training.diffusion.recipe.shift: 1.0)"
    if family.shift and not isinstance(recipe.shift, FixedShift):
        yield "a shift of timesteps that depends on the clip (training.diffusion.recipe.shift: a number)"
    if not family.shift and (times.low, times.high) != (0.0, 1.0):
        yield "a part of the timesteps (leave out training.diffusion.recipe.timestep_range)"
    if family.type == "wan" and recipe.gives_first_frame:
        yield "a given first frame (training.diffusion.recipe.first_frame_share: 0)"


def _clip_limits(experiment: Experiment, frame_rate: float) -> Iterator[str]:
    data = experiment.data
    if data.pipeline is None:
        yield "latents other than the model's own autoencoder's (data.pipeline)"
    if data.frame_rate != frame_rate:
        yield f"clips at another rate than the model's (data.frame_rate: {frame_rate:g})"
    if data.buckets:
        yield "further sizes of clips (leave out data.buckets)"
    if data.random_flip or data.crop == "random":
        yield "mirrored or randomly cut clips (data.random_flip: false, data.crop: center)"
