"""What the planner's cost model says of a rendered directory's ds_config.json as it is, edited or not."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

from vdsgen.catalog.profiles import profile_for
from vdsgen.cost.settings import Settings
from vdsgen.errors import VdsgenError
from vdsgen.planner.plan_settings import sections_of, settings_of
from vdsgen.render.check_rendered import differences
from vdsgen.render.engine_config import engine_config
from vdsgen.review.absent import ABSENT
from vdsgen.review.directory import RenderedDirectory
from vdsgen.review.effective import EffectiveConfig
from vdsgen.review.effects import UNKNOWN, effect_of
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.diffusers_model import DiffusersModel
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.plan import Batch, Plan
from vdsgen.spec.run import Layout, layout_of
from vdsgen.spec.trainer_section import ema_of

ZERO = "zero_optimization"
BUCKETS = {
    "reduce_bucket_elements": f"{ZERO}.reduce_bucket_size",
    "allgather_bucket_elements": f"{ZERO}.allgather_bucket_size",
}
IN_THE_MODEL = frozenset(
    [
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_accumulation_steps",
        "pipeline.stages",
        "pipeline.partition",
        "pipeline.activation_checkpoint_interval",
        "pipeline.stage_checkpoint_intervals",
        "pipeline.plain_layers",
        "pipeline.selective_layers",
        "pipeline.offload_activations",
        "pipeline.compress_activations",
        "pipeline.tensor_parallel_size",
        "pipeline.sequence_parallel_size",
        "pipeline.pipe_partitioned",
        "pipeline.grad_partitioned",
        "zero_optimization.stage",
        "zero_optimization.offload_optimizer",
        "zero_optimization.offload_param",
        "zero_optimization.zero_quantized_weights",
        "zero_optimization.zero_quantized_gradients",
        "zero_optimization.zero_hpz_partition_size",
        "fp16.enabled",
        "bf16.enabled",
        "data_types.grad_accum_dtype",
        "communication_data_type",
        "vdsgen.gradient_compression",
        "vdsgen.optimizer_state_dtype",
        "vdsgen.ema",
    ]
) | frozenset(BUCKETS.values())
"""Keys that memory and time are predicted from; of others that affect them, nothing is known."""


class Repredicted(NamedTuple):
    """A plan with the memory and time of what the directory says now."""

    plan: Plan
    """Where nothing could be predicted, the plan as it was made."""
    edited: tuple[str, ...]
    """Keys of ds_config.json that say something else than was planned."""
    missing: str | None = None
    """Why the figures are still the plan's, or which edits they leave out."""


def repredicted(directory: RenderedDirectory, config: EffectiveConfig) -> Repredicted:
    """Never raises: what cannot be predicted is said."""
    plan = directory.plan
    try:
        rendered = engine_config(plan, directory.experiment)
    except (VdsgenError, LookupError, ValueError, AssertionError) as error:
        return Repredicted(plan, (), f"its plan renders to no ds_config.json: {error}")
    edited = tuple(key for key, _, _ in differences(directory.ds_config, rendered))
    touching = [key for key in edited if _touches(key)]
    if not touching:
        return Repredicted(plan, edited)
    try:
        settings, partition = as_configured(plan, config, layout_of(directory.ds_config))
        now = _predicted(directory, settings, partition)
    except (VdsgenError, LookupError, ValueError, TypeError, AssertionError, ArithmeticError) as error:
        return Repredicted(plan, edited, str(error) or type(error).__name__)
    if isinstance(now, str):
        return Repredicted(plan, edited, now)
    return Repredicted(now, edited, _left_out(touching))


def _touches(key: str) -> bool:
    """Whether a key, or any below it, may change memory or time."""
    effect = effect_of(f"ds_config.json:{key}")
    found = set(effect.affects if effect is not UNKNOWN else effect_of(f"ds_config.json:{key}.x").affects)
    return bool(found & {"memory", "speed", "unknown"}) or _is_in_the_model(key)


def _is_in_the_model(key: str) -> bool:
    sections = {name.rpartition(".")[0] for name in IN_THE_MODEL}
    return key in IN_THE_MODEL or key in sections


def _left_out(touching: Iterable[str]) -> str | None:
    unknown = [key for key in touching if not _is_in_the_model(key)]
    return f"the cost model has no {', '.join(unknown[:5])}" if unknown else None


def as_configured(plan: Plan, config: EffectiveConfig, layout: Layout) -> tuple[Settings, tuple[int, ...]]:
    """The plan's settings, with those of the config in their place, and the partition."""
    before = settings_of(plan)

    def value(key: str, otherwise: Any = None) -> Any:
        found = config.value(key)
        return otherwise if found is ABSENT or found is None else found

    def layers(key: str) -> tuple[int, ...]:
        return tuple(value(f"pipeline.{key}", ()))

    settings = before._replace(
        pipeline_parallel_size=layout.pipeline_parallel_size,
        data_parallel_size=layout.data_parallel_size,
        tensor_parallel_size=layout.tensor_parallel_size,
        sequence_parallel_size=layout.sequence_parallel_size,
        zero_stage=layout.zero_stage,
        micro_batch_size=value("train_micro_batch_size_per_gpu"),
        gradient_accumulation_steps=value("gradient_accumulation_steps"),
        activation_checkpoint_interval=value("pipeline.activation_checkpoint_interval", 0),
        stage_checkpoint_intervals=layers("stage_checkpoint_intervals"),
        stage_plain_layers=layers("plain_layers"),
        stage_selective_layers=layers("selective_layers"),
        offload_activations=value("pipeline.offload_activations", False),
        activation_compression=value("pipeline.compress_activations", "none"),
        dtype=layout.dtype,
        gradient_accumulation_dtype=value("data_types.grad_accum_dtype"),
        offload_optimizer=value(f"{ZERO}.offload_optimizer.device", "none"),
        offload_parameters=value(f"{ZERO}.offload_param.device", "none"),
        communication_dtype=_communication(config),
        gradient_compression=value("vdsgen.gradient_compression", "none"),
        zero_quantized_weights=value(f"{ZERO}.zero_quantized_weights", False),
        zero_quantized_gradients=value(f"{ZERO}.zero_quantized_gradients", False),
        hierarchical_partition_size=value(f"{ZERO}.zero_hpz_partition_size", 1),
        int8_moments=value("vdsgen.optimizer_state_dtype", "fp32") == "int8",
    )
    ema = ema_of(config.document.plain)
    settings = settings._replace(
        ema="none" if ema is None else ema.device, ema_every_steps=1 if ema is None else ema.every_steps
    )
    for name, key in BUCKETS.items():
        if key in config.settings or settings.zero_stage != before.zero_stage:
            settings = settings._replace(**{name: value(key)})
    return settings, layout.partition or (0, plan.model.layers)


def _communication(config: EffectiveConfig) -> Dtype | None:
    written = config.settings.get("communication_data_type")
    return None if written is None else written.value


def _predicted(directory: RenderedDirectory, settings: Settings, partition: tuple[int, ...]) -> Plan | str:
    """The plan with these settings; or why there is none."""
    plan, experiment = directory.plan, directory.experiment
    pool, layers = plan.inputs.pool, plan.model.layers
    if settings.world_size > pool.world_size:
        return f"it makes {settings.world_size} ranks, pool {pool.name} has {pool.world_size} GPUs"
    cuts = list(pairwise(partition))
    whole = partition[0] == 0 and partition[-1] == layers and all(start < stop for start, stop in cuts)
    if not whole or len(cuts) != settings.pipeline_parallel_size:
        return f"pipeline.partition {list(partition)} does not cut {layers} layers into the stages"
    from vdsgen.planner.again import candidate_of
    from vdsgen.planner.facts import facts
    from vdsgen.planner.plan import stages_of
    from vdsgen.planner.resolve import workload_of
    from vdsgen.planner.solution import predicted
    from vdsgen.rules.registry import forbidding_rules
    from vdsgen.rules.rule import violations

    model = experiment.model
    profile = profile_for(model, experiment.training) if isinstance(model, Vdt | DiffusersModel) else None
    if profile is None:
        return f"no layer profile of {plan.model.name} is known here: plan it once"
    workload = workload_of(experiment, pool, profile, plan.nodes)
    broken = violations(facts(workload, settings), forbidding_rules())
    if broken:
        return f"it is refused: {broken[0].message}"
    sections = sections_of(settings, experiment.training)
    sections["batch"] = Batch(
        micro_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        global_batch_size=settings.micro_batch_size
        * settings.gradient_accumulation_steps
        * settings.data_parallel_size,
    )
    stages = tuple(
        plan.stages[0].model_copy(update={"index": index, "layers": cut}) for index, cut in enumerate(cuts)
    )
    placed = plan.model_copy(update={**sections, "stages": stages})
    candidate = candidate_of(placed, workload)
    return placed.model_copy(
        update={"stages": stages_of(workload, candidate), "predicted": predicted(workload, candidate)}
    )
