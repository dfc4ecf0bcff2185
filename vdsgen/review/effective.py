"""A DeepSpeed config as the engine acts on it: old names read as new ones, what is left out filled in with
the engine's own defaults, and what it never reads known as such."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any

from vdsgen.catalog.engine_keys import engine_section
from vdsgen.catalog.trainer_keys import READ_BY_THE_TRAINER
from vdsgen.review.absent import ABSENT
from vdsgen.review.engine_defaults import (
    optimizer_defaults,
    optimizer_name,
    peak_rate,
    schedule_default,
    trainer_default,
)
from vdsgen.review.lint.batch import batch_sizes
from vdsgen.review.lint.context import Context
from vdsgen.review.lint.facts import DTYPES
from vdsgen.review.lint.finding import Linted
from vdsgen.review.lint.keys import Values
from vdsgen.review.lint.reader import read_document
from vdsgen.review.lint.run import examined
from vdsgen.rules.registry import all_rules

BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
ZERO = "zero_optimization"
OFFLOADS = {"cpu_offload": "offload_optimizer", "cpu_offload_param": "offload_param"}
"""Deprecated switches, and the sections that they stand for with device cpu (runtime/zero/config.py:188)."""
DTYPE_KEYS = frozenset(
    {
        "communication_data_type", "seq_parallel_communication_data_type", "data_types.grad_accum_dtype",
        "data_types.param_dtype", "torch_autocast.dtype",
    }
)  # fmt: skip
READ_WITHOUT_ITS_SWITCH = frozenset({"fp16.auto_cast"})
"""Read where the section is off, too (runtime/engine.py; rules/precision.py, fp16-auto-cast-off)."""
NEVER_READ = {
    rule.id: rule
    for rule in all_rules()
    if rule.id
    in (
        "fp16-keys-unread", "loss-scale-static-keys", "loss-scale-hysteresis", "zero-stage-3-keys",
        "zero-stage-1-2-keys", "zero-off-keys", "bf16-optimizer-keys", "gathering-keys-unread",
        "zeropp-stage-3", "deprecated-pin-memory",
    )
}  # fmt: skip
"""Rules all of whose keys do nothing where the rule is broken."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting that a file writes."""

    key: str
    """Dotted, by the key's name of today."""
    raw: Any
    """As it stands in the file."""
    value: Any
    """What the engine makes of it."""
    name: str
    """Dotted, as it is written."""


class EffectiveConfig:
    """One side's DeepSpeed config. Raises InputError where it is none."""

    def __init__(self, content: bytes, file: str, context: Context, ranks: int | None = None) -> None:
        self.document = read_document(content, file)
        self.context = context
        examination: tuple[Linted, Values] = examined(self.document, context)
        self.linted, self.values = examination
        self.ranks = ranks or self._ranks_told
        """Ranks that see different samples; None: not known."""
        self.settings = {setting.key: setting for setting in self._settings()}

    @property
    def _ranks_told(self) -> int | None:
        """What three batch sizes say of the ranks."""
        total, micro, steps = (self.values.get(f"/{name}") for name in BATCH)
        numbers = all(isinstance(one, int) and one > 0 for one in (total, micro, steps))
        return total // (micro * steps) if numbers and total % (micro * steps) == 0 else None

    def _settings(self) -> Iterator[Setting]:
        for path, raw in _leaves(self.document.plain):
            name = ".".join(path)
            if raw is None and len(path) == 1:
                continue  # as if the key were not there
            key = ".".join(current_name(path))
            if path == (ZERO,) and isinstance(raw, bool):
                yield Setting(f"{ZERO}.stage", raw, int(raw), name)
            elif path[0] == ZERO and path[-1] in OFFLOADS:
                yield Setting(f"{ZERO}.{OFFLOADS[path[-1]]}.device", raw, "cpu" if raw else "none", name)
            else:
                yield Setting(key, raw, self._normal(key, self._read(key, raw)), name)

    def _read(self, key: str, raw: Any) -> Any:
        """As the engine's types make it; "auto" is its default where it drops it."""
        pointer = "/" + key.replace(".", "/")
        if pointer in self.values.written and raw != {}:
            value = self.values.written[pointer]
            return str(value) if isinstance(value, PurePath) else value
        parent = engine_section(pointer.rpartition("/")[0])
        if raw == "auto" and not self.context.auto_filled and parent is not None and parent.model is not None:
            return self._default(key)
        return raw

    def _normal(self, key: str, value: Any) -> Any:
        """One spelling of values that mean the same."""
        if key in DTYPE_KEYS and isinstance(value, str):
            return DTYPES.get(value if "torch." in value else value.lower(), value)
        if key == "optimizer.type":
            return optimizer_name(value, self._params("optimizer"))
        if key == "scheduler.params.warmup_num_steps" and isinstance(value, int):
            return max(2, value)  # runtime/lr_schedules.py:744
        if key in ("gradient_allreduce_op", "checkpoint.tag_validation") and isinstance(value, str):
            return value.lower()
        return value

    def _params(self, section: str) -> Mapping[str, Any]:
        found = self.document.plain.get(section)
        params = found.get("params") if isinstance(found, Mapping) else None
        return params if isinstance(params, Mapping) else {}

    def value(self, key: str) -> Any:
        """What the engine works with; ABSENT where it has no such setting."""
        if key in BATCH:
            return self._batch[key]
        setting = self.settings.get(key)
        return self._default(key) if setting is None else setting.value

    @cached_property
    def _batch(self) -> Mapping[str, Any]:
        sizes = dict(zip(BATCH, batch_sizes(self.values, self.ranks), strict=True))
        return {
            key: setting.raw
            if (setting := self.settings.get(key)) is not None and size is None
            else ABSENT
            if size is None
            else size
            for key, size in sizes.items()
        }

    def _default(self, key: str) -> Any:
        """Of a key that is not written. Some follow from other keys."""
        if key == f"{ZERO}.overlap_comm":
            return self.stage == 3  # runtime/zero/config.py:390
        if key in ("data_types.grad_accum_dtype", "communication_data_type"):
            return self.dtype  # runtime/engine.py:1719 and :1799
        section, _, name = key.rpartition(".")
        if section == "optimizer.params":
            return self.optimizer_defaults.get(name, ABSENT)
        if section == "scheduler.params":
            rate = self.value("optimizer.params.lr")
            return schedule_default(self.value("scheduler.type"), name, rate)
        if self.context.plan is not None and name in READ_BY_THE_TRAINER.get(section, ()):
            return trainer_default(name)
        pointer = "/" + key.replace(".", "/")
        if key in ("optimizer.params", "scheduler.params"):
            return {}
        if engine_section(pointer) is not None:
            return ABSENT if name == "zenflow" else {}  # which has no switch: it is on where it is there
        parent = engine_section(pointer.rpartition("/")[0])
        known = None if parent is None else parent.keys.get(name)
        if known is None or known.removed is not None:
            return ABSENT
        return self._normal(key, known.default)

    @property
    def stage(self) -> Any:
        """ZeRO's."""
        return self.value(f"{ZERO}.stage")

    @property
    def dtype(self) -> str:
        """What the engine computes in; `auto` where a trainer is to fill that in."""
        switches = [self.value(f"{name}.enabled") for name in ("fp16", "bf16")]
        if "auto" in switches and True not in switches:
            return "auto"
        if self.value("fp16.enabled") is True:
            return "fp16"
        return "bf16" if self.value("bf16.enabled") is True else "fp32"

    @property
    def offloads_optimizer(self) -> bool:
        return self.value(f"{ZERO}.offload_optimizer.device") in ("cpu", "nvme")

    @property
    def optimizer_defaults(self) -> Mapping[str, Any]:
        """Of the class that the engine builds (runtime/engine.py:2439, :2476)."""
        zenflow = f"{ZERO}.zenflow" in self.settings
        name = self.settings["optimizer.type"].raw if "optimizer.type" in self.settings else None
        return optimizer_defaults(name, self._params("optimizer"), self.offloads_optimizer, zenflow)

    @property
    def rate(self) -> float | None:
        """The learning rate's peak."""
        return peak_rate(self.value)

    def idle(self, key: str) -> str | None:
        """Why the engine never reads what is written there: a sentence; None where it does."""
        if key in self._unread:
            return self._unread[key]
        parts = key.split(".")
        for depth in range(1, len(parts)):
            section = engine_section("/" + "/".join(parts[:depth]))
            switch = f"{'.'.join(parts[:depth])}.enabled"
            off = section is not None and "enabled" in section.keys and self.value(switch) is False
            if off and key not in (switch, *READ_WITHOUT_ITS_SWITCH):
                return f"{switch} is false"
        if key == "optimizer.params.lr" and self._rate_is_the_schedules:
            return f"{self.value('scheduler.type')} sets the learning rate"
        if key == "pipeline.seed_layers":
            return "PipelineModule takes it where it is built, not from here"
        if key == "gradient_predivide_factor" and self.value("prescale_gradients") is True:
            return "prescale_gradients divides by the number of ranks first"
        if key == "optimizer.params.adam_w_mode" and self.value("optimizer.type") == "adamw":
            return "type says so"
        for device in ("offload_optimizer", "offload_param"):
            switch = f"{ZERO}.{device}.device"
            if key.startswith(f"{ZERO}.{device}.") and key != switch and self.value(switch) == "none":
                return f"{switch} is none"
        if key.startswith(f"{ZERO}.offload_param.") and self.stage != 3:
            return "parameters are offloaded by ZeRO stage 3 only"
        return None

    @property
    def _rate_is_the_schedules(self) -> bool:
        kind = self.value("scheduler.type")
        given = "scheduler.params.warmup_max_lr" in self.settings
        return kind in ("WarmupDecayLR", "OneCycle", "LRRangeTest") or (kind == "WarmupLR" and given)

    @cached_property
    def _unread(self) -> Mapping[str, str]:
        """Keys that broken rules know to do nothing, with the rule's sentence."""
        return {
            ".".join(current_name(tuple(pointer.split("/")[1:]))): rule.summary.rstrip(".")
            for finding in self.linted.findings
            if (rule := NEVER_READ.get(finding.check)) is not None
            for pointer in rule.keys
        }


def current_name(path: tuple[str, ...]) -> tuple[str, ...]:
    """The path by the names that the engine has today: `bf16` for `bfloat16`, `stage3_prefetch_bucket_size`
    for `prefetch_bucket_size`."""
    if path[0] == "bfloat16":
        path = ("bf16", *path[1:])
    names = list[str]()
    for part in path:
        section = engine_section("".join(f"/{name}" for name in names))
        key = None if section is None else section.keys.get(part)
        name = part if key is None else key.name
        if key is not None and key.deprecated and key.moves_value and section is not None:
            instead = section.keys.get(key.deprecated)
            name = name if instead is None or part in OFFLOADS else instead.name
        names.append(name)
    return tuple(names)


def _leaves(value: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value); an empty object is a leaf, and lists are values."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _leaves(item, (*above, key))
        else:
            yield (*above, key), item
