"""Every key that rendering can write has its place in the table of effects."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from tests.render.plans import plan_of, small_experiment
from tests.render.test_communication import communicating_plans
from tests.render.test_engine_config import legal_plans
from vdsgen.catalog.engine_keys import engine_data
from vdsgen.render.engine_config import engine_config
from vdsgen.review.changes import NOT_SETTINGS, ONE_VALUE, TEXT_FILES, flatten
from vdsgen.review.effect import ANYTHING, GROUPS, fits
from vdsgen.review.effects import EFFECTS, UNKNOWN, effect_of
from vdsgen.spec.architecture import PresetModel
from vdsgen.spec.experiment import Experiment
from vdsgen.spec.monitoring import Comet, Monitoring, WeightsAndBiases
from vdsgen.spec.optimization import Schedule
from vdsgen.spec.plan import ActivationCheckpointing, Plan, Precision
from vdsgen.spec.training import Ema

MONITORING = Monitoring(
    tensorboard=True, csv=True, wandb=WeightsAndBiases(project="p"), comet=Comet(project="p")
)


def leaves(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Every key path that a value of `model` can have, whichever branch its unions take."""
    for name, field in model.model_fields.items():
        yield from _leaves_of(field.annotation, f"{prefix}{name}")


def _leaves_of(annotation: Any, path: str) -> Iterator[str]:
    if typing.get_origin(annotation) is typing.Annotated:
        yield from _leaves_of(typing.get_args(annotation)[0], path)
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for branch in typing.get_args(annotation):
            yield from _leaves_of(branch, path)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from leaves(annotation, f"{path}.")
    else:
        yield path


def every_key() -> set[str]:
    keys = set()
    by_stage = ActivationCheckpointing(
        interval=0, stage_intervals=(0, 2), plain_layers=(0, 1), selective_layers=(0, 2), compression="int8"
    )
    of_all_kinds = [*legal_plans(), *communicating_plans(), plan_of(activation_checkpointing=by_stage)]
    for plan in of_all_kinds:
        for kind in ("constant", "linear", "cosine"):
            for warmup_steps in (0, 2):
                experiment = small_experiment(schedule=Schedule(type=kind, warmup_steps=warmup_steps))
                keys |= {key for key, _ in flatten("ds_config.json:", engine_config(plan, experiment))}
    for schedule in (
        Schedule(type="one_cycle"),
        Schedule(type="inverse_sqrt", warmup_steps=2, decay_from_step=3),
    ):
        config = engine_config(plan_of(), small_experiment(schedule=schedule))
        keys |= {key for key, _ in flatten("ds_config.json:", config)}
    moments = Precision(dtype="bf16", gradient_accumulation_dtype="fp32", moments="int8", linear="fp8")
    options = engine_config(
        plan_of(precision=moments, zero_stage=1), small_experiment(ema=Ema(), monitoring=MONITORING)
    )
    keys |= {key for key, _ in flatten("ds_config.json:", options)}
    keys |= set(leaves(Experiment, "train.yaml:"))
    keys |= {
        key
        for key in leaves(Plan, "plan.json:")
        if key.split(":")[1].split(".")[0] not in NOT_SETTINGS + ONE_VALUE
    }
    keys |= {f"plan.json:{key}" for key in ONE_VALUE} | {f"{name}:" for name in TEXT_FILES}
    # An experiment is resolved before it is rendered: its model is never a preset.
    presets = set(leaves(PresetModel, "train.yaml:model.")) - {"train.yaml:model.in_channels"}
    return keys - {key for key in presets if key == "train.yaml:model.preset"}


def engine_keys() -> set[str]:
    """Of DeepSpeed's schema, by their names of today; `x` stands for what stands below free sections."""
    keys = set()
    for pointer, section in engine_data()["sections"].items():
        for name, entry in section["keys"].items():
            if "section" not in entry and not entry.get("moves_value"):
                keys.add("ds_config.json:" + ".".join([*pointer.split("/")[1:], name]))
    removed = {key.removeprefix("ds_config.json:") for key in keys}
    below = {
        f"ds_config.json:{key}.x" for key in removed if effect_of(f"ds_config.json:{key}.x") is not UNKNOWN
    }
    free = {"optimizer.params", "scheduler.params", "zero_optimization.zenflow"}
    return keys | below | {f"ds_config.json:{key}" for key in free}


def test_every_key_that_rendering_can_write_has_a_group() -> None:
    keys = every_key()
    assert len(keys) > 150, "the walk over the specs has lost its way"
    assert {key for key in keys if effect_of(key) is UNKNOWN} == set()


def test_every_entry_of_the_table_is_of_use() -> None:
    keys = every_key() | engine_keys() | {"ds_config.json:optimizer.params.foreach"}
    used = {pattern for pattern in EFFECTS for key in keys if effect_of(key) is EFFECTS[pattern]}
    assert set(EFFECTS) - used == set()


def test_every_entry_names_groups_that_there_are() -> None:
    for pattern, effect in EFFECTS.items():
        assert effect.affects, pattern
        assert set(effect.affects) <= set(GROUPS) - {"unknown"}, pattern


def test_what_a_key_repeats_is_a_key_too_and_never_itself_in_a_circle() -> None:
    """Otherwise two changes could each be left out because of the other."""
    keys = every_key() | engine_keys()
    follows: dict[str, set[str]] = {}
    for key in keys:
        effect = effect_of(key)
        patterns = [pattern for pattern in effect.mirrors + effect.comes_with if pattern != ANYTHING]
        for pattern in patterns:
            assert any(fits(other, pattern) for other in keys), f"{key} repeats {pattern}, which is no key"
        follows[key] = {other for other in keys for pattern in patterns if fits(other, pattern)} - {key}
    settled: set[str] = set()
    while len(settled) < len(keys):
        free = {key for key in keys - settled if follows[key] <= settled}
        assert free, f"a circle among {sorted(keys - settled)}"
        settled |= free


def test_every_key_that_deepspeed_knows_has_a_group() -> None:
    keys = engine_keys()
    assert len(keys) > 200
    assert {key for key in keys if effect_of(key) is UNKNOWN} == set()


def test_a_key_that_nobody_reads_is_unknown() -> None:
    assert effect_of("ds_config.json:of_my_own") is UNKNOWN


def test_the_longest_pattern_counts() -> None:
    assert effect_of("ds_config.json:zero_optimization.stage").affects == ("memory", "speed")
    assert effect_of("ds_config.json:zero_optimization.reduce_scatter").affects == ("speed",)
    assert plan_of().zero.stage == 1


def test_linear_layers_in_8_bits_change_numerics_first() -> None:
    for key in (
        "train.yaml:training.linear_precision",
        "ds_config.json:vdsgen.linear_precision",
        "plan.json:precision.linear",
    ):
        assert effect_of(key).affects == ("numerics", "memory", "speed")
