"""Resuming a checkpoint in another layout of ranks than it was written in."""

from __future__ import annotations

from pathlib import Path

from vdsgen.model.console import say_first
from vdsgen.model.engine import TrainingEngine
from vdsgen.model.export.tensor_shares import splits_of
from vdsgen.model.layers.tensor_parallel import Split
from vdsgen.model.universal.convert import universal_of
from vdsgen.model.universal.load import load_universal
from vdsgen.spec.architecture import Vdt
from vdsgen.spec.checkpoints import CheckpointRecord
from vdsgen.spec.geometry import geometry_of
from vdsgen.spec.rendered import Rendered


def resume_elsewhere(
    engine: TrainingEngine, run: Path, folder: Path, record: CheckpointRecord, rendered: Rendered
) -> None:
    """Converts the checkpoint in `folder` and puts it into the engine. Collective.

    Raises VdsgenError where a file cannot be read or written, or the model is another one."""
    say_first(f"{folder} was written by {record.layout}; going on with {rendered.layout}")
    load_universal(engine, universal_of(run, folder, record, splits_of_ranks(record, rendered)))
    if engine.compressor is not None:
        say_first("warning: what compressing gradients has lost so far is left out: its errors start at zero")


def splits_of_ranks(record: CheckpointRecord, rendered: Rendered) -> dict[str, Split]:
    """How the ranks that wrote the checkpoint shared parameters."""
    size = record.layout.tensor_parallel_size
    if size == 1:
        return {}
    model = rendered.experiment.model
    assert isinstance(model, Vdt), "models of diffusers are not split"
    return splits_of(model, geometry_of(rendered.experiment.data, model), size)
