"""Checkpoints read as what they should hold: tensors, plain values, and a few classes of DeepSpeed's.

A file of torch.save is a pickle, and a pickle can name anything that is to be called while it is read.
DeepSpeed reads its own with `weights_only=False`
(runtime/checkpoint_engine/torch_checkpoint_engine.py:37, and directly
in zero/stage3.py:3770 and checkpoint/ for universal checkpoints), which obeys. torch has a switch that stands
above what a caller asks for (torch/serialization.py, TORCH_FORCE_WEIGHTS_ONLY_LOAD): within `only_plain_data`
it is on.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from vdsgen.errors import VdsgenError

ALLOWED: tuple[type, ...] = (ZeroStageEnum, LossScaler, DynamicLossScaler, fragment_address)
"""What checkpoints of every layout name beyond tensors: ZeRO's stage, and the loss scaler of ZeRO's
optimizers."""

SWITCH, ITS_OPPOSITE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
NAMED = re.compile(r"GLOBAL ([\w.]+)|Unsupported (?:global|class|operand)[^\w]*(?:GLOBAL )?([\w.]+)")
"""In torch's refusal: what the file asks for."""


@contextmanager
def only_plain_data(folder: Path, engine: Any = None) -> Iterator[None]:
    """Within it no torch.load runs anything that a file names, whoever calls it. `engine`: DeepSpeed's, whose
    files are then named one by one.

    Raises VdsgenError where a file asks for something else, naming the file, or `folder` where it is not
    known.
    """
    before = {name: os.environ.pop(name, None) for name in (SWITCH, ITS_OPPOSITE)}
    os.environ[SWITCH] = "1"
    try:
        with torch.serialization.safe_globals(list(ALLOWED)), _naming_files(engine):
            yield
    except pickle.UnpicklingError as error:
        raise refusal(folder, error) from error
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _naming_files(engine: Any) -> Iterator[None]:
    """DeepSpeed hands every file of its own layouts to its checkpoint engine."""
    if engine is None:
        yield
        return
    reader = engine.checkpoint_engine
    load = reader.load

    def load_or_name(path: str, *arguments: Any, **options: Any) -> Any:
        try:
            return load(path, *arguments, **options)
        except pickle.UnpicklingError as error:
            raise refusal(Path(path), error) from error

    reader.load = load_or_name
    try:
        yield
    finally:
        del reader.load


def refusal(path: Path, error: Exception) -> VdsgenError:
    """Of a file that is no checkpoint's, or would run code."""
    found = NAMED.search(str(error))
    if found is None:
        return VdsgenError(
            f"{path} cannot be read: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        )
    return VdsgenError(
        f"{path} names {found[1] or found[2]}, which no checkpoint of this trainer holds: reading it "
        f"would run code",
        remedy="resume only what this trainer wrote; where it did, this is a fault of vdsgen: report "
        "the name",
    )
