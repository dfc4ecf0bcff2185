"""A checkpoint in DeepSpeed's universal format: a folder a parameter, for any layout of ranks."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from vdsgen.spec.base import NonNegativeFloat, NonNegativeInt, Spec
from vdsgen.spec.checkpoints import RECORD, CheckpointRecord

UNIVERSAL = "universal"
"""Folder of a run directory: the checkpoint that another layout resumes, until the next one is saved."""
PARAMETERS = "zero"
"""Folder of a universal checkpoint: a folder a parameter, with `fp32.pt` and AdamW's moments."""
AVERAGES = "ema"
"""The same for the weights' averages, which DeepSpeed does not know."""
PROGRESS = "training.json"
"""File of a universal checkpoint: `Progress`."""


class UniversalRecord(CheckpointRecord):
    """`complete.json` of a universal checkpoint, written last. What it has of a checkpoint's record (but for
    its files) is the source's."""

    source_sha256: str
    """Of the source's own record."""


class Progress(Spec):
    """How far training has come, apart from what each parameter has."""

    step: NonNegativeInt
    samples: NonNegativeInt
    skipped_steps: NonNegativeInt
    """After an overflow."""
    optimizer_steps: NonNegativeInt
    """AdamW's own count."""
    learning_rate: NonNegativeFloat
    schedule: dict[str, int | float]
    """The state of the learning rate's schedule; empty where it is constant."""
    loss_scaling: dict[str, int | float]
    """Of fp16."""
    average_steps: NonNegativeInt | None = None
    """Steps in the weights' average; None: there is none."""


def read_universal(folder: Path) -> UniversalRecord | None:
    """None where the folder is missing, half written or not ours."""
    try:
        return UniversalRecord.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
