"""What a change of configuration does: settings by what they affect, verdicts, risks, and predictions."""

from __future__ import annotations

from dataclasses import dataclass

from vdsgen.review.changes import Change, changes_between
from vdsgen.review.directory import RenderedDirectory
from vdsgen.review.effective import EffectiveConfig
from vdsgen.review.impact import Impact, impact_of
from vdsgen.review.lint.context import Context
from vdsgen.review.repredict import Repredicted, repredicted
from vdsgen.review.risk import Risk, Sides
from vdsgen.review.risks import risks
from vdsgen.review.side import DS_CONFIG, PlainConfig, Side, alone
from vdsgen.review.verdicts import Verdicts, verdicts
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
class Edited:
    """A directory whose ds_config.json says something else than its plan."""

    label: str
    keys: tuple[str, ...]
    missing: str | None
    """Why its figures are those of the plan before, or what they leave out; None where they are of the file
    as it is."""


@dataclass(frozen=True, slots=True)
class Diff:
    """Two sides beside each other."""

    old: str
    new: str
    changes: tuple[Change, ...]
    """Those that come to the same, too."""
    verdicts: Verdicts
    risks: tuple[Risk, ...]
    before: Prediction | None
    """None where a side is no rendered directory."""
    after: Prediction | None
    impact: Impact | None
    edited: tuple[Edited, ...]

    @property
    def same(self) -> bool:
        """Whether nobody would notice: what is only written otherwise does not count."""
        return self.before == self.after and not any(change.affects for change in self.changes)

    @property
    def shown(self) -> tuple[Change, ...]:
        """Changes that say something of their own."""
        return tuple(change for change in self.changes if change.affects and change.follows_from is None)

    @property
    def without_effect(self) -> tuple[Change, ...]:
        """What is written otherwise, and comes to the same, of its own."""
        return tuple(change for change in self.changes if not change.affects and change.follows_from is None)


def diff_sides(old: Side, new: Side) -> Diff:
    """Compares what the two sides come to; formatting of JSON and YAML, names that keys had before and
    defaults that are written out do not count. Reads no file but the catalogue's.

    A rendered directory beside a plain DeepSpeed JSON is compared by its ds_config.json alone. Raises
    InputError where a ds_config.json cannot be read.
    """
    if isinstance(old, PlainConfig) or isinstance(new, PlainConfig):
        old, new = alone(old), alone(new)
    configs = _configs(old, new)
    changes = changes_between(old, new, configs)
    found = verdicts(old, new, configs, changes)
    if isinstance(old, PlainConfig) or isinstance(new, PlainConfig):
        sides = Sides(*configs, changes, found)
        return Diff(old.label, new.label, changes, found, risks(sides), None, None, None, ())
    today = (repredicted(old, configs[0]), repredicted(new, configs[1]))
    plans, experiments = (today[0].plan, today[1].plan), (old.experiment, new.experiment)
    return Diff(
        old=old.label,
        new=new.label,
        changes=changes,
        verdicts=found,
        risks=risks(Sides(*configs, changes, found, plans, experiments)),
        before=prediction_of(plans[0]),
        after=prediction_of(plans[1]),
        impact=impact_of(*plans, experiments, configs),
        edited=tuple(
            edited for side, one in zip((old, new), today, strict=True) if (edited := _edited(side, one))
        ),
    )


def _configs(old: Side, new: Side) -> tuple[EffectiveConfig, EffectiveConfig]:
    """Where only one side tells how many ranks there are, the other is taken to have as many."""
    configs = _config(old), _config(new)
    ranks = [config.ranks for config in configs]
    for config in configs:
        config.ranks = config.ranks or ranks[0] or ranks[1]
    return configs


def _config(side: Side) -> EffectiveConfig:
    """A file that says "auto" anywhere is one that Transformers or Accelerate complete: DeepSpeed itself
    takes no batch size from it."""
    if isinstance(side, PlainConfig):
        context = Context(auto_filled=b'"auto"' in side.content)
        return EffectiveConfig(side.content, side.label, context)
    return EffectiveConfig(side.files[DS_CONFIG], side.config_file, Context(plan=side.plan))


def _edited(side: RenderedDirectory, today: Repredicted) -> Edited | None:
    if not today.edited:
        return None
    return Edited(side.label, today.edited, today.missing)


def prediction_of(plan: Plan) -> Prediction:
    """The figures of a plan, whatever was edited beside it."""
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
