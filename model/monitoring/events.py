"""Metrics for other programs: TensorBoard, CSV files, W&B, Comet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdsgen.model.metrics import StepMetrics

WRITES_FILES = ("tensorboard", "csv_monitor")
SCALARS = (
    "loss",
    "grad_norm",
    "loss_scale",
    "learning_rate",
    "step_seconds",
    "data_seconds",
    "samples_per_second",
)


def in_run_directory(ds_config: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """The config with the files of DeepSpeed's monitors in the run directory, where it names no other; W&B
    keeps its own there too."""
    config = dict(ds_config)
    for section in WRITES_FILES:
        if section in config and not config[section].get("output_path"):
            config[section] = {**config[section], "output_path": str(run)}
    if (config.get("wandb") or {}).get("enabled"):
        os.environ.setdefault("WANDB_DIR", str(run))
    return config


def writes_tensorboard(ds_config: Mapping[str, Any]) -> bool:
    """Whether DeepSpeed's monitor does it."""
    return bool((ds_config.get("tensorboard") or {}).get("enabled"))


def scalars(metrics: StepMetrics) -> dict[str, float]:
    """Every number of a step under the name of its curve."""
    found: dict[str, float] = {f"train/{key}": getattr(metrics, key) for key in SCALARS}
    if metrics.skipped_steps is not None:
        found["train/skipped_steps"] = metrics.skipped_steps
    for rank, peak in enumerate(metrics.peak_memory_bytes):
        found[f"peak_memory_bytes/rank_{rank}"] = peak
    for rank, held in enumerate(metrics.held_memory_bytes or ()):
        found[f"held_memory_bytes/rank_{rank}"] = held
    for stage in metrics.stages or ():
        for key, value in stage.items():
            if key.endswith("_seconds"):
                found[f"stage_{stage['stage']}/{key}"] = value
    return found


def write_events(monitor: Any, metrics: StepMetrics, samples: int) -> None:
    """To DeepSpeed's monitor, at the number of clips seen so far: where its own events are."""
    if monitor.enabled:
        monitor.write_events([(name, value, samples) for name, value in scalars(metrics).items()])
