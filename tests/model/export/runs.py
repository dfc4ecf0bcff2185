"""Run directories with a checkpoint as the engine writes it, without a run: a file for each layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from vdsgen.spec.checkpoints import RECORD, CheckpointRecord
from vdsgen.spec.run import Layout

STEP = 7


def write_run(run: Path, layers: Sequence[nn.Module], train_yaml: str) -> Path:
    """Two stages' layers, as pipe/module.py:607 saves them. Returns the checkpoint."""
    rendered = run.parent / "rendered"
    rendered.mkdir(parents=True, exist_ok=True)
    (rendered / "train.yaml").write_text(train_yaml)
    checkpoint = run / "checkpoints" / f"step-{STEP:08d}"
    checkpoint.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"rendered": str(rendered)}))
    for index, layer in enumerate(layers):
        torch.save(layer.state_dict(), checkpoint / f"layer_{index:02d}-model_states.pt")
    record = CheckpointRecord(
        step=STEP,
        plan_sha256="0" * 64,
        layout=Layout(
            pipeline_parallel_size=2,
            data_parallel_size=1,
            zero_stage=0,
            partition=(0, len(layers) // 2, len(layers)),
            dtype="fp32",
        ),
        files={path.name: path.stat().st_size for path in checkpoint.iterdir()},
    )
    (checkpoint / RECORD).write_text(record.model_dump_json())
    return checkpoint
