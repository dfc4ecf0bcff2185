"""The keys of a DeepSpeed config, asked of the installed DeepSpeed itself.

Sections that are pydantic models are read off their fields. The others are read from plain dictionaries by
hand, so a dictionary that notes each question stands in: what is asked for is a key, and what is said to
answer otherwise is its default. Whether anything reads a key is looked up in the package's source.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from tests.engine_keys_by_hand import FREE_SECTIONS, NEVER_READ, OPTIMIZERS, TYPES, VALIDATED

MISSING = object()


class RecordingKeys:
    """The keys of a dict; notes what is asked for with `in`."""

    def __init__(self, owner: RecordingDict) -> None:
        self.owner = owner

    def __contains__(self, key: str) -> bool:
        return key in self.owner

    def __iter__(self) -> Iterator[str]:
        return iter(dict.keys(self.owner))


class RecordingDict(dict[str, Any]):
    """Notes every key that its reader asks for, whether it is there or not, and the default it gives."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.asked: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        if self.asked.get(key, MISSING) is MISSING:
            self.asked[key] = default
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.setdefault(key, MISSING)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.setdefault(str(key), MISSING)
        return super().__contains__(key)

    def keys(self) -> Any:
        return RecordingKeys(self)

    def __copy__(self) -> RecordingDict:
        return self

    def __deepcopy__(self, memo: Any) -> RecordingDict:
        return self


def engine_schema() -> dict[str, Any]:
    """What vdsgen/catalog/data/deepspeed.json holds."""
    import deepspeed
    from deepspeed.runtime import config as engine

    sections = {**_models(), **_by_hand()}
    top = sections[""]["keys"]
    for removed, why in sorted(engine._REMOVED_TOP_LEVEL_CONFIG_KEYS.items()):
        top[removed] = {"removed": why}
    for removed, why in sorted(engine._REMOVED_ZERO_CONFIG_KEYS.items()):
        sections["/zero_optimization"]["keys"][removed] = {"removed": why}
    for pointer, section in sections.items():
        for key, entry in section["keys"].items():
            if f"{pointer}/{key}" in sections:
                entry["section"] = f"{pointer}/{key}"
    top["bfloat16"]["section"] = "/bf16"
    _mark_unread(sections)
    return {
        "deepspeed": deepspeed.__version__,
        "sections": {name: sections[name] for name in sorted(sections)},
        "schedulers": _schedulers(),
        "optimizers": _optimizers(),
    }


def _models() -> dict[str, Any]:
    """Sections that pydantic checks, and refuses unknown keys in."""
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.compile.config import CompileConfig
    from deepspeed.inference.config import WeightQuantConfig
    from deepspeed.monitor import config as monitor
    from deepspeed.runtime.config import HybridEngineConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.tensor_parallel.config import TPTrainingConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from deepspeed.utils.config import DeepSpeedThroughputTimerConfig

    roots = {
        "/zero_optimization": DeepSpeedZeroConfig,
        "/fp16": DeepSpeedFP16Config,
        "/bf16": DeepSpeedBF16Config,
        "/tensor_parallel": TPTrainingConfig,
        "/compile": CompileConfig,
        "/comms_logger": CommsLoggerConfig,
        "/tensorboard": monitor.TensorBoardConfig,
        "/wandb": monitor.WandbConfig,
        "/csv_monitor": monitor.CSVConfig,
        "/comet": monitor.CometConfig,
        "/hybrid_engine": HybridEngineConfig,
        "/weight_quantization": WeightQuantConfig,
        "/timers/throughput": DeepSpeedThroughputTimerConfig,
    }
    sections: dict[str, Any] = {}
    for pointer, model in roots.items():
        sections.update(_model(pointer, model))
    return sections


def _model(pointer: str, model: Any) -> dict[str, Any]:
    assert model.model_config["extra"] == "forbid", f"{model} takes unknown keys"
    keys: dict[str, Any] = {}
    sections = {pointer: {"model": model.__name__, "unknown_keys": "refused", "keys": keys}}
    for name, info in model.model_fields.items():
        entry = _type(info.annotation)
        for limit in info.metadata:
            entry |= {word: getattr(limit, word) for word in ("gt", "ge", "lt", "le") if hasattr(limit, word)}
        inner = entry.pop("model", None)
        if inner is not None:
            sections.update(_model(f"{pointer}/{info.alias or name}", inner))
        elif not info.is_required():
            entry["default"] = _plain(info.get_default(call_default_factory=True))
        extra = info.json_schema_extra or {}
        if extra.get("deprecated"):
            entry["deprecated"] = extra.get("new_param", "")
            entry["moves_value"] = bool(extra.get("new_param")) and extra.get("set_new_param", True)
        if info.alias:
            entry["also"] = name
        keys[info.alias or name] = {**entry, **VALIDATED.get(f"{pointer}/{name}", {})}
    return sections


def _type(annotation: Any) -> dict[str, Any]:
    """A type as the lint knows it: a word, with choices, members or items where it has them."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        members = [_type(argument) for argument in arguments if argument is not NoneType]
        entry = members[0] if len(members) == 1 else {"type": "union", "members": members}
        return {**entry, "optional": True} if NoneType in arguments else entry
    if origin is Literal:
        return {"type": "choice", "choices": list(arguments)}
    if origin is list:
        return {"type": "list", "items": _type(arguments[0])}
    if origin is dict or annotation in (dict, typing.Dict):  # noqa: UP006 - the engine's own spelling
        return {"type": "dict"}
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        kind = "integer choice" if issubclass(annotation, int) else "choice"
        return {"type": kind, "choices": [member.value for member in annotation]}
    if hasattr(annotation, "model_fields"):
        return {"type": "section", "model": annotation}
    words = {bool: "bool", int: "int", float: "float", str: "str", Path: "path", list: "list", tuple: "list"}
    words[object] = "object"
    return {"type": words.get(annotation, "no JSON value")}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool | int | float | str | NoneType):
        return int(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return (
        list(value) if isinstance(value, list | tuple) else dict(value) if isinstance(value, dict) else None
    )


def _by_hand() -> dict[str, Any]:
    """Sections that are read key by key: what is not read is dropped without a word."""
    from deepspeed.runtime.config import DeepSpeedConfig, get_pipeline_config

    inner: dict[str, RecordingDict] = {}

    def section(pointer: str, content: Mapping[str, Any] | None = None) -> RecordingDict:
        inner[pointer] = RecordingDict(content or {})
        return inner[pointer]

    dynamic = section("/data_efficiency/data_sampling/dynamic_batching", {"max_tokens": 1, "enabled": True})
    sampling = {
        "dynamic_batching": dynamic,
        "curriculum_learning": section(
            "/data_efficiency/data_sampling/curriculum_learning", {"enabled": True, "curriculum_metrics": {}}
        ),
    }
    routing = {"random_ltd": section("/data_efficiency/data_routing/random_ltd")}
    efficiency = {
        "data_sampling": section("/data_efficiency/data_sampling", sampling),
        "data_routing": section("/data_efficiency/data_routing", routing),
    }
    checkpoint = {
        "writer": section("/checkpoint/writer"),
        "parallel_write": section("/checkpoint/parallel_write"),
    }
    typed = {"type": "x", "params": {}}
    content = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": section("/optimizer", typed),
        "scheduler": section("/scheduler", typed),
        "data_types": section("/data_types"),
        "torch_autocast": section(
            "/torch_autocast", {"dtype": "bfloat16", "lower_precision_safe_modules": []}
        ),
        "activation_checkpointing": section("/activation_checkpointing"),
        "flops_profiler": section("/flops_profiler"),
        "aio": section("/aio"),
        "checkpoint": section("/checkpoint", checkpoint),
        "autotuning": section("/autotuning", {"model_info": section("/autotuning/model_info", {"x": 1})}),
        "expert_parallel": section("/expert_parallel", {"enabled": False}),
        "timers": section("/timers", {"throughput": {}}),
        "data_efficiency": section("/data_efficiency", efficiency),
    }
    top = RecordingDict(content)
    DeepSpeedConfig(top)
    asked = {"": top.asked, **{pointer: record.asked for pointer, record in inner.items()}}
    asked[""] |= {"sequence_parallel_size": None, "data_parallel_size": None}  # deepspeed/__init__.py:543
    asked["/pipeline"] = {**get_pipeline_config({}), "use_reentrant": True}  # pipe/engine.py:210
    from deepspeed.runtime import config as engine

    for removed in engine._REMOVED_TOP_LEVEL_CONFIG_KEYS:
        asked[""].pop(removed, None)
    return {
        pointer: {
            "unknown_keys": "free" if pointer in FREE_SECTIONS else "dropped",
            "keys": {key: _asked(pointer, key, default) for key, default in sorted(keys.items())},
        }
        for pointer, keys in asked.items()
    }


def _asked(pointer: str, key: str, default: Any) -> dict[str, Any]:
    """A key that is read by hand: its type is its default's, or is said in engine_keys_by_hand.py."""
    entry = dict(TYPES.get(f"{pointer}/{key}", {}))
    if default is not MISSING and isinstance(default, bool | int | float | str | list | NoneType):
        entry["default"] = _plain(default)
    if "type" not in entry:
        entry["type"] = type(entry["default"]).__name__ if entry.get("default") is not None else "unknown"
    return entry


def _mark_unread(sections: dict[str, Any]) -> None:
    """`read: false` where no source of the package but its config classes has the word."""
    import deepspeed

    root = Path(deepspeed.__file__).parent
    config_files = re.compile(
        r"(^|/)(config|(?!precision)\w+_config|config_\w+|constants)\.py$|^autotuning/|^model_implem"
    )
    words: set[str] = set()
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        if not config_files.search(name):
            words |= set(re.findall(r"\w+", path.read_text("utf-8")))
    for pointer, section in sections.items():
        for key, entry in section["keys"].items():
            unread = "model" in section and entry.get("also", key) not in words and "deprecated" not in entry
            if unread or f"{pointer}/{key}" in NEVER_READ:
                entry["read"] = False


def _signature(function: Any) -> dict[str, Any]:
    """Parameter -> default and type, of what follows `self` and the optimizer or its parameters."""
    found: dict[str, Any] = {}
    for name, parameter in list(inspect.signature(function).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            found["**"] = {}
        elif parameter.default is parameter.empty:
            found[name] = {"required": True}
        else:
            found[name] = {"default": _plain(parameter.default)}
    return found


def _schedulers() -> dict[str, Any]:
    import torch
    from deepspeed.runtime import lr_schedules

    own = {name: _signature(getattr(lr_schedules, name)) for name in lr_schedules.VALID_LR_SCHEDULES}
    theirs = {
        name: _signature(kind)
        for name, kind in vars(torch.optim.lr_scheduler).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.lr_scheduler.LRScheduler)
    }
    return {**dict(sorted(theirs.items())), **own}


def _optimizers() -> dict[str, Any]:
    """DeepSpeed's by the name in the file, lower case, in all of their variants; torch's by class name."""
    import importlib

    import torch

    found: dict[str, Any] = {}
    for name, classes in OPTIMIZERS.items():
        found[name] = {}
        for variant, (module, kind) in classes.items():
            found[name][variant] = _signature(getattr(importlib.import_module(module), kind))
    theirs = {
        name: {"torch": _signature(kind)}
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    return {**found, **dict(sorted(theirs.items()))}
