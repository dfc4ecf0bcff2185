"""What a change of configuration does: settings by what they affect, and the predictions before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vdsgen.render.check_rendered import differences
from vdsgen.render.engine_config import engine_config
from vdsgen.review.changes import ABSENT, Change, changes_between
from vdsgen.review.directory import RenderedDirectory
from vdsgen.spec.plan import Plan


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a plan predicts, as far as two plans can be compared."""

    peak_bytes: int
    """On the GPU that needs most."""
    stage_peak_bytes: tuple[int, ...]
    headroom_bytes: int
    """On the GPU that has least to spare; negative where the plan does not fit."""
    step_seconds: float
    samples_per_second: float
    global_batch_size: int
    parameters: int
    world_size: int


@dataclass(frozen=True, slots=True)
class Diff:
    """Two rendered directories beside each other."""

    old: str
    new: str
    changes: tuple[Change, ...]
    before: Prediction
    after: Prediction
    edited: tuple[str, ...]
    """Directories whose ds_config.json was edited since: their predictions are those of the plan before."""

    @property
    def same(self) -> bool:
        return not self.changes and self.before == self.after

    @property
    def shown(self) -> tuple[Change, ...]:
        """Changes that say something of their own."""
        return tuple(change for change in self.changes if change.follows_from is None)


def diff_sides(old: RenderedDirectory, new: RenderedDirectory) -> Diff:
    """Compares what the directories say; formatting of JSON and YAML does not count."""
    return Diff(
        old=old.label,
        new=new.label,
        changes=changes_between(old, new),
        before=prediction_of(old.plan),
        after=prediction_of(new.plan),
        edited=tuple(side.label for side in (old, new) if _was_edited(side)),
    )


def _was_edited(side: RenderedDirectory) -> bool:
    return any(differences(side.ds_config, engine_config(side.plan, side.experiment)))


def prediction_of(plan: Plan) -> Prediction:
    """What plan.json says, whatever was edited beside it."""
    peaks = tuple(stage.memory.peak_bytes for stage in plan.stages)
    return Prediction(
        peak_bytes=max(peaks),
        stage_peak_bytes=peaks,
        headroom_bytes=min(stage.capacity_bytes - stage.memory.peak_bytes for stage in plan.stages),
        step_seconds=plan.predicted.step_seconds,
        samples_per_second=plan.predicted.samples_per_second,
        global_batch_size=plan.batch.global_batch_size,
        parameters=plan.model.parameters,
        world_size=plan.parallel.world_size,
    )


def as_json(result: Diff) -> dict[str, Any]:
    """For machines: every change, `old` or `new` left out where the key is absent; bytes and seconds."""
    return {
        "schema_version": 1,
        "old": result.old,
        "new": result.new,
        "same": result.same,
        "changes": [_change_json(change) for change in result.changes],
        "edited": list(result.edited),
        "predicted": {"old": _prediction_json(result.before), "new": _prediction_json(result.after)},
    }


def _change_json(change: Change) -> dict[str, Any]:
    entry: dict[str, Any] = {"file": change.file, "key": change.key}
    for side in ("old", "new"):
        value = getattr(change, side)
        if value is not ABSENT:
            entry[side] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return {**entry, "affects": list(change.affects), "follows_from": change.follows_from}


def _prediction_json(prediction: Prediction) -> dict[str, Any]:
    return {
        "peak_bytes": prediction.peak_bytes,
        "stage_peak_bytes": list(prediction.stage_peak_bytes),
        "headroom_bytes": prediction.headroom_bytes,
        "step_seconds": prediction.step_seconds,
        "samples_per_second": prediction.samples_per_second,
        "global_batch_size": prediction.global_batch_size,
        "parameters": prediction.parameters,
        "world_size": prediction.world_size,
    }
