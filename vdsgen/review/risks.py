"""What a reviewer should not miss: each a small rule on two sides, with the values and a remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vdsgen.planner.words import gib
from vdsgen.review.changes import HIDDEN_NOW, Change
from vdsgen.review.effective import EffectiveConfig
from vdsgen.review.impact import host_bytes, warmup_steps
from vdsgen.review.side import DS_CONFIG
from vdsgen.review.verdicts import Verdicts
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.plan import Plan
from vdsgen.units import GIB

Severity = Literal["warning", "error"]
ENOUGH_HEADROOM, LITTLE_HEADROOM = 0.10, 0.05
"""Fractions of a GPU's memory: falling from the first below the second is worth a look."""
HIGHEST_START = 12
"""Power of two that a dynamic loss scale starts at for video, at most (rules/loss_scaling.py)."""
MUCH_FASTER = 2.0
"""Times the learning rate that a larger batch would explain."""
KEPT_ON_RESUME = {
    "optimizer.params.lr": "the learning rate",
    "optimizer.params.betas": "the betas",
    "optimizer.params.eps": "epsilon",
    "optimizer.params.weight_decay": "weight decay",
}
"""What DeepSpeed's load_checkpoint takes from the checkpoint's param_groups, whatever the config says."""


class Risk(NamedTuple):
    """One thing that may go wrong."""

    id: str
    severity: Severity
    message: str
    remedy: str
    keys: tuple[str, ...] = ()
    """`FILE:key`"""


@dataclass(frozen=True, slots=True)
class Sides:
    """All that the rules look at. Plans and experiments are those of rendered directories."""

    old: EffectiveConfig
    new: EffectiveConfig
    changes: Sequence[Change]
    verdicts: Verdicts
    plans: tuple[Plan, Plan] | None = None
    """With the figures of what the directories say now."""
    experiments: tuple[Experiment, Experiment] | None = None

    def values(self, key: str) -> tuple[Any, Any]:
        """What the engine works with, of ds_config.json."""
        return self.old.value(key), self.new.value(key)

    def changed(self, *names: str) -> tuple[str, ...]:
        """Those of these `FILE:key` that changed with effect."""
        return tuple(change.name for change in self.changes if change.affects and change.name in names)


Rule = Callable[[Sides], Iterator[Risk]]


def risks(sides: Sides) -> tuple[Risk, ...]:
    """Errors first."""
    found = [risk for rule in RULES for risk in rule(sides)]
    known = {risk.id for risk in found}
    found += [risk for risk in _lint(sides) if risk.id not in known]
    return tuple(sorted(found, key=lambda risk: risk.severity != "error"))


def _key(key: str) -> str:
    return f"{DS_CONFIG}:{key}"


def _memory(sides: Sides) -> Iterator[Risk]:
    if sides.plans is None:
        return
    keys = tuple(
        change.name for change in sides.changes if "memory" in change.affects and change.follows_from is None
    )
    spare = [
        min((stage.capacity_bytes - stage.memory.peak_bytes, stage.index) for stage in plan.stages)
        for plan in sides.plans
    ]
    (was, _), (now, index) = spare
    stage = sides.plans[1].stages[index]
    capacity = stage.capacity_bytes
    if now < 0:
        yield Risk(
            "does-not-fit", "error",
            f"stage {index} needs {gib(stage.memory.peak_bytes)}, its GPUs have {gib(capacity)}: "
            f"{gib(-now)} too much" + ("" if was < 0 else f", where {gib(was)} were free"),
            "take the change back, recompute more, shard more (zero_optimization.stage), or use fewer "
            "samples a micro-batch", keys,
        )  # fmt: skip
    elif now < LITTLE_HEADROOM * capacity and was >= ENOUGH_HEADROOM * capacity:
        yield Risk(
            "little-headroom", "warning",
            f"{gib(now)} are left on the fullest GPU, where {gib(was)} were",
            "try it on the GPUs before the run is started: vdsgen validate", keys,
        )  # fmt: skip


def _host_memory(sides: Sides) -> Iterator[Risk]:
    device = "zero_optimization.offload_optimizer.device"
    was, now = sides.values(device)
    if sides.plans is None:
        if now == "cpu" and was != "cpu" and sides.new.idle(device) is None:
            yield Risk(
                "offload-needs-host-memory", "warning",
                "optimizer states move to host memory: 12 bytes a trained parameter, over all ranks",
                "see that the hosts have it: for each billion of parameters about 12 GB", (_key(device),),
            )  # fmt: skip
        return
    held, before = host_bytes(sides.plans[1]), host_bytes(sides.plans[0])
    there = int(sides.plans[1].inputs.pool.host_memory_gib * GIB)
    if held > there and not before > there:
        yield Risk(
            "host-memory-short", "error",
            f"{gib(held)} are offloaded to a host that has {gib(there)}",
            "offload less, shard more, or use hosts with more memory",
            sides.changed(_key(device), _key("zero_optimization.offload_param.device"),
                          _key("pipeline.offload_activations")),
        )  # fmt: skip


def _loss_scale(sides: Sides) -> Iterator[Risk]:
    def start(config: EffectiveConfig) -> int | None:
        power = config.value("fp16.initial_scale_power")
        dynamic = config.dtype == "fp16" and config.value("fp16.loss_scale") == 0
        return power if dynamic and isinstance(power, int) else None

    was, now = start(sides.old), start(sides.new)
    if now is not None and now > HIGHEST_START and (was is None or was < now):
        yield Risk(
            "loss-scale-starts-high", "warning",
            f"the loss scale starts at 2^{now}: the first steps overflow, and are skipped",
            "write fp16.initial_scale_power: 9, which video models start with",
            (_key("fp16.initial_scale_power"),),
        )  # fmt: skip


def _precision(sides: Sides) -> Iterator[Risk]:
    was, now = sides.old.dtype, sides.new.dtype
    if now == "fp16" and was != "fp16":
        yield Risk(
            "fp16-overflows", "warning",
            f"training goes from {was} to fp16, whose largest number is 65504: losses can overflow",
            "keep bf16 where the GPU has it; else watch loss_scale and skipped steps",
            (_key("fp16.enabled"),),
        )  # fmt: skip
    sums = [config.value("data_types.grad_accum_dtype") for config in (sides.old, sides.new)]
    steps = sides.new.value("gradient_accumulation_steps")
    if sums[1] == "bf16" and sums[0] != "bf16" and isinstance(steps, int) and steps > 1:
        yield Risk(
            "gradients-add-up-in-bf16", "warning",
            f"the gradients of {steps} micro-batches are added up in bf16, in {sums[0]} before: small "
            "ones are lost",
            "write data_types.grad_accum_dtype: fp32, with ZeRO stage 1 or 2",
            (_key("data_types.grad_accum_dtype"),),
        )  # fmt: skip


def _clipping(sides: Sides) -> Iterator[Risk]:
    was, now = sides.values("gradient_clipping")
    if isinstance(was, int | float) and was > 0 and now == 0:
        yield Risk(
            "no-gradient-clipping", "warning",
            f"gradients are no longer clipped (at {was:g} before): one odd clip can throw the weights off",
            f"write gradient_clipping: {was:g}", (_key("gradient_clipping"),),
        )  # fmt: skip


def _rates(sides: Sides) -> Iterator[Risk]:
    scaled = sides.verdicts.learning_rate
    was, now = sides.old.rate, sides.new.rate
    rate_keys = sides.changed(
        _key("optimizer.params.lr"), _key("scheduler.params.warmup_max_lr"),
        _key("scheduler.params.cycle_max_lr"),
    )  # fmt: skip
    if scaled is not None and was is not None and was == now:
        batch = sides.changed(
            *(_key(name) for name in (
                "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"))
        )  # fmt: skip
        yield Risk(
            "batch-without-learning-rate", "warning",
            f"a step sees {scaled.batch_ratio:g} times as many samples, at the same learning rate ({was:g})",
            f"for Adam scale by the square root: {scaled.square_root:.3g}; for SGD in proportion: "
            f"{scaled.linear:.3g}", batch,
        )  # fmt: skip
    ratio = 1.0 if scaled is None else max(1.0, scaled.batch_ratio)
    if was and now and now >= MUCH_FASTER * was * ratio:
        yield Risk(
            "learning-rate-up", "warning",
            f"the learning rate goes from {was:g} to {now:g}, {now / was:.3g} times as high",
            "start it as another run, with a warm-up, and watch the gradient norm", rate_keys,
        )  # fmt: skip


def _warmup(sides: Sides) -> Iterator[Risk]:
    was, now = warmup_steps(sides.old), warmup_steps(sides.new)
    if was and was > 2 and (now is None or now <= 2):
        yield Risk(
            "no-warm-up", "warning",
            f"the learning rate no longer rises over {was} steps: it starts at its peak",
            f"keep a warm-up: scheduler.params.warmup_num_steps: {was}",
            sides.changed(_key("scheduler.type"), _key("scheduler.params.warmup_num_steps")),
        )  # fmt: skip


def _ranks(sides: Sides) -> Iterator[Risk]:
    if sides.plans is not None:
        was, now = (plan.parallel.world_size for plan in sides.plans)
        batches = tuple(plan.batch.global_batch_size for plan in sides.plans)
    elif sides.old.ranks is not None and sides.new.ranks is not None:
        was, now = sides.old.ranks, sides.new.ranks
        batches = sides.values("train_batch_size")
    else:
        return
    if was != now and batches[0] == batches[1]:
        yield Risk(
            "ranks-without-batch", "warning",
            f"{now} GPUs share the batch of {batches[0]} that {was} had",
            "mean to? A batch in proportion keeps each GPU as busy; the same batch keeps the loss curve",
            sides.changed(
                "plan.json:parallel.world_size",
                _key("train_micro_batch_size_per_gpu"), _key("gradient_accumulation_steps"),
            ),
        )  # fmt: skip


def _checkpointing(sides: Sides) -> Iterator[Risk]:
    key = "pipeline.activation_checkpoint_interval"
    was, now = sides.values(key)
    if isinstance(was, int) and was > 0 and now == 0:
        yield Risk(
            "activation-checkpointing-off", "warning",
            f"activations are no longer recomputed (every {was} blocks before): all are kept until backward",
            "see that the fullest GPU has room for them", (_key(key),),
        )  # fmt: skip
    if sides.experiments is None:
        return
    every = [experiment.training.saving.every_steps for experiment in sides.experiments]
    if isinstance(every[0], int) and isinstance(every[1], int) and every[1] >= 4 * every[0]:
        yield Risk(
            "rarely-saved", "warning",
            f"checkpoints are saved every {every[1]} steps, every {every[0]} before: a failure loses as much",
            "write training.saving.every_steps: auto, and say in the lab file how often nodes fail",
            ("train.yaml:training.saving.every_steps",),
        )  # fmt: skip


def _seed(sides: Sides) -> Iterator[Risk]:
    if sides.experiments is None:
        return
    was, now = (experiment.training.seed for experiment in sides.experiments)
    if was != now:
        yield Risk(
            "seed-changed", "warning",
            f"the seed goes from {was} to {now}: other clips, other noise, other initial weights",
            "keep the seed where runs are to be compared", ("train.yaml:training.seed",),
        )  # fmt: skip


def _pipeline(sides: Sides) -> Iterator[Risk]:
    def broken(config: EffectiveConfig) -> bool:
        stages = config.value("pipeline.stages")
        return isinstance(stages, int) and stages > 1 and config.stage in (2, 3)

    if broken(sides.new) and not broken(sides.old):
        yield Risk(
            "zero-with-pipeline", "error",
            f"ZeRO stage {sides.new.stage} with {sides.new.value('pipeline.stages')} pipeline stages: "
            "DeepSpeed refuses it",
            "use zero_optimization.stage 1 with a pipeline",
            sides.changed(_key("zero_optimization.stage"), _key("pipeline.stages")),
        )  # fmt: skip


def _saved_weights(sides: Sides) -> Iterator[Risk]:
    key = "zero_optimization.stage3_gather_16bit_weights_on_model_save"
    was, now = sides.values(key)
    turned_off = sides.new.stage == 3 and now is False and (was is True or sides.old.stage != 3)
    if turned_off and sides.plans is None:
        yield Risk(
            "weights-stay-sharded", "warning",
            "at stage 3 save_16bit_model writes no weights unless they are gathered first",
            f"write {key}: true, or convert checkpoints with zero_to_fp32",
            sides.changed(_key(key), _key("zero_optimization.stage")),
        )  # fmt: skip


def _resumed(sides: Sides) -> Iterator[Risk]:
    if sides.verdicts.resume.verdict != "as_is":
        return
    scheduled = sides.new.value("scheduler.type") is not None and "scheduler.type" in sides.new.settings
    kept = {
        key: words
        for key, words in KEPT_ON_RESUME.items()
        if sides.changed(_key(key)) and not (scheduled and key == "optimizer.params.lr")
    }
    if sides.new.stage not in (0, 3) and sides.changed(_key("gradient_clipping")):
        kept["gradient_clipping"] = "gradient clipping"
    if kept:
        yield Risk(
            "resume-keeps-old-values", "warning",
            f"a run that resumes under this goes on with OLD's {_listed(list(kept.values()))}: DeepSpeed "
            "takes them from the checkpoint",
            "start another run from the weights where the new values are to count",
            tuple(_key(key) for key in kept),
        )  # fmt: skip


def _listed(words: Sequence[str]) -> str:
    bare = [word.removeprefix("the ") for word in words]
    return bare[0] if len(bare) == 1 else f"{', '.join(bare[:-1])} and {bare[-1]}"


def _universal(sides: Sides) -> Iterator[Risk]:
    key = "checkpoint.load_universal"
    was, now = sides.values(key)
    if now is True and was is not True:
        yield Risk(
            "loads-universal-only", "warning",
            "checkpoint.load_universal is on: DeepSpeed then loads converted checkpoints only",
            "turn it on for the one start that loads a converted checkpoint, and off again", (_key(key),),
        )  # fmt: skip


def _quantised(sides: Sides) -> Iterator[Risk]:
    for key, bits in (("zero_quantized_gradients", "int4"), ("zero_quantized_weights", "int8")):
        name = f"zero_optimization.{key}"
        was, now = sides.values(name)
        if now is True and was is not True and sides.new.idle(name) is None:
            yield Risk(
                "quantised-exchange", "warning",
                f"{key.removeprefix('zero_quantized_')} are exchanged in {bits}: losses follow the old curve "
                "less closely than other orders of sums do",
                "compare losses over some hundred steps first", (_key(name),),
            )  # fmt: skip


def _secrets(sides: Sides) -> Iterator[Risk]:
    for change in sides.changes:
        if change.new == HIDDEN_NOW:
            yield Risk(
                "secret-in-file", "error",
                f"{change.key} holds a secret now, and config files are committed, rendered and logged",
                "take it out, and replace it if it was committed: monitors read theirs from the environment",
                (change.name,),
            )  # fmt: skip


RULES: tuple[Rule, ...] = (
    _memory, _host_memory, _pipeline, _secrets, _rates, _precision, _loss_scale, _clipping, _warmup, _ranks,
    _checkpointing, _seed, _saved_weights, _resumed, _universal, _quantised,
)  # fmt: skip

NOT_NEW = frozenset({"departs-from-plan", "no-strict-json"})
"""Checks that are about the file, or that the diff says in words of its own."""
SAID_BETTER = {"pipeline-zero": "zero-with-pipeline", "loss-scale-initial": "loss-scale-starts-high"}


def _lint(sides: Sides) -> Iterator[Risk]:
    """What `vdsgen lint` finds in NEW, and not in OLD."""
    before = {(finding.check, finding.pointer) for finding in sides.old.linted.findings}
    seen = set[tuple[str, str]]()
    nothing_changes = not any(change.affects for change in sides.changes)
    for finding in sides.new.linted.findings:
        place = (finding.check, finding.pointer)
        if finding.level == "note" or finding.check in NOT_NEW or place in before | seen:
            continue
        if nothing_changes and finding.level != "error":
            continue
        seen.add(place)
        key = finding.pointer[1:].replace("/", ".")
        yield Risk(
            SAID_BETTER.get(finding.check, finding.check), finding.level, finding.message,
            finding.remedy or "see vdsgen lint", (_key(key),) if key else (),
        )  # fmt: skip
