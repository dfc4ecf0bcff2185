"""Pairs of engine configs that differ in one thing, for ranks to find out what comes of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.model.universal.layouts import EMA, INT8, config

Config = dict[str, Any]
GONE = object()
"""Takes a key out."""
ADAMW = {"lr": 1e-3, "torch_adam": True, "fused": True}


class Pair(NamedTuple):
    """What changes, in words, and both sides."""

    what: str
    old: Config
    new: Config
    precision: str

    def __str__(self) -> str:
        return f"{self.what} ({self.precision})"


def changed(base: Config, changes: dict[str, Any]) -> Config:
    """A copy with values at `a.b.c`."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        *above, last = key.split(".")
        section = result
        for name in above:
            section = section.setdefault(name, {})
        if value is GONE:
            section.pop(last, None)
        else:
            section[last] = value
    return result


def of_layouts() -> Iterator[Pair]:
    """Other ranks, or other ZeRO: all of one global batch."""
    for precision in ("fp32", "bf16"):
        yield layouts("ZeRO 0 -> 1", (1, 2, 0), (1, 2, 1), precision)
        yield layouts("ZeRO 1 -> 2", (1, 2, 1), (1, 2, 2), precision)
        yield layouts("ZeRO 2 -> 1", (1, 2, 2), (1, 2, 1), precision)
        yield layouts("1 -> 2 data ranks", (1, 1, 1), (1, 2, 1), precision)
        yield layouts("2 -> 1 data ranks", (1, 2, 2), (1, 1, 2), precision)
        yield layouts("2 -> 4 pipeline stages", (2, 1, 0), (4, 1, 0), precision)
        yield layouts("2 stages -> 2 data ranks", (2, 1, 0), (1, 2, 0), precision)
        yield layouts("1 -> 2 pipeline stages", (1, 1, 0), (2, 1, 0), precision)
        yield layouts("ZeRO 0 -> 1 in a pipeline", (2, 1, 0), (2, 1, 1), precision)
    yield layouts("ZeRO 0 -> 1 on one rank", (1, 1, 0), (1, 1, 1), "fp32")
    yield layouts("ZeRO 1 -> 2 on one rank", (1, 1, 1), (1, 1, 2), "fp32")
    yield Pair("1 -> 2 tensor ranks", config(1, 1, 1, "fp32"), config(1, 1, 1, "fp32", tensor=2), "fp32")


def layouts(what: str, old: tuple[int, int, int], new: tuple[int, int, int], precision: str) -> Pair:
    return Pair(what, config(*old, precision), config(*new, precision), precision)


PIPELINE = config(2, 1, 1, "fp32")


def of_pipelines() -> Iterator[Pair]:
    for precision in ("fp32", "bf16"):
        base = config(2, 1, 1, precision)
        yield edit("partition moved", base, {"pipeline.partition": [0, 2, 6]}, precision)
        yield edit("every layer recomputed", base, {"pipeline.activation_checkpoint_interval": 1}, precision)
        yield edit("nothing recomputed", base, {"pipeline.activation_checkpoint_interval": 0}, precision)
    yield edit("use_reentrant true", PIPELINE, {"pipeline.use_reentrant": True}, "fp32")
    yield edit("pipeline.seed_layers", PIPELINE, {"pipeline.seed_layers": True}, "fp32")


def of_batches() -> Iterator[Pair]:
    for precision in ("fp32", "bf16"):
        for stage in (0, 2):
            yield edit(
                f"micro-batch doubled, accumulation halved, ZeRO-{stage}",
                config(1, 2, stage, precision),
                {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 1},
                precision,
            )


def of_communication() -> Iterator[Pair]:
    for stage, precision in ((1, "fp32"), (2, "fp32"), (2, "bf16")):
        base = config(1, 2, stage, precision)
        for what, value in (
            ("reduce_bucket_size", 1000),
            ("allgather_bucket_size", 1000),
            ("reduce_scatter", False),
            ("overlap_comm", True),
            ("contiguous_gradients", False),
            ("round_robin_gradients", True),
        ):
            yield of_zero(what, value, base, precision, f"ZeRO-{stage}")
    # Sums of four have an order, which buckets may change; those of two have none.
    base = config(1, 4, 2, "fp32")
    for what, value in (("reduce_bucket_size", 1000), ("reduce_scatter", False), ("overlap_comm", True)):
        yield of_zero(what, value, base, "fp32", "ZeRO-2, four ranks")
    yield layouts("ZeRO 1 -> 2 without accumulation", (1, 4, 1), (1, 4, 2), "fp32")
    yield from of_reduction()


def of_zero(what: str, value: Any, base: Config, precision: str, where: str) -> Pair:
    change = {f"zero_optimization.{what}": value}
    return edit(f"{what} {json.dumps(value)}, {where}", base, change, precision)


def of_reduction() -> Iterator[Pair]:
    """What gradients are added in, and what of."""
    for stage, precision in ((0, "fp32"), (0, "bf16"), (2, "bf16")):
        base = changed(config(1, 2, stage, precision), {"zero_optimization.reduce_scatter": False})
        yield edit(f"prescale_gradients, ZeRO-{stage}", base, {"prescale_gradients": True}, precision)
        factor = {"gradient_predivide_factor": 3.0}
        yield edit(f"gradient_predivide_factor 3, ZeRO-{stage}", base, factor, precision)
        yield edit(
            f"gradient_predivide_factor 3 beside prescale_gradients, ZeRO-{stage}",
            changed(base, {"prescale_gradients": True}),
            factor,
            precision,
        )
    for stage in (0, 2):
        for to, precision in (("fp32", "bf16"), ("bf16", "fp32")):
            sent = {"communication_data_type": to}
            base = config(1, 2, stage, precision)
            yield edit(f"gradients travel in {to}, ZeRO-{stage}", base, sent, precision)
    for stage in (1, 2):
        summed = {"data_types": {"grad_accum_dtype": "fp32"}}
        what = f"gradients add up in fp32, ZeRO-{stage}"
        yield edit(what, config(1, 2, stage, "bf16"), summed, "bf16")
    base = config(1, 2, 0, "bf16")
    packed = {"vdsgen": {"gradient_compression": "int8"}}
    yield edit("gradients compressed to int8", base, packed, "bf16")
    yield edit("gradients added and not averaged", base, {"gradient_allreduce_op": "sum"}, "bf16")


def of_optimizers() -> Iterator[Pair]:
    base = config(1, 2, 1, "fp32")
    for what, params in (
        ("not fused", {"lr": 1e-3, "torch_adam": True}),
        ("learning rate in `optimizer` under WarmupLR", ADAMW | {"lr": 3e-3}),
        ("betas", ADAMW | {"betas": [0.9, 0.95]}),
        ("default betas written", ADAMW | {"betas": [0.9, 0.999]}),
        ("eps 1e-8 written", ADAMW | {"eps": 1e-8}),
        ("eps 1e-6", ADAMW | {"eps": 1e-6}),
        ("weight_decay 0.01 written", ADAMW | {"weight_decay": 0.01}),
        ("weight_decay 0", ADAMW | {"weight_decay": 0.0}),
        ("weight_decay 0.1", ADAMW | {"weight_decay": 0.1}),
        ("adam_w_mode false beside AdamW", ADAMW | {"adam_w_mode": False}),
    ):
        yield edit(what, base, {"optimizer.params": params}, "fp32")
    adam = {"optimizer": {"type": "Adam", "params": ADAMW}}
    yield edit("AdamW -> Adam", base, adam, "fp32")
    adam = {"optimizer": {"type": "Adam", "params": ADAMW | {"adam_w_mode": False}}}
    yield edit("AdamW -> Adam with adam_w_mode false", base, adam, "fp32")
    for norm in (GONE, 0.0, 0.5, 1e6):
        shown = "left out" if norm is GONE else f"{norm:g}"
        yield edit(f"gradient_clipping 1.0 -> {shown}", base, {"gradient_clipping": norm}, "fp32")
    unclipped = changed(base, {"gradient_clipping": 0.0})
    yield edit("gradient_clipping 0 -> left out", unclipped, {"gradient_clipping": GONE}, "fp32")
    for stage, precision in ((0, "fp32"), (0, "bf16")):
        other = config(1, 2, stage, precision)
        off = {"gradient_clipping": 0.0}
        yield edit(f"gradient_clipping 1.0 -> 0, ZeRO-{stage}", other, off, precision)
        more = {"optimizer.params.weight_decay": 0.1}
        yield edit(f"weight_decay 0.1, ZeRO-{stage}", other, more, precision)
    untested = changed(base, {"zero_allow_untested_optimizer": True})
    for other_type in ("SGD", "Adagrad"):
        change = {"optimizer": {"type": other_type, "params": {"lr": 1e-3}}}
        yield edit(f"AdamW -> {other_type}", untested, change, "fp32")
    for stage in (1, 2):
        host = {"zero_optimization.offload_optimizer": {"device": "cpu"}}
        what = f"optimizer in host memory, ZeRO-{stage}"
        yield edit(what, config(1, 2, stage, "bf16"), host, "bf16")
    base = config(1, 2, 1, "bf16")
    yield edit("moments in int8", base, {"vdsgen": INT8, "zero_allow_untested_optimizer": True}, "bf16")
    yield edit("an average of the weights", base, {"vdsgen": EMA}, "bf16")


def of_schedules() -> Iterator[Pair]:
    base = config(1, 2, 1, "fp32")
    for what, params in (
        ("warmup_type linear", {"scheduler.params.warmup_type": "linear"}),
        ("warmup_type log written", {"scheduler.params.warmup_type": "log"}),
        ("warmup_num_steps 6 -> 60", {"scheduler.params.warmup_num_steps": 60}),
        ("warmup_max_lr doubled", {"scheduler.params.warmup_max_lr": 2e-3}),
        ("without a scheduler", {"scheduler": GONE}),
        ("warmup_max_lr left out", {"scheduler.params.warmup_max_lr": GONE}),
        ("warmup_min_lr 0 left out", {"scheduler.params.warmup_min_lr": GONE}),
    ):
        yield edit(what, base, params, "fp32")
    short = changed(base, {"scheduler.params.warmup_num_steps": 1})
    yield edit("warmup_num_steps 1 -> 2", short, {"scheduler.params.warmup_num_steps": 2}, "fp32")
    yield edit("warmup_num_steps 1 -> 0", short, {"scheduler.params.warmup_num_steps": 0}, "fp32")
    params = {"warmup_min_ratio": 0, "warmup_num_steps": 2, "cos_min_ratio": 0.0, "total_num_steps": 20}
    cosine = changed(base, {"scheduler": {"type": "WarmupCosineLR", "params": params}})
    longer = {"scheduler.params.total_num_steps": 40}
    yield edit("total_num_steps of a cosine doubled", cosine, longer, "fp32")
    yield edit(
        "learning rate in `optimizer` under WarmupCosineLR", cosine, {"optimizer.params.lr": 3e-3}, "fp32"
    )
    params = {"warmup_min_lr": 0, "warmup_max_lr": 1e-3, "warmup_num_steps": 2, "total_num_steps": 20}
    decaying = changed(base, {"scheduler": {"type": "WarmupDecayLR", "params": params}})
    yield edit("total_num_steps of a line doubled", decaying, longer, "fp32")
    yield edit(
        "decay shape of WarmupCosineLR left out", cosine, {"scheduler.params.cos_min_ratio": GONE}, "fp32"
    )


def of_precision() -> Iterator[Pair]:
    sides = {name: config(1, 2, 1, name) for name in ("fp32", "bf16", "fp16")}
    for old, new in (("fp32", "bf16"), ("fp16", "bf16"), ("bf16", "fp32"), ("bf16", "fp16")):
        yield Pair(f"{old} -> {new}", sides[old], sides[new], new)
    fp16 = sides["fp16"]
    for what, changes in (
        ("loss_scale_window 2 -> 1000", {"fp16.loss_scale_window": 1000}),
        ("initial_scale_power 9 -> 12", {"fp16.initial_scale_power": 12}),
        ("initial_scale_power 9 -> 30", {"fp16.initial_scale_power": 30}),
        ("hysteresis 1 -> 2", {"fp16.hysteresis": 2}),
        ("loss_scale dynamic -> 512", {"fp16.loss_scale": 512}),
        ("min_loss_scale 1 written", {"fp16.min_loss_scale": 1}),
    ):
        yield edit(what, fp16, changes, "fp16")
    static = changed(fp16, {"fp16.loss_scale": 512})
    for what, changes in (
        ("initial_scale_power under a fixed scale", {"fp16.initial_scale_power": 14}),
        ("loss_scale_window under a fixed scale", {"fp16.loss_scale_window": 99}),
    ):
        yield edit(what, static, changes, "fp16")
    off = {"fp16": {"enabled": False, "initial_scale_power": 4, "loss_scale_window": 7}}
    yield edit("fp16 block that is off", sides["bf16"], off, "bf16")
    yield edit("check_grad_overflow off", sides["bf16"], {"bf16.check_grad_overflow": False}, "bf16")
    masters = {"bf16.bf16_master_weights_and_grads": True}
    yield edit("bf16 master weights", sides["bf16"], masters, "bf16")
    own = {"bf16": GONE, "bfloat16": {"enabled": True}}
    yield edit("bf16 named bfloat16", sides["bf16"], own, "bf16")


def of_the_rest() -> Iterator[Pair]:
    base = config(1, 2, 2, "bf16")
    for what, changes in (
        ("steps_per_print", {"steps_per_print": 3}),
        ("wall_clock_breakdown", {"wall_clock_breakdown": True}),
        ("memory_breakdown", {"memory_breakdown": True}),
        ("dump_state", {"dump_state": True}),
        ("flops_profiler off, with contents", {"flops_profiler": {"enabled": False, "profile_step": 9}}),
        ("offload_optimizer to none", {"zero_optimization.offload_optimizer": {"device": "none"}}),
        ("offload_param at stage 2", {"zero_optimization.offload_param": {"device": "cpu"}}),
        ("stage3 settings at stage 2", {"zero_optimization.stage3_max_live_parameters": 1000}),
        ("activation_checkpointing block", {"activation_checkpointing": {"partition_activations": True}}),
        ("an unknown key at the top", {"my_own_key": 3}),
        ("zero_allow_untested_optimizer", {"zero_allow_untested_optimizer": True}),
        ("zero_force_ds_cpu_optimizer", {"zero_force_ds_cpu_optimizer": False}),
        ("checkpoint.tag_validation", {"checkpoint": {"tag_validation": "Ignore"}}),
        ("load_from_fp32_weights off", {"zero_optimization.load_from_fp32_weights": False}),
        ("elastic_checkpoint", {"zero_optimization.elastic_checkpoint": True}),
        ("ignore_unused_parameters off", {"zero_optimization.ignore_unused_parameters": False}),
        ("sub_group_size at stage 2", {"zero_optimization.sub_group_size": 1000}),
        ("dataloader_drop_last", {"dataloader_drop_last": True}),
        ("disable_allgather", {"disable_allgather": True}),
        ("allgather_partitions off", {"zero_optimization.allgather_partitions": False}),
        ("multi-rank buckets off", {"zero_optimization.use_multi_rank_bucket_allreduce": False}),
        ("parameter_alignment", {"zero_optimization.parameter_alignment": True}),
        (
            "comms_logger",
            {"comms_logger": {"enabled": True, "verbose": False, "prof_all": True, "debug": False}},
        ),
    ):
        yield edit(what, base, changes, "bf16")


def of_stage_3() -> Iterator[Pair]:
    """Last: once it is built, a process has its linear layers, which round otherwise."""
    for precision in ("fp32", "bf16"):
        yield layouts("ZeRO 2 -> 3", (1, 2, 2), (1, 2, 3), precision)
        yield layouts("ZeRO 3 -> 2", (1, 2, 3), (1, 2, 2), precision)
    base = config(1, 2, 3, "fp32")
    for what, value in (
        ("stage3_max_live_parameters", 1000),
        ("stage3_prefetch_bucket_size", 1000),
        ("stage3_param_persistence_threshold", 10),
        ("sub_group_size", 5000),
        ("reduce_bucket_size", 1000),
        ("overlap_comm", False),
        ("overlap_comm", True),
        ("reduce_scatter", False),
        ("stage3_gather_16bit_weights_on_model_save", True),
        ("memory_efficient_linear", False),
    ):
        yield of_zero(what, value, base, "fp32", "ZeRO-3")
    yield edit("gradient_clipping 1.0 -> 0, ZeRO-3", base, {"gradient_clipping": 0.0}, "fp32")


def edit(what: str, base: Config, changes: dict[str, Any], precision: str) -> Pair:
    return Pair(what, base, changed(base, changes), precision)


TOPICS = {
    "Layouts of ranks": of_layouts,
    "Pipelines and recomputation": of_pipelines,
    "Batches": of_batches,
    "Gradients on their way": of_communication,
    "Optimizers": of_optimizers,
    "Learning rates": of_schedules,
    "Precision": of_precision,
    "The rest": of_the_rest,
    "ZeRO-3": of_stage_3,
}


def all_pairs() -> dict[str, list[Pair]]:
    """By topic."""
    pairs = {topic: list(source()) for topic, source in TOPICS.items()}
    names = [str(pair) for own in pairs.values() for pair in own]
    assert len(set(names)) == len(names)
    return pairs
