"""How the stages of a pipeline are cut and recomputed: what ds_config.json's `pipeline` section says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vdsgen.errors import VdsgenError
from vdsgen.model.activation_compression import DTYPES, Codec
from vdsgen.model.activation_offload import ActivationOffload
from vdsgen.model.pipeline import check_partition


class StageSettings(NamedTuple):
    """Of all stages; sequences have an entry for each."""

    partition: list[int]
    """Layer i of the model is on stage s where partition[s] <= i < partition[s + 1]."""
    intervals: tuple[int, ...]
    plain: tuple[int, ...]
    selective: tuple[int, ...]
    offload: ActivationOffload | None
    codec: Codec | None


def stage_settings(section: Mapping[str, Any], layers: int) -> StageSettings:
    """Of a model of so many layers. Raises VdsgenError where the section contradicts itself or the model."""
    stages = int(section.get("stages", 1))
    intervals = _intervals(section, stages)
    offload = ActivationOffload() if section.get("offload_activations", False) else None
    if offload is not None and not any(intervals):
        raise VdsgenError(
            "pipeline.offload_activations needs checkpointing: what checkpoints keep is offloaded",
            remedy="set pipeline.activation_checkpoint_interval to 1 or more",
        )
    codec = _codec(section, intervals)
    partition = _partition(section, stages, layers)
    plain = _plain_layers(section, partition, intervals)
    selective = _selective_layers(section, partition, intervals, plain)
    return StageSettings(partition, intervals, plain, selective, offload, codec)


def _partition(section: Mapping[str, Any], stages: int, layers: int) -> list[int]:
    """The stages' boundaries, by a `pipeline` section. Raises VdsgenError where they are no partition of so
    many layers."""
    partition = list(section.get("partition", [0, layers]))
    if len(partition) != stages + 1:
        raise VdsgenError(f"pipeline.partition {partition} needs {stages + 1} entries for {stages} stages")
    check_partition(partition, layers)
    return partition


def _intervals(section: Mapping[str, Any], stages: int) -> tuple[int, ...]:
    """The checkpoint interval of each stage, by a `pipeline` section. Raises VdsgenError unless there are as
    many as stages."""
    same = int(section.get("activation_checkpoint_interval", 0))
    own = section.get("stage_checkpoint_intervals") or [same] * stages
    if len(own) != stages:
        raise VdsgenError(f"pipeline.stage_checkpoint_intervals {own} needs {stages} entries, one a stage")
    return tuple(int(interval) for interval in own)


def _plain_layers(
    section: Mapping[str, Any], partition: Sequence[int], intervals: Sequence[int]
) -> tuple[int, ...]:
    """How many of each stage's last layers keep their activations, by a `pipeline` section. Raises
    VdsgenError unless there is one number a stage, and each leaves a layer to recompute; 0 where none is."""
    own = tuple(int(count) for count in section.get("plain_layers") or [0] * len(intervals))
    if len(own) != len(intervals):
        raise VdsgenError(f"pipeline.plain_layers {list(own)} needs {len(intervals)} entries, one a stage")
    for stage, (count, interval) in enumerate(zip(own, intervals, strict=True)):
        held = partition[stage + 1] - partition[stage]
        if count < 0 or count > (held - 1 if interval else 0):
            raise VdsgenError(
                f"pipeline.plain_layers {list(own)}: stage {stage} has {held} layers and "
                f"checkpoint interval {interval}",
                remedy="leave a layer to recompute, or set the stage's checkpoint interval and this to 0",
            )
    return own


def _codec(section: Mapping[str, Any], intervals: Sequence[int]) -> Codec | None:
    """What packs checkpointed activations, by a `pipeline` section; None where nothing does. Raises
    VdsgenError where nothing is checkpointed, or what is goes to host memory as it is."""
    kind = section.get("compress_activations", "none")
    if kind == "none":
        return None
    if kind not in DTYPES:
        known = ", ".join(sorted(DTYPES))
        raise VdsgenError(f"pipeline.compress_activations is {kind!r}, not one of {known} or none")
    if not any(intervals):
        raise VdsgenError(
            "pipeline.compress_activations needs checkpointing: what checkpoints keep is packed",
            remedy="set pipeline.activation_checkpoint_interval to 1 or more",
        )
    if section.get("offload_activations", False):
        raise VdsgenError(
            "pipeline.compress_activations packs what pipeline.offload_activations moves to host memory",
            remedy="leave out one of the two",
        )
    return Codec(kind)


def _selective_layers(
    section: Mapping[str, Any], partition: Sequence[int], intervals: Sequence[int], plain: Sequence[int]
) -> tuple[int, ...]:
    """How many of each stage's layers, the last before its plain ones, keep their products where they are
    recomputed, by a `pipeline` section. Raises VdsgenError unless there is one number a stage, of layers that
    the stage recomputes; 0 where none does."""
    own = tuple(int(count) for count in section.get("selective_layers") or [0] * len(intervals))
    if len(own) != len(intervals):
        raise VdsgenError(
            f"pipeline.selective_layers {list(own)} needs {len(intervals)} entries, one a stage"
        )
    for stage, (count, interval) in enumerate(zip(own, intervals, strict=True)):
        recomputed = partition[stage + 1] - partition[stage] - plain[stage] if interval else 0
        if not 0 <= count <= recomputed:
            raise VdsgenError(
                f"pipeline.selective_layers {list(own)}: stage {stage} recomputes {recomputed} layers",
                remedy="make each at most what its stage recomputes: its layers without the plain ones, "
                "and none where its checkpoint interval is 0",
            )
    return own
