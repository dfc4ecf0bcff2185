"""What launching and training agree on: the engine's layout, and what is in a run directory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vdsgen.errors import VdsgenError
from vdsgen.spec.base import NonNegativeInt, PositiveInt, Spec
from vdsgen.spec.dtypes import Dtype
from vdsgen.spec.shown import shown

TENSORBOARD, CSV = "tensorboard", "csv"
"""Folders of a run directory: the curves, for other programs."""
METRICS, VALIDATION, SAVES = "metrics.jsonl", "validation.jsonl", "saves.jsonl"
"""Files of a run directory: an object a step, a held-out loss, a checkpoint."""
ALARMS = "alarms.jsonl"
"""File of a run directory: an object an alarm."""
RECORD, SUMMARY = "run.json", "summary.json"
"""Files of a run directory: what runs on what, with every start; planned beside measured, at the end."""
LOGS, SAMPLES = "logs", "samples"
"""Folders of a run directory: a log a rank and start; sample videos."""
ACTIVITIES = ("forward", "backward", "bubble", "transfer", "reduce", "gather", "optimizer", "data", "other")
"""What metrics.jsonl says of a stage's seconds. forward, backward: computation. bubble: waiting for another
stage. transfer: moving activations, their gradients and scalars between stages. reduce: gradients between
ranks, and other sums. gather: parameters between ranks. optimizer: its own work. data: clips, and their way
to the device. other: the rest."""
TRACES = "traces"
"""Folder of a run directory: a folder a capture of the schedule, in it a file a rank."""
TRACE_REQUEST = "trace-request"
"""As `profile-request`, for when each rank ran which instruction."""
PROFILE_REQUEST = "profile-request"
"""File of a run directory: whoever writes it asks for a trace of the steps it names (`10:12`; empty: the next
one)."""
STOP_REQUEST = "stop-request"
"""File of a run directory: whoever writes it asks the run to end after its current step and a checkpoint."""
SIZE_UNITS = "size_units_a_step"
"""Key of run.json, where clips of several sizes take turns within a step: turns a step."""
PROFILES = "profiles"
"""Folder of a run directory: a folder a capture, in it a file a rank."""
MESSAGE = "[vdsgen] "
"""Begins every line that the trainer says to people; what else ranks print stays in their logs."""
STEP = "[vdsgen step] "
"""Begins the plain progress lines, which a terminal shows as a bar."""
LAUNCHER_PROCESS = "VDSGEN_LAUNCHER_PROCESS"
"""Environment variable: the process id of `vdsgen launch`, for ranks on the same machine to end with it."""
LAUNCH_ID = "VDSGEN_LAUNCH_ID"
"""Environment variable that marks every process of one launch on a machine."""
STACKS_SIGNAL = "SIGUSR2"
"""Makes a rank write the stacks of its threads into its log; one that has no handler yet would die of it."""
WARM_UP_STEPS = 2
"""First steps of a run, left out of its medians: they allocate optimizer states and fill caches, and on a
processor they measure memory exactly, which takes time."""


class Layout(Spec):
    """How the engine spreads a model over ranks, and a checkpoint over files."""

    pipeline_parallel_size: PositiveInt
    data_parallel_size: PositiveInt
    zero_stage: NonNegativeInt
    partition: tuple[NonNegativeInt, ...]
    """First layer of each stage, and one past the last layer; empty without a pipeline."""
    dtype: Dtype
    tensor_parallel_size: PositiveInt = 1
    """Ranks that share each block."""
    sequence_parallel_size: PositiveInt = 1
    """Ranks that share each sample."""

    @property
    def world_size(self) -> int:
        return self.pipeline_parallel_size * self.stage_ranks

    @property
    def sequence_data_parallel_size(self) -> int:
        """Ranks that hold the same part of the model."""
        return self.data_parallel_size * self.sequence_parallel_size

    @property
    def stage_ranks(self) -> int:
        return self.sequence_data_parallel_size * self.tensor_parallel_size

    def stage_of(self, rank: int) -> int:
        """Ranks that share blocks are neighbours, then come those that share samples, then the data ranks of
        a stage (runtime/pipe/topology.py:243, axes pipe, data, model)."""
        return rank // self.stage_ranks

    def reads_clips(self, rank: int) -> bool:
        """Only the first and the last stage of a pipeline see clips."""
        return self.stage_of(rank) in (0, self.pipeline_parallel_size - 1)

    def __str__(self) -> str:
        stages = f", stages at layers {list(self.partition)}" if self.partition else ""
        shared = sharing_words(self.tensor_parallel_size, self.sequence_parallel_size)
        return (
            f"{self.pipeline_parallel_size} pipeline x {self.data_parallel_size} data{shared}, "
            f"ZeRO-{self.zero_stage}, {self.dtype}{stages}"
        )


def sharing_words(tensor_parallel_size: int, sequence_parallel_size: int) -> str:
    """' x 2 tensor x 4 sequence', of those sizes that are more than one."""
    sizes = (("tensor", tensor_parallel_size), ("sequence", sequence_parallel_size))
    return "".join(f" x {size} {name}" for name, size in sizes if size > 1)


def layout_of(ds_config: Mapping[str, Any]) -> Layout:
    """The layout that a ds_config.json asks for; ranks follow from its three batch sizes, its stages and the
    ranks that share each block and each sample.

    Raises VdsgenError where a figure is missing or the batch sizes do not divide.
    """
    pipeline = section_of(ds_config, "pipeline")
    stages = pipeline.get("stages", 1)
    total = _positive(ds_config, "train_batch_size")
    micro = _positive(ds_config, "train_micro_batch_size_per_gpu")
    accumulation = _positive(ds_config, "gradient_accumulation_steps")
    if total % (micro * accumulation):
        raise VdsgenError(
            f"ds_config.json: train_batch_size ({total}) is no multiple of train_micro_batch_size_per_gpu x "
            f"gradient_accumulation_steps ({micro} x {accumulation})",
            remedy="put the batch sizes right, or render the directory again",
        )
    try:
        return Layout(
            pipeline_parallel_size=stages,
            data_parallel_size=total // (micro * accumulation),
            zero_stage=section_of(ds_config, "zero_optimization").get("stage", 0),
            partition=tuple(pipeline.get("partition") or ()) if stages != 1 else (),
            dtype=dtype_of(ds_config),
            tensor_parallel_size=pipeline.get("tensor_parallel_size", 1),
            sequence_parallel_size=pipeline.get("sequence_parallel_size", 1),
        )
    except (ValidationError, TypeError) as error:
        raise VdsgenError(f"ds_config.json: {error}") from error


def _positive(ds_config: Mapping[str, Any], key: str) -> int:
    value = ds_config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise VdsgenError(
            f"ds_config.json: {key} is {value!r}, must be a positive whole number",
            remedy="write the figure out: ranks and stages are worked out from it",
        )
    return value


BF16_SECTIONS = ("bf16", "bfloat16")
"""The engine reads the first that is there, under its old name too (runtime/precision_config.py:34)."""


def dtype_of(ds_config: Mapping[str, Any]) -> Dtype:
    """What the engine computes in."""
    named = next((name for name in BF16_SECTIONS if ds_config.get(name) is not None), BF16_SECTIONS[0])
    if section_of(ds_config, named).get("enabled"):
        return "bf16"
    return "fp16" if section_of(ds_config, "fp16").get("enabled") else "fp32"


def section_of(ds_config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of a ds_config.json, empty where it is left out. Raises VdsgenError where it is none."""
    found = ds_config.get(name) or {}
    if not isinstance(found, Mapping):
        raise VdsgenError(
            f"ds_config.json: {name} is {shown(found)}, must be an object",
            remedy="put it right, or render the directory again",
        )
    return found


def no_number(name: str) -> Any:
    """For json.loads, which takes NaN and Infinity. Raises ValueError."""
    raise ValueError(f"{name} is no JSON")


def finite(text: str) -> float:
    """For json.loads, which makes infinity of 1e999. Raises ValueError."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises VdsgenError, naming the file and the place."""
    try:
        value = json.loads(path.read_bytes(), parse_constant=no_number, parse_float=finite)
    except OSError as error:
        raise VdsgenError(f"{path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise VdsgenError(f"{path}:{error.lineno}:{error.colno}: no valid JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise VdsgenError(f"{path}: no UTF-8 text: {error.reason}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise VdsgenError(f"{path}: no JSON that can be read: {error}") from error
    if not isinstance(value, dict):
        raise VdsgenError(f"{path}: holds a {type(value).__name__}, should hold a JSON object")
    return value
