"""Metrics for other programs: TensorBoard, CSV files, W&B, Comet."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vdsgen.model.metrics import StepMetrics

_logger = logging.getLogger(__name__)

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


@contextmanager
def handed_over(monitor: Any) -> Iterator[None]:
    """At the end, services get what they have not sent or written yet. They would do it when Python ends,
    which the entrypoint does not wait for (os._exit): an offline run of W&B then holds nothing at all.

    `monitor` is DeepSpeed's, which has services on rank 0 alone. A service that fails is a warning."""
    failed = True
    try:
        yield
        failed = False
    finally:
        try:
            if monitor.wandb_monitor is not None:
                import wandb

                wandb.finish(exit_code=int(failed))
            if monitor.comet_monitor is not None and monitor.comet_monitor.experiment is not None:
                monitor.comet_monitor.experiment.end()
        except Exception as error:
            _logger.warning("metrics may be missing from the service that was asked for: %s", error)
