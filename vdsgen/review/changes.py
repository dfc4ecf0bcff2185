"""Settings that differ between the two sides of a diff."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vdsgen.review.absent import ABSENT
from vdsgen.review.directory import RenderedDirectory
from vdsgen.review.effect import ANYTHING, GROUPS, Curve, Effect, Group
from vdsgen.review.effective import EffectiveConfig
from vdsgen.review.effects import effect_of, follows_from
from vdsgen.review.engine_changes import engine_differences
from vdsgen.review.side import DS_CONFIG, PlainConfig, Side
from vdsgen.spec.secrets import has_credentials, is_secret_name

NOT_SETTINGS = ("stages", "predicted")
"""Parts of plan.json that are predictions; `vdsgen diff` shows them by themselves."""
ONE_VALUE = ("reasons", "search", "explanations")
"""Parts of plan.json that are compared as a whole."""
TEXT_FILES = ("launch.sh", "hostfile", "train.sbatch", "pytorchjob.yaml", "PLAN.md")
HOLDING_OUT = "train.yaml:training.validation"
"""Held-out clips of a folder of their own change nothing for those that are trained on."""
HIDDEN_BEFORE, HIDDEN_NOW = "(a secret before)", "(a secret now)"


@dataclass(frozen=True, slots=True)
class Change:
    """One key that is not written alike."""

    file: str
    key: str
    """Dotted, by its name of today; empty for a file that is compared as a whole."""
    old: Any
    """As it is written; ABSENT where it is not."""
    new: Any
    affects: tuple[Group, ...]
    """Empty where it comes to the same."""
    follows_from: str | None
    """`FILE:key` of the change that this one only repeats."""
    curve: Curve = "identical"
    was: Any = ABSENT
    """What it comes to, where that is known and the file does not say it."""
    now: Any = ABSENT
    note: str | None = None

    @property
    def group(self) -> Group:
        return self.affects[0] if self.affects else "none"

    @property
    def name(self) -> str:
        """`FILE:key`."""
        return f"{self.file}:{self.key}"


def changes_between(
    old: Side, new: Side, configs: tuple[EffectiveConfig, EffectiveConfig]
) -> tuple[Change, ...]:
    """By group, then in the order of the files."""
    found = [*_of_engine(*configs), *_of_plans(old, new)]
    # What only repeats everything else must not be what something else is said to follow from.
    own = [
        change.name for change in found if change.affects and ANYTHING not in effect_of(change.name).mirrors
    ]
    followed = (_followed(change, own, old, new) for change in found)
    return tuple(sorted(followed, key=lambda change: GROUPS.index(change.group)))


def _of_engine(old: EffectiveConfig, new: EffectiveConfig) -> Iterator[Change]:
    for one in engine_differences(old, new):
        effect = effect_of(f"{DS_CONFIG}:{one.key}")
        affects = () if one.without_effect else effect.affects
        curve: Curve = "identical" if one.without_effect else effect.curve
        yield Change(
            DS_CONFIG,
            one.key,
            one.old,
            one.new,
            affects,
            None,
            curve,
            was=one.was,
            now=one.now,
            note=one.note,
        )


def _of_plans(old: Side, new: Side) -> Iterator[Change]:
    if isinstance(old, PlainConfig) or isinstance(new, PlainConfig):
        return
    before, after = dict(plan_settings(old)), dict(plan_settings(new))
    for key in {**before, **after}:
        was, now = before.get(key, ABSENT), after.get(key, ABSENT)
        if was == now:
            continue
        file, _, path = key.partition(":")
        idle = _idle(key, old, new)
        if idle is None:
            effect = effect_of(key)
            if key.startswith(HOLDING_OUT) and _held_out(old) == _held_out(new):
                effect = Effect(("housekeeping",), "identical")
            yield Change(file, path, was, now, effect.affects, None, effect.curve)
        else:
            yield Change(file, path, was, now, (), None, note=f"not read: {idle}")


def _held_out(side: RenderedDirectory) -> float:
    """Share of the training clips that are not trained on."""
    validation = side.experiment.training.validation
    return 0.0 if validation is None or validation.fraction is None else validation.fraction


def _idle(key: str, old: RenderedDirectory, new: RenderedDirectory) -> str | None:
    """Why neither side's training reads a key of train.yaml; None where one does."""
    if key.startswith("train.yaml:training.loss_scaling."):
        dtypes = {side.plan.precision.dtype for side in (old, new)}
        return None if "fp16" in dtypes else f"training is in {' and '.join(sorted(dtypes))}"
    if key.startswith("train.yaml:training.lora."):
        methods = {side.experiment.training.method for side in (old, new)}
        return None if "lora" in methods else "every weight is trained, none by adapters"
    return None


def _followed(change: Change, own: Sequence[str], old: Side, new: Side) -> Change:
    comes_or_goes = change.old is ABSENT or change.new is ABSENT
    source = follows_from(change.name, comes_or_goes, own)
    plans = [side.plan for side in (old, new) if isinstance(side, RenderedDirectory)]
    if source is None and change.name == "PLAN.md:" and plans[0] != plans[-1]:
        source = "plan.json:predicted"
    change = replace(change, follows_from=source)
    return without_secrets(change)


def without_secrets(change: Change) -> Change:
    """A secret that somebody wrote into a file is not repeated."""
    is_named = is_secret_name(change.key.rpartition(".")[2])

    def hidden(value: Any, instead: str) -> Any:
        secret = isinstance(value, str) and value and (is_named or has_credentials(value))
        return instead if secret else value

    return replace(
        change,
        old=hidden(change.old, HIDDEN_BEFORE),
        new=hidden(change.new, HIDDEN_NOW),
        was=hidden(change.was, HIDDEN_BEFORE),
        now=hidden(change.now, HIDDEN_NOW),
    )


def plan_settings(directory: RenderedDirectory) -> Iterator[tuple[str, Any]]:
    """(`FILE:key.path`, value) of every setting outside ds_config.json; lists are values."""
    yield from flatten("train.yaml:", directory.experiment.model_dump(mode="json"))
    plan = directory.plan.model_dump(mode="json", exclude={*NOT_SETTINGS})
    yield from flatten("plan.json:", {key: plan[key] for key in plan if key not in ONE_VALUE})
    for key in ONE_VALUE:
        yield f"plan.json:{key}", plan.get(key)
    for name in TEXT_FILES:
        yield f"{name}:", directory.files.get(name, ABSENT)


def flatten(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key path behind `prefix`, value) of each leaf; an empty mapping is a leaf."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from flatten(f"{prefix}{key}.", item)
        else:
            yield f"{prefix}{key}", item
