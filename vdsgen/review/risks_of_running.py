"""Risks to the run: memory, hosts, ranks, saving and going on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vdsgen.planner.words import gib
from vdsgen.review.effective import BATCH, EffectiveConfig
from vdsgen.review.impact import host_bytes
from vdsgen.review.risk import Risk, Rule, Sides, engine_key
from vdsgen.units import GIB

ENOUGH_HEADROOM, LITTLE_HEADROOM = 0.10, 0.05
"""Fractions of a GPU's memory: falling from the first below the second is worth a look."""
KEPT_ON_RESUME = {
    "optimizer.params.lr": "the learning rate",
    "optimizer.params.betas": "the betas",
    "optimizer.params.eps": "epsilon",
    "optimizer.params.weight_decay": "weight decay",
}
"""What DeepSpeed's load_checkpoint takes from the checkpoint's param_groups, whatever the config says."""


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
                "see that the hosts have it: for each billion of parameters about 12 GB",
                (engine_key(device),),
            )  # fmt: skip
        return
    held, before = host_bytes(sides.plans[1]), host_bytes(sides.plans[0])
    there = int(sides.plans[1].inputs.pool.host_memory_gib * GIB)
    if held > there and not before > there:
        yield Risk(
            "host-memory-short", "error",
            f"{gib(held)} are offloaded to a host that has {gib(there)}",
            "offload less, shard more, or use hosts with more memory",
            sides.changed(engine_key(device), engine_key("zero_optimization.offload_param.device"),
                          engine_key("pipeline.offload_activations")),
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
                engine_key("train_micro_batch_size_per_gpu"), engine_key("gradient_accumulation_steps"),
            ),
        )  # fmt: skip


def _checkpointing(sides: Sides) -> Iterator[Risk]:
    key = "pipeline.activation_checkpoint_interval"
    was, now = sides.values(key)
    if isinstance(was, int) and was > 0 and now == 0:
        yield Risk(
            "activation-checkpointing-off", "warning",
            f"activations are no longer recomputed (every {was} blocks before): all are kept until backward",
            "see that the fullest GPU has room for them", (engine_key(key),),
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
            sides.changed(engine_key("zero_optimization.stage"), engine_key("pipeline.stages")),
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
            sides.changed(engine_key(key), engine_key("zero_optimization.stage")),
        )  # fmt: skip


def _resumed(sides: Sides) -> Iterator[Risk]:
    # Our own training puts the new values in force (model/optimizer_settings.py).
    ours = sides.experiments is not None
    if ours or sides.verdicts.resume.verdict != "as_is":
        return
    scheduled = sides.new.value("scheduler.type") is not None and "scheduler.type" in sides.new.settings
    kept = {
        key: words
        for key, words in KEPT_ON_RESUME.items()
        if sides.changed(engine_key(key)) and not (scheduled and key == "optimizer.params.lr")
    }
    if sides.new.stage not in (0, 3) and sides.changed(engine_key("gradient_clipping")):
        kept["gradient_clipping"] = "gradient clipping"
    if kept:
        yield Risk(
            "resume-keeps-old-values", "warning",
            f"a run that resumes under this goes on with OLD's {_listed(list(kept.values()))}: DeepSpeed "
            "takes them from the checkpoint",
            "start another run from the weights where the new values are to count",
            tuple(engine_key(key) for key in kept),
        )  # fmt: skip


def _batch(sides: Sides) -> Iterator[Risk]:
    def is_left_over(config: EffectiveConfig) -> bool:
        written = [config.settings[key].value for key in BATCH if key in config.settings]
        sizes = [one for one in written if isinstance(one, int) and not isinstance(one, bool) and one > 0]
        return len(sizes) == len(BATCH) and bool(sizes[0] % (sizes[1] * sizes[2]))

    if is_left_over(sides.new) and not is_left_over(sides.old):
        total, micro, steps = (sides.new.settings[key].value for key in BATCH)
        yield Risk(
            "batch-does-not-divide", "error",
            f"a batch of {total} is no multiple of micro-batch {micro} x {steps} accumulation steps: "
            "DeepSpeed refuses it with any number of ranks",
            "make train_batch_size their product times the number of ranks", tuple(map(engine_key, BATCH)),
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
            "turn it on for the one start that loads a converted checkpoint, and off again",
            (engine_key(key),),
        )  # fmt: skip


RUNNING: tuple[Rule, ...] = (
    _memory,
    _host_memory,
    _pipeline,
    _ranks,
    _checkpointing,
    _saved_weights,
    _resumed,
    _batch,
    _universal,
)
