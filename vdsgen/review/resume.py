"""Whether a run of OLD can go on under NEW.

Of rendered directories as the training entrypoint decides it (spec/continuing.py). Of a plain DeepSpeed JSON
as `engine.load_checkpoint` of DeepSpeed 0.19.8 does, with its default arguments: what it loads, what only
`ds_to_universal` and `checkpoint.load_universal` carry over, and what neither does. What is said of them was
tried: `python -m tests.benchmarks.engine_resume`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from vdsgen.errors import VdsgenError
from vdsgen.review.absent import ABSENT
from vdsgen.review.directory import RenderedDirectory
from vdsgen.review.effective import EffectiveConfig
from vdsgen.review.side import DS_CONFIG
from vdsgen.spec.continuing import OFFLOAD_DEVICE, ROUND_ROBIN, converting_keys, never_converted, refusals

Resume = Literal["as_is", "conversion", "impossible"]
STAGE = "zero_optimization.stage"
ADAMS = frozenset({"adam", "adamw", "Adam", "AdamW"})
"""Their states are alike, whichever class is built."""


@dataclass(frozen=True, slots=True)
class Resuming:
    """Whether a run can go on, and what forces it."""

    verdict: Resume
    because: tuple[str, ...] = ()
    """`FILE:key`, the keys that force the verdict."""
    reasons: tuple[str, ...] = ()
    """A sentence a key."""


BY_HAND = {
    "plan.json:precision.dtype": ("bf16.enabled", "fp16.enabled"),
    "plan.json:parallel.data_parallel_size": (
        "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps",
    ),
}  # fmt: skip
"""Keys of a plan, and those that say the same in a ds_config.json that was edited."""


def of_directories(old: RenderedDirectory, new: RenderedDirectory, changed: Collection[str]) -> Resuming:
    """As `vdsgen launch NEW --output RUN --resume` does with a run of OLD. `changed`: names of changes."""
    try:
        refused = refusals(old, new)
        converting = [key for one in converting_keys(old, new) for key in _as_changed(one, changed)]
        if refused:
            names = tuple(f"{one.file}:{one.key}" for one in refused)
            return Resuming("impossible", names, tuple(f"{one.key}: {one.why}" for one in refused))
        if converting and (obstacle := never_converted(old, new)) is not None:
            key, why = obstacle
            names = tuple(dict.fromkeys((*converting, f"{DS_CONFIG}:{key}")))
            return Resuming("impossible", names, (why,))
    except (VdsgenError, LookupError) as error:
        return Resuming("impossible", (f"{DS_CONFIG}:train_batch_size",), (str(error),))
    turns = [side.ds_config["gradient_accumulation_steps"] for side in (old, new)]
    if new.experiment.data.bucket_every == "micro_batch" and turns[1] % turns[0]:
        why = "sizes of clips take turns within a step as often as when the run was begun"
        return Resuming("impossible", (f"{DS_CONFIG}:gradient_accumulation_steps",), (why,))
    if converting:
        return Resuming("conversion", tuple(converting), ("the checkpoint is converted to another layout",))
    return Resuming("as_is")


def _as_changed(key: str, changed: Collection[str]) -> list[str]:
    """The key, or those of ds_config.json that were changed in its place."""
    if key in changed:
        return [key]
    by_hand = [f"{DS_CONFIG}:{one}" for one in BY_HAND.get(key, ())]
    return [one for one in by_hand if one in changed] or [key]


def of_configs(old: EffectiveConfig, new: EffectiveConfig) -> Resuming:
    """As DeepSpeed's own `load_checkpoint` does."""
    levels: tuple[tuple[Resume, list[tuple[str, str]]], ...] = (
        ("impossible", list(_refused(old, new))),
        ("conversion", list(_converted(old, new))),
    )
    for verdict, found in levels:
        if found:
            names = tuple(dict.fromkeys(f"{DS_CONFIG}:{key}" for key, _ in found))
            return Resuming(verdict, names, tuple(f"{key}: {why}" for key, why in found))
    return Resuming("as_is")


def _refused(old: EffectiveConfig, new: EffectiveConfig) -> Iterator[tuple[str, str]]:
    """(key, why) of what neither loading nor ds_to_universal gets over."""
    optimizers = [config.value("optimizer.type") for config in (old, new)]
    are_named = all(isinstance(name, str) for name in optimizers)
    if are_named and optimizers[0] != optimizers[1] and not ADAMS.issuperset(optimizers):
        yield "optimizer.type", f"{optimizers[1]} has no use for {optimizers[0]}'s states"
    stages = [config.stage for config in (old, new)]
    if (stages[0] == 0) != (stages[1] == 0):
        yield (
            STAGE,
            (
                "with ZeRO optimizer states are in a file a rank, without in the model's: ds_to_universal "
                "reads and fills the first kind alone"
            ),
        )
    elif stages == [0, 0] and old.dtype != new.dtype:
        for key in _dtype_keys(old, new):
            yield (
                key,
                (
                    f"without ZeRO the optimizers of {old.dtype} and {new.dtype} keep other states, and "
                    "ds_to_universal converts ZeRO's alone"
                ),
            )
    elif stages[0] != stages[1] and 3 in stages:
        yield (
            STAGE,
            (
                "stage 3 keeps a share of each parameter, the stages below shares of all together, and what "
                "ds_to_universal makes of one is not read by the other"
            ),
        )
    if _is_shared_otherwise(old, new):
        yield (
            ROUND_ROBIN,
            (
                "parameters are shared out in another order, which neither loading nor ds_to_universal "
                "notices: weights would end up in the wrong place"
            ),
        )
    schedules = [config.value("scheduler.type") for config in (old, new)]
    if _is_nothing(schedules[0]) and not _is_nothing(schedules[1]):
        yield (
            "scheduler.type",
            (
                "the checkpoint holds no schedule: loading ends with a TypeError unless told "
                "load_lr_scheduler_states=False"
            ),
        )
    devices = [config.value(OFFLOAD_DEVICE) for config in (old, new)]
    if "nvme" in devices and devices[0] != devices[1]:
        yield OFFLOAD_DEVICE, "states on NVMe are copied as files, not loaded"


def _converted(old: EffectiveConfig, new: EffectiveConfig) -> Iterator[tuple[str, str]]:
    """(key, why) of what loading refuses or would misplace, and ds_to_universal carries over."""
    stages = [config.stage for config in (old, new)]
    if 0 not in stages:
        if old.dtype != new.dtype:
            for key in _dtype_keys(old, new):
                yield key, f"the checkpoint's states are {old.dtype}'s"
        if old.ranks is not None and new.ranks is not None and old.ranks != new.ranks:
            yield _ranks_key(old, new), f"the states are in {old.ranks} shares, {new.ranks} ranks load them"
    for key, applies, why in (
        ("zero_optimization.sub_group_size", stages == [3, 3], "stage 3 keeps states by such groups"),
        ("tensor_parallel.autotp_size", True, "weights are split over other ranks"),
        ("pipeline.stages", True, "layers are on other ranks"),
        ("pipeline.partition", True, "layers are on other ranks"),
        ("pipeline.tensor_parallel_size", True, "weights are split over other ranks"),
    ):  # fmt: skip
        values = [config.value(key) for config in (old, new)]
        if applies and values[0] != values[1] and not (old.idle(key) and new.idle(key)):
            yield key, why
    if new.value("checkpoint.load_universal") is True and old.value("checkpoint.load_universal") is not True:
        yield "checkpoint.load_universal", "it reads converted checkpoints only"


def _is_shared_otherwise(old: EffectiveConfig, new: EffectiveConfig) -> bool:
    if {old.stage, new.stage} - {1, 2} or old.ranks == new.ranks == 1:
        return False
    return bool(old.value(ROUND_ROBIN) != new.value(ROUND_ROBIN))


def _dtype_keys(old: EffectiveConfig, new: EffectiveConfig) -> Iterator[str]:
    for key in ("bf16.enabled", "fp16.enabled"):
        if old.value(key) != new.value(key):
            yield key


def _ranks_key(old: EffectiveConfig, new: EffectiveConfig) -> str:
    """The batch size that tells of other ranks."""
    keys = ("gradient_accumulation_steps", "train_micro_batch_size_per_gpu", "train_batch_size")
    changed = [key for key in keys if old.value(key) != new.value(key)]
    return changed[-1] if changed else "train_batch_size"


def _is_nothing(value: object) -> bool:
    return value is ABSENT or value is None
